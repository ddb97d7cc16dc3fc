"""Export of one large label map in every format that reads it by windows, and of a small one in all: MB/s, peak memory.

python benchmarks/writers.py [--side 12000] [--small 1024] [--out table.md]

The large label map is made when a window of it is read, so memory is that of the writer: each format runs in a process
of its own. A megabyte is a million pixels of ids. Exit status 1 where a format of large images takes more than `LIMIT`
above the imports.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.images.source import Georeference
from pipeline.writers import FORMATS, open_writer
from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, Legend

LIMIT = 400
"""MiB above the imports."""
LARGE = ("geotiff", "ome-zarr", "ome-tiff", "fits", "geojson", "gpkg", "table")
CLASSES = 8


class Generated:
    """Ids of wavy regions some 300 pixels wide, with ragged borders, which repeat every 2400 pixels."""

    def __init__(self, side: int) -> None:
        self.shape, self.dtype = (side, side), np.dtype(np.uint8)
        y, x = np.arange(2400)[:, None], np.arange(2400)
        ragged = (y * 7919 + x * 104729) % 11 // 3
        rows, columns = y + (x // 64 * 37) % 90 + ragged, x + (y // 64 * 53) % 90
        self.repeated = ((rows // 300 * 5 + columns // 300 * 3) % CLASSES).astype(np.uint8)

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        y, x = (np.arange(at.start, at.stop, dtype=np.int64) % 2400 for at in window)
        return self.repeated[y[:, None], x]


def write(format: str, side: int) -> dict[str, float]:
    """Seconds, bytes and peak MiB above the imports of one export."""

    def memory(key: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

    writer, legend = open_writer(format), Legend([f"class {number}" for number in range(CLASSES)], 255)
    crs = ""
    if format in LARGE:
        import rasterio

        crs = rasterio.CRS.from_epsg(32633).to_wkt()
    grid = Georeference(crs, (0.5, 0, 5e5, 0, -0.5, 5e6)) if crs else None
    image = ImageFacts("val", "image.tif", "images/val/image.tif", "image", "image.tif", georeference=grid)
    ids = Generated(side) if format in LARGE else Generated(side)[slice(0, side), slice(0, side)]
    with tempfile.TemporaryDirectory() as out:
        empty = Folder(Path(out, "small"))  # what is imported late
        writer.one(empty, legend, image, Generated(64)[slice(0, 64), slice(0, 64)])
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        folder, start, began = Folder(Path(out, "large")), memory("VmRSS"), time.monotonic()
        made = writer.one(folder, legend, image, ids)
        if writer.finish:
            writer.finish(folder, legend, [Done(image, side, side, {0: 1}, made)])
        seconds = time.monotonic() - began
        size = sum(path.stat().st_size for path in folder.root.rglob("*") if path.is_file())
    return {"seconds": seconds, "bytes": size, "mib": memory("VmHWM") - start}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=12000)
    parser.add_argument("--small", type=int, default=1024)
    parser.add_argument("--out")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(write(args.one, args.side)))
        return 0
    lines, status = ["| format | side, px | MB/s | file, MB | peak, MiB |", "|---|---|---|---|---|"], 0
    for format in FORMATS:
        for side in (args.small, args.side) if format in LARGE else (args.small,):
            command = [sys.executable, __file__, "--one", format, "--side", str(side)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            speed, size = side**2 / 1e6 / done["seconds"], done["bytes"] / 1e6
            lines.append(f"| {format} | {side} | {speed:.1f} | {size:.2f} | {done['mib']:.0f} |")
            print(lines[-1], flush=True)
            status |= done["mib"] > LIMIT
    if args.out:
        Path(args.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
