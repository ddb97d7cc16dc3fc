"""A whole slide through every stage and out again: seconds and peak memory of each, in a process of its own.

python benchmarks/slides.py [--side 100000] [--tissue 0.05] [--folder FOLDER]

The slide is generated in Aperio's layout: glass with a few discs of tissue, of tiles that are compressed once. The
backbone is timm's `test_vit` with random weights (64 channels), so that what is measured is the way of the pixels.
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

LIMIT = 2048
"""MiB that a process may take above its imports, the model among them."""
TILE = 512
STAGES = ("features", "neighbours", "head", "clusters", "baseline", "masks", "scores", "report")
FORMATS = ("geotiff", "ome-tiff", "ome-zarr", "geojson", "table")


def write_slide(path: Path, side: int, tissue: float) -> None:
    """A slide of side × side pixels, of which a share is tissue: nine discs of three textures."""
    sides = [side]
    while sides[-1] > 2 * TILE:
        sides.append(sides[-1] // 2)
    text = f"Aperio Image Library v10\r\n{side}x{side} ({TILE}x{TILE}) RAW|MPP = 0.25"
    more: dict[str, Any] = {"photometric": "rgb", "metadata": None, "description": text, "software": False}
    radius = (tissue / 9 / np.pi) ** 0.5
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, length in enumerate(sides):
            size: dict[str, Any] = {"shape": (length, length, 3), "dtype": np.uint8, "tile": (TILE, TILE)}
            file.write(tiles(length, radius), compression="deflate", **size, **more)
            if level == 0:
                file.write(np.full((256, 256, 3), 243, np.uint8), rowsperstrip=16, **more)


def tiles(length: int, radius: float) -> Iterator[bytes]:
    """The compressed tiles of one level. Those of glass alone, and of tissue alone, are made once."""
    rng = np.random.default_rng(0)
    glass = np.full((TILE, TILE, 3), 243, np.uint8)
    colours = np.array([[190, 90, 150], [130, 70, 170], [210, 150, 190]])
    textures = [(c + rng.integers(-30, 30, (TILE, TILE, 3))).clip(0, 255).astype(np.uint8) for c in colours]
    packed = [zlib.compress(one.tobytes(), 1) for one in (glass, *textures)]
    for kinds in kinds_of(length, radius):
        if isinstance(kinds, int):
            yield packed[kinds]
            continue
        image = glass.copy()
        for kind, texture in enumerate(textures, 1):
            image[kinds == kind] = texture[kinds == kind]
        yield zlib.compress(image.tobytes(), 1)


def kinds_of(length: int, radius: float) -> Iterator[int | np.ndarray]:
    """Of each tile of a level what its pixels are, 0 glass, 1 to 3 a texture: one number, or (TILE, TILE) uint8."""
    count = -(-length // TILE)
    for row, column in itertools.product(range(count), range(count)):
        kinds = np.zeros((TILE, TILE), np.uint8)
        y, x = ((np.arange(TILE) + at * TILE) / length for at in (row, column))
        corners = np.array([y[0], y[-1]]), np.array([x[0], x[-1]])
        for number, (v, u) in enumerate(itertools.product((0.2, 0.5, 0.8), repeat=2)):
            gap = [max(0.0, float(c[0]) - p, p - float(c[1])) for c, p in zip(corners, (v, u), strict=True)]
            if np.hypot(*gap) <= radius:
                kinds[np.hypot(*np.meshgrid(y - v, x - u, indexing="ij")) <= radius] = 1 + number % 3
        yield int(kinds[0, 0]) if kinds.min() == kinds.max() else kinds


def write_labels(path: Path, side: int, tissue: float) -> None:
    """Its label map: the texture of each pixel of tissue, 255 on glass."""
    path.parent.mkdir(parents=True)
    size: dict[str, Any] = {"shape": (side, side), "dtype": np.uint8, "tile": (TILE, TILE)}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        packed = {kind: zlib.compress(np.full((TILE, TILE), kind, np.uint8).tobytes(), 1) for kind in (255, 0, 1, 2)}
        each = kinds_of(side, (tissue / 9 / np.pi) ** 0.5)
        file.write(
            (packed[(k - 1) % 256] if isinstance(k, int) else zlib.compress((k - 1).tobytes(), 1) for k in each),
            compression="deflate",
            photometric="minisblack",
            metadata=None,
            **size,
        )


def config_of(folder: Path, weights: Path) -> dict[str, Any]:
    return {
        "store": str(folder / "store"),
        "dataset": {"root": str(folder / "root")},
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


def step(folder: Path, name: str) -> dict[str, float]:
    """One stage, or one export, in this process."""
    from resource import RUSAGE_SELF, getrusage

    import scipy.ndimage  # noqa: F401

    from pipeline.api import run
    from pipeline.backbones import vit  # noqa: F401
    from pipeline.config import validate
    from pipeline.exporting import export

    def peak() -> float:
        return round(getrusage(RUSAGE_SELF).ru_maxrss / 1024, 1)

    start, began, used = peak(), time.monotonic(), time.process_time()
    config = validate(config_of(folder, folder / "weights.safetensors"))
    if name in FORMATS:
        export(config.store, "latest", folder / f"out-{name}", format=name)
    else:
        run(config, stage=None if name == "report" else name)
    took = {"seconds": round(time.monotonic() - began, 1), "of CPU": round(time.process_time() - used, 1)}
    return {**took, "MiB of the imports": start, "MiB above": round(peak() - start, 1)}


def main() -> None:
    """Print what was measured as JSON lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--tissue", type=float, default=0.05, help="share of the slide")
    parser.add_argument("--folder", type=Path, help="where to work, and go on; by default a temporary folder")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.folder, options.step)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        slide = folder / "root/images/a.svs"
        if not slide.exists():
            slide.parent.mkdir(parents=True)
            began = time.monotonic()
            write_slide(slide, options.side, options.tissue)
            write_labels(folder / "root/labels/a.tif", options.side, options.tissue)
            print(json.dumps({"slide": options.side, "seconds": round(time.monotonic() - began, 1)}), flush=True)
            weigh(folder)
        worst = 0.0
        for name in ("dataset", *STAGES, *FORMATS):
            command = [sys.executable, __file__, "--folder", str(folder), "--step", name]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(answer.stdout.splitlines()[-1])
            worst = max(worst, found["MiB above"])
            print(json.dumps({"step": name, **found}), flush=True)
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
