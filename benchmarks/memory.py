"""How much memory every stage needs above the loaded model, on generated images: `python benchmarks/memory.py`.

Each stage runs in a process of its own, its parts in that process too, so that a stage's number is what a run's process
and a worker need together. Exit status 1 where a stage needs more than the limit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from quality_cell import BASE  # beside this file

from pipeline.api import run
from pipeline.config import validate
from pipeline.planning import STAGES
from pipeline.stages.features import FeaturesParams

LIMIT = 2048
"""MiB above the model that a stage may need."""
SIDE = 160
"""Pixels of an image's sides."""
CLASSES = 4
LARGE = (2000, 2000, 27)
"""Height and width in pixels, and clusters, of the mask with CRF that is made beside the model, at the end."""
NAMES = [stage.name for stage in STAGES if stage.name not in ("reading", "suggestion", "classes")]  # K is given


def measure(images: int, folder: Path) -> dict[str, float]:
    """{stage: MiB of peak memory above a process that has loaded the model alone} of a run on so many images, made in
    an empty folder. CalledProcessError where a stage fails."""
    write_images(folder / "data", images)
    config = folder / "config.json"
    config.write_text(json.dumps(settings(folder)))
    model = child(config, "model")
    return dict(show((name, child(config, name) - model) for name in [*NAMES, "large masks"]))


def settings(folder: Path) -> dict[str, Any]:
    """The config of the run: small views, few steps, no CRF; everything else as by default."""
    return {
        "store": str(folder / "store"),
        "dataset": {"root": str(folder / "data")},
        "features": BASE["features"] | {"views": {"size": [112, 112]}},
        "head": {"steps": 50},
        "clusters": {"k": 8},
        "masks": {"crf": False},
        "execution": {"executor": "serial", "device": "cpu"},
    }


def write_images(root: Path, count: int) -> None:
    """JPEGs of one split and label maps beside them: rectangles of random colours under noise."""
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    (root / "dataset.yaml").write_text(json.dumps({"classes": [f"class {number}" for number in range(CLASSES)]}))
    noise = np.random.default_rng(0).integers(-20, 21, (2 * SIDE, 2 * SIDE, 3), np.int16)
    for number in range(count):
        rng = np.random.default_rng([1, number])
        label = np.zeros((SIDE, SIDE), np.uint8)
        for value in range(1, CLASSES):
            y, x = rng.integers(0, SIDE - 40, 2)
            label[y : y + 80, x : x + 80] = value
        y, x = rng.integers(0, SIDE, 2)
        colours = rng.integers(0, 256, (CLASSES, 3), np.int16)
        pixels = (colours[label] + noise[y : y + SIDE, x : x + SIDE]).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"images/train/{number:06d}.jpg")
        Image.fromarray(label).save(root / f"labels/train/{number:06d}.png", compress_level=1)


def show(found: Iterator[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """The same, each line printed on standard error as it is found."""
    for name, above in found:
        print(f"{name:<11} {above:7.0f} MiB above the model", file=sys.stderr, flush=True)
        yield name, round(above, 1)


def child(config: Path, stage: str) -> float:
    """Peak memory in MiB of a process that runs one stage, or loads the `model` and nothing else."""
    words = [sys.executable, __file__, "--only", stage, "--config", str(config)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.split()[-1])


def only(stage: str, config: Path) -> None:
    """What a child does: the stage, then its own peak on standard output."""
    made = validate(json.loads(config.read_text()))
    if stage == "model":
        load(made.features)
    elif stage == "large masks":
        load(made.features)
        large_masks()
    else:
        run(made, stage=stage)
    # Not ru_maxrss: a child's begins at its parent's size.
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)


def large_masks() -> None:
    """The mask of one picture of 4 megapixels; a single iteration of its CRF, since more take no more memory."""
    from pipeline.numerics.tree import Cut
    from pipeline.stages.masks import CrfParams, MasksParams, label_maps

    height, width, k = LARGE
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    image = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    plane, vectors = (rng.normal(size=(*shape, 70)).astype(np.float32) for shape in ((23, 23), (k,)))
    cut = Cut(np.arange(k), np.arange(k))
    label_maps(image, plane, vectors, cut, MasksParams(crf=True, crf_params=CrfParams(iterations=1)))


def load(params: FeaturesParams) -> None:
    """The backbone, which no one uses then."""
    from pipeline.backbones.vit import create_backbone

    create_backbone(params.backbone, params.weights, block=params.block, facet=params.facet, norm=params.norm)


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of every stage above the model, on generated images.")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        return only(args.only, args.config)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.images, Path(folder))
    worst = max(found, key=found.__getitem__)
    if args.json:
        print(json.dumps({"images": args.images, "limit": LIMIT, "above_model": found}))
    else:
        print(f"{args.images} images: at most {found[worst]:.0f} MiB above the model ({worst}), limit {LIMIT}")
    sys.exit(found[worst] > LIMIT)


if __name__ == "__main__":
    main()
