"""Windows of one large image: seconds and peak memory of reading a tiled TIFF pyramid, and its like of other formats.

python benchmarks/pixels.py [--side 40000] [--views 200] [--source pyramid|slide|geotiff|ome-zarr|fits|jpeg]
python benchmarks/pixels.py --beside [--side 8000]    windows as features reads them, beside JPEGs of the same pixels

Each is generated from a few tiles that are compressed once, so that it takes seconds and megabytes (`fits` is a file
with holes). It is read in a process of its own, whose peak memory is what counts: above that of the imports, too. The
source `jpeg` is plain JPEGs of the size of a view, one after the other, to compare with. Exit status 1 where
the peak is above the limit.

`--beside` reads the windows of rows one after the other, a quarter of each shared with the next, and then the same
pixels from JPEGs of one view each, in turns within one process; the least of three turns, in milliseconds of CPU.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

LIMIT = 300
"""MiB that the reading process may take."""
TILE = 512
EIGHT_BANDS: dict[str, Any] = {
    "dtype": np.uint16,
    "tile": (TILE, TILE),
    "photometric": "minisblack",
    "planarconfig": "contig",
    "compression": "deflate",
    "metadata": None,
}
"""How tifffile writes interleaved bands of 16 bits in tiles."""
VIEW = (322, 322)


def write_pyramid(path: Path, side: int) -> None:
    """An RGB pyramid of side × side pixels in tiles of TILE, each level half of the one above, in SubIFDs, as
    `vips tiffsave --tile --pyramid --subifd` writes it. Tile colours repeat every 7 tiles; memory is that of them."""
    sides = [side]
    while sides[-1] > TILE:
        sides.append(sides[-1] // 2)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, length in enumerate(sides):
            file.write(
                tiles(length, level),
                shape=(length, length, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="deflate",
                subifds=len(sides) - 1 if level == 0 else None,
                subfiletype=1 if level else 0,
                metadata=None,
            )


def write_slide(path: Path, side: int) -> None:
    """The same in Aperio's layout: levels are pages, the second page is a thumbnail."""
    sides = [side]
    while sides[-1] > TILE:
        sides.append(sides[-1] // 2)
    text = f"Aperio Image Library v10\r\n{side}x{side} ({TILE}x{TILE}) RAW|MPP = 0.25"
    more: dict[str, Any] = {"photometric": "rgb", "metadata": None, "description": text, "software": False}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, length in enumerate(sides):
            size: dict[str, Any] = {"shape": (length, length, 3), "dtype": np.uint8, "tile": (TILE, TILE)}
            file.write(tiles(length, level), compression="deflate", **size, **more)
            if level == 0:
                file.write(np.zeros((256, 256, 3), np.uint8), rowsperstrip=16, **more)


def write_geotiff(path: Path, side: int) -> None:
    """Eight bands of 16 bits in tiles, deflated, with a nodata value and without overviews."""
    ramp = np.arange(TILE, dtype=np.uint16)[:, None, None] * 20 + 100 * np.arange(8, dtype=np.uint16) + 1
    encoded = [zlib.compress((ramp + np.zeros((1, TILE, 1), np.uint16) + 99 * n).tobytes(), 1) for n in range(7)]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            itertools.islice(itertools.cycle(encoded), (-(-side // TILE)) ** 2),
            shape=(side, side, 8),
            **EIGHT_BANDS,
            extratags=[(42113, "s", 0, "0", True), (33550, "d", 3, (10.0, 10.0, 0.0), True)],
        )


def write_ome_zarr(path: Path, side: int) -> None:
    """Three channels of 16 bits, a pyramid; its chunks are copies of seven."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    sides = [side]
    while sides[-1] > TILE:
        sides.append(sides[-1] // 2)
    for level, length in enumerate(sides):
        array = group.create_array(str(level), shape=(3, length, length), chunks=(1, TILE, TILE), dtype="uint16")
        ramp = np.arange(TILE, dtype=np.uint16)[:, None] * 30 + np.zeros((1, TILE), np.uint16)
        count = -(-length // TILE)
        array[0, :TILE, :TILE] = ramp[:length, :length]
        first = path / str(level) / "c/0/0/0"
        for channel, row, column in itertools.product(range(3), range(count), range(count)):
            place = path / str(level) / f"c/{channel}/{row}/{column}"
            if place != first:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.hardlink_to(first)
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, side / length, side / length]}]}
        for n, length in enumerate(sides)
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}


def write_fits(path: Path, side: int) -> None:
    """One plane of 16 bits: a header and a hole."""
    cards = [f"{'SIMPLE':8}= {'T':>20}", f"{'BITPIX':8}= {16:>20}", f"{'NAXIS':8}= {2:>20}"]
    cards += [f"{f'NAXIS{n}':8}= {side:>20}" for n in (1, 2)] + ["END"]
    with path.open("wb") as file:
        file.write("".join(f"{card:80}" for card in cards).ljust(2880).encode())
        file.truncate(2880 + -(-2 * side * side // 2880) * 2880)


def tiles(length: int, level: int) -> Iterator[bytes]:
    """The compressed tiles of one level: every one a gradient in one of seven colours."""
    ramp = np.arange(TILE, dtype=np.uint8)[:, None, None] // 4
    colours = np.array([(40 * number, 255 - 30 * number, 20 * level) for number in range(7)], np.uint8) // 2
    encoded = [zlib.compress((ramp + np.broadcast_to(c, (TILE, TILE, 3))).tobytes(), 1) for c in colours]
    return itertools.islice(itertools.cycle(encoded), (-(-length // TILE)) ** 2)


WRITERS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "pyramid": ("a.tif", write_pyramid),
    "slide": ("a.svs", write_slide),
    "geotiff": ("a.tif", write_geotiff),
    "ome-zarr": ("a.zarr", write_ome_zarr),
    "fits": ("a.fits", write_fits),
}


def read(path: Path, views: int) -> dict[str, float]:
    """The whole image as one view, then windows at native scale in random places."""
    from resource import RUSAGE_SELF, getrusage

    from pipeline.images.files import Folder, stored
    from pipeline.images.formats import open_image

    def peak() -> float:
        return round(getrusage(RUSAGE_SELF).ru_maxrss / 1024, 1)

    start = peak()
    folder = str(path.parent)
    source = open_image(Folder(folder, path.name, 0) if path.is_dir() else stored(folder, path.name))
    height, width = source.size
    began = time.monotonic()
    source.read((0, 0, height, width), VIEW)
    whole = time.monotonic() - began
    rng = np.random.default_rng(0)
    began = time.monotonic()
    for _ in range(views):
        y, x = rng.integers(0, height - VIEW[0]), rng.integers(0, width - VIEW[1])
        source.read((y, x, *VIEW), VIEW)
    return {
        "megapixels": height * width / 1e6,
        "levels": len(source.levels),
        "seconds of the whole view": round(whole, 3),
        "views per second": round(views / (time.monotonic() - began), 1),
        "MiB of the imports": start,
        "MiB at most": peak(),
    }


def read_jpegs(folder: Path, views: int) -> dict[str, float]:
    """Plain JPEGs of the size of a view."""
    from resource import RUSAGE_SELF, getrusage

    from PIL import Image

    from pipeline.images.files import stored
    from pipeline.images.formats import open_image

    ramp = np.arange(VIEW[0], dtype=np.uint8)[:, None, None] // 4
    for number in range(views):
        Image.fromarray(ramp + np.full((*VIEW, 3), number % 90, np.uint8)).save(folder / f"{number}.jpg", quality=90)
    began = time.monotonic()
    for number in range(views):
        open_image(stored(str(folder), f"{number}.jpg")).read((0, 0, *VIEW), VIEW)
    rate = round(views / (time.monotonic() - began), 1)
    return {"views per second": rate, "MiB at most": round(getrusage(RUSAGE_SELF).ru_maxrss / 1024, 1)}


def beside(folder: Path, side: int, views: int) -> Iterator[dict[str, Any]]:
    """Of each source the milliseconds of CPU that a view takes, and a JPEG of the same pixels."""
    from PIL import Image

    from pipeline.images.files import Folder, stored
    from pipeline.images.formats import open_image

    for kind, (name, write) in WRITERS.items():
        own, jpegs = folder / kind, folder / kind / "jpegs"
        jpegs.mkdir(parents=True)
        write(own / name, side)
        step = VIEW[0] * 3 // 4
        each = (side - VIEW[1]) // step
        corners = [(number // each * step, number % each * step) for number in range(views)]

        def opened(own: Path = own, name: str = name) -> Any:
            return open_image(Folder(str(own), name, 0) if (own / name).is_dir() else stored(str(own), name))

        source = opened()
        for number, corner in enumerate(corners):
            Image.fromarray(source.read((*corner, *VIEW), VIEW)).save(jpegs / f"{number}.jpg", quality=90)
        took: dict[str, list[float]] = {"views": [], "JPEGs": []}
        for _ in range(3):
            source = opened()
            source.read((0, 0, *VIEW), VIEW)  # limits of values, the thumbnail that shows glass
            began = time.process_time()
            for corner in corners:
                source.read((*corner, *VIEW), VIEW)
            took["views"].append(1000 * (time.process_time() - began) / views)
            began = time.process_time()
            for number in range(views):
                open_image(stored(str(jpegs), f"{number}.jpg")).read((0, 0, *VIEW), VIEW)
            took["JPEGs"].append(1000 * (time.process_time() - began) / views)
        view, jpeg = min(took["views"]), min(took["JPEGs"])
        yield {"source": kind, "ms a view": round(view, 2), "ms a JPEG": round(jpeg, 2), "ratio": round(view / jpeg, 2)}


def measure(side: int, views: int, folder: Path, kind: str = "pyramid") -> dict[str, float]:
    """`read` in a process of its own, of an image made in a folder."""
    name, write = WRITERS[kind]
    path = folder / name
    began = time.monotonic()
    write(path, side)
    made = {"seconds to make it": round(time.monotonic() - began, 1), "MB of the file": path.stat().st_size / 1e6}
    command = [sys.executable, __file__, "--read", str(path), "--views", str(views)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return made | json.loads(answer.stdout)


def main() -> None:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=40_000, help="pixels of the pyramid's sides")
    parser.add_argument("--views", type=int, default=200, help="windows that are read")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--beside", action="store_true", help="CPU a view, beside JPEGs of the same pixels")
    parser.add_argument("--source", choices=[*WRITERS, "jpeg"], default="pyramid")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read, options.views)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.beside:
            for line in beside(Path(folder), options.side, options.views):
                print(json.dumps(line), flush=True)
            return
        if options.source == "jpeg":
            found = read_jpegs(Path(folder), options.views)
        else:
            found = measure(options.side, options.views, Path(folder), options.source)
    print(json.dumps(found, indent=1))
    sys.exit(found["MiB at most"] > LIMIT)


if __name__ == "__main__":
    main()
