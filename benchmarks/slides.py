"""A whole slide through every stage and out again: seconds and peak memory of each, in a process of its own.

python benchmarks/slides.py [--width 100000] [--height 100000] [--tissue 0.05] [--scene] [--together] [--folder FOLDER]

The slide is generated in Aperio's layout: glass with a few discs of tissue, of tiles that are compressed once; the
scene is a GeoTIFF of eight bands, nodata with a few discs of content, seen by two triples of its bands. Both have
labels. The backbone is timm's `test_vit` with random weights (64 channels): what is measured is the way of the pixels.
Exit status 1 where a stage takes more than LIMIT above its imports.
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
from typing import Any

import numpy as np
import tifffile
from pixels import EIGHT_BANDS, TILE  # beside this file

PLACE: list[Any] = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True),
    (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
]
"""UTM, 10 m."""
LIMIT = 2048
"""MiB that a process may take above its imports, the model among them."""
STAGES = ("features", "neighbours", "head", "clusters", "baseline", "masks", "scores", "report")
FORMATS = ("geotiff", "ome-tiff", "ome-zarr", "geojson", "table")


def write_slide(path: Path, height: int, width: int, tissue: float) -> None:
    """A slide of which a share is tissue: nine discs of three textures."""
    sizes = [(height, width)]
    while max(sizes[-1]) > 2 * TILE and min(sizes[-1]) > 1:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    text = f"Aperio Image Library v10\r\n{width}x{height} ({TILE}x{TILE}) RAW|MPP = 0.25"
    more: dict[str, Any] = {"photometric": "rgb", "metadata": None, "description": text, "software": False}
    rng = np.random.default_rng(0)
    colours = np.array([[190, 90, 150], [130, 70, 170], [210, 150, 190]])
    textures = [(c + rng.integers(-30, 30, (TILE, TILE, 3))).clip(0, 255).astype(np.uint8) for c in colours]
    glass = np.full((TILE, TILE, 3), 243, np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, (tall, wide) in enumerate(sizes):
            size: dict[str, Any] = {"shape": (tall, wide, 3), "dtype": np.uint8, "tile": (TILE, TILE)}
            file.write(packed(tall, wide, tissue, [glass, *textures]), compression="deflate", **size, **more)
            if level == 0:
                file.write(np.full((256, 256, 3), 243, np.uint8), rowsperstrip=16, **more)


def write_scene(path: Path, height: int, width: int, tissue: float) -> None:
    """A GeoTIFF of eight bands of 16 bits, without overviews, of which a share has content."""
    rng = np.random.default_rng(0)
    textures = [rng.integers(500 * n, 500 * n + 900, (TILE, TILE, 8)).astype(np.uint16) for n in (1, 3, 5)]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            packed(height, width, tissue, [np.zeros((TILE, TILE, 8), np.uint16), *textures]),
            shape=(height, width, 8),
            **EIGHT_BANDS,
            extratags=[*PLACE, (42113, "s", 0, "0", True)],
        )


def write_labels(path: Path, height: int, width: int, tissue: float, placed: bool) -> None:
    """The texture of each pixel, 255 where there is none."""
    path.parent.mkdir(parents=True)
    ids = [np.full((TILE, TILE, 1), kind, np.uint8) for kind in (255, 0, 1, 2)]
    size: dict[str, Any] = {"shape": (height, width), "dtype": np.uint8, "tile": (TILE, TILE)}
    more: dict[str, Any] = {"photometric": "minisblack", "metadata": None, "extratags": PLACE if placed else ()}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(packed(height, width, tissue, ids), compression="deflate", **size, **more)


def packed(height: int, width: int, tissue: float, kinds: list[np.ndarray]) -> Iterator[bytes]:
    """The compressed tiles of one level, of the tiles of nothing and of each texture. Those of one kind are made
    once."""
    whole = [zlib.compress(one.tobytes(), 1) for one in kinds]
    radius = (tissue * height * width / 9 / np.pi) ** 0.5
    for row, column in itertools.product(range(-(-height // TILE)), range(-(-width // TILE))):
        found = np.zeros((TILE, TILE), np.uint8)
        y, x = (np.arange(TILE) + at * TILE for at in (row, column))
        for number, (v, u) in enumerate(itertools.product((0.2, 0.5, 0.8), repeat=2)):
            v, u = v * height, u * width
            if np.hypot(*(max(0.0, at[0] - p, p - at[-1]) for at, p in ((y, v), (x, u)))) <= radius:
                found[np.hypot(*np.meshgrid(y - v, x - u, indexing="ij")) <= radius] = 1 + number % 3
        if found.min() == found.max():
            yield whole[found[0, 0]]
            continue
        image = kinds[0].copy()
        for kind, texture in enumerate(kinds[1:], 1):
            image[found == kind] = texture[found == kind]
        yield zlib.compress(image.tobytes(), 1)


def config_of(folder: Path, weights: Path) -> dict[str, Any]:
    scene = (folder / "root/images/a.tif").exists()
    return {
        "store": str(folder / "store"),
        "dataset": {"root": str(folder / "root"), **({"channels": [[8, 4, 3], [3, 2, 1]]} if scene else {})},
        "features": {
            "backbone": "test_vit",
            "weights": str(weights),
            "codec": "int8",
            "mirror": "none",
            "views": {"kind": "sliding", "size": [320, 320]},
        },
        "head": {"method": "pca"},
        "clusters": {"k": 6},
        "execution": {"executor": "serial", "device": "cpu"},
    }


def weigh(folder: Path) -> Path:
    """Random weights of the backbone."""
    import safetensors.torch
    import torch

    from pipeline.backbones import vit

    torch.manual_seed(0)
    path = folder / "weights.safetensors"
    safetensors.torch.save_file(vit._make("test_vit").state_dict(), path)
    return path


def steps(folder: Path, names: list[str]) -> None:
    """Stages and exports in this process: for each a line with its seconds, and its peak memory above the imports."""
    import scipy.ndimage  # noqa: F401
    import sklearn.metrics  # noqa: F401

    from pipeline.api import run
    from pipeline.backbones import vit  # noqa: F401
    from pipeline.config import validate
    from pipeline.exporting import export

    def memory(key: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

    config = validate(config_of(folder, folder / "weights.safetensors"))
    imports = memory("VmRSS")
    for name in names:
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        began, used = time.monotonic(), time.process_time()
        if name in FORMATS:
            export(config.store, "latest", folder / f"out-{name}", format=name)
        else:
            run(config, stage=None if name == "report" else name)
        took = {"seconds": round(time.monotonic() - began, 1), "of CPU": round(time.process_time() - used, 1)}
        above = round(memory("VmHWM") - imports)
        print(json.dumps({"step": name, **took, "MiB of the imports": round(imports), "MiB above": above}), flush=True)


def main() -> None:
    """Print what was measured as JSON lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--width", type=int, default=100_000)
    parser.add_argument("--height", type=int, help="by default the width")
    parser.add_argument("--tissue", type=float, default=0.05, help="share of the image")
    parser.add_argument("--scene", action="store_true", help="a GeoTIFF of eight bands instead of a slide")
    parser.add_argument("--folder", type=Path, help="where to work, and go on; by default a temporary folder")
    parser.add_argument("--together", action="store_true", help="all steps in one process: quicker, memory adds up")
    parser.add_argument("--steps", nargs="+", help="only these", default=["dataset", *STAGES, *FORMATS])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        steps(options.folder, options.steps)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        image = folder / ("root/images/a.tif" if options.scene else "root/images/a.svs")
        size = options.height or options.width, options.width
        if not image.exists():
            image.parent.mkdir(parents=True)
            began = time.monotonic()
            (write_scene if options.scene else write_slide)(image, *size, options.tissue)
            write_labels(folder / "root/labels/a.tif", *size, options.tissue, options.scene)
            print(json.dumps({"size": size, "seconds": round(time.monotonic() - began, 1)}), flush=True)
            weigh(folder)
        worst = 0.0
        for names in [options.steps] if options.together else [[name] for name in options.steps]:
            command = [sys.executable, __file__, "--folder", str(folder), "--here", "--steps", *names]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                for line in process.stdout or ():
                    if line.startswith("{"):
                        print(line, end="", flush=True)
                        worst = max(worst, json.loads(line)["MiB above"])
            if process.returncode:
                sys.exit(f"{names} ended with {process.returncode}")
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
