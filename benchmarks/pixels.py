"""Windows of one large image: seconds and peak memory of reading a tiled TIFF pyramid.

python benchmarks/pixels.py [--side 40000] [--views 200]

The pyramid is generated from a few tiles that are compressed once, so that it takes seconds and megabytes. It is read
in a process of its own, whose peak memory is what counts: above that of the imports, too. Exit status 1 where the peak
is above the limit.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

LIMIT = 300
"""MiB that the reading process may take."""
TILE = 512
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


def tiles(length: int, level: int) -> Iterator[bytes]:
    """The compressed tiles of one level: every one a gradient in one of seven colours."""
    ramp = np.arange(TILE, dtype=np.uint8)[:, None, None] // 4
    colours = np.array([(40 * number, 255 - 30 * number, 20 * level) for number in range(7)], np.uint8) // 2
    encoded = [zlib.compress((ramp + np.broadcast_to(c, (TILE, TILE, 3))).tobytes(), 1) for c in colours]
    return itertools.islice(itertools.cycle(encoded), (-(-length // TILE)) ** 2)


def read(path: Path, views: int) -> dict[str, float]:
    """The whole image as one view, then windows at native scale in random places."""
    from resource import RUSAGE_SELF, getrusage

    from pipeline.images.files import stored
    from pipeline.images.formats import open_image

    def peak() -> float:
        return round(getrusage(RUSAGE_SELF).ru_maxrss / 1024, 1)

    start = peak()
    source = open_image(stored(str(path.parent), path.name))
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


def measure(side: int, views: int, folder: Path) -> dict[str, float]:
    """`read` in a process of its own, of a pyramid made in a folder."""
    path = folder / "pyramid.tif"
    began = time.monotonic()
    write_pyramid(path, side)
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
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read, options.views)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.side, options.views, Path(folder))
    print(json.dumps(found, indent=1))
    sys.exit(found["MiB at most"] > LIMIT)


if __name__ == "__main__":
    main()
