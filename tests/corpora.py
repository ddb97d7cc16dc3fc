"""A tiny labelled corpus, and config data of a run on it that takes about a second."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

BACKBONE = "test_vit"  # timm's own: patch 16, 64 channels, 6 blocks
SHAPES = ((72, 96), (96, 72), (80, 80), (64, 120))  # (height, width) in pixels
STEGO = {"steps": 20, "batch": 4, "code": 8, "samples": 3, "negatives": 2}
HEADS: dict[str, dict[str, Any]] = {
    "stego": STEGO,
    "stegoflow": STEGO,
    "smooseg": {"steps": 6, "batch": 4},
    "cause": {"steps": 12, "batch": 4, "codewords": 12},
    "primaps": {"steps": 6, "batch": 4},
}
"""What makes the training of each method short."""
CLASSES = ("low", "high", "striped")


def picture(seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image of three textures in random rectangles, and its label map."""
    rng = np.random.default_rng([7, seed])
    label = np.zeros(shape, np.uint8)
    for number in (1, 2):
        top, left = (int(rng.integers(0, side // 2)) for side in shape)
        label[top : top + shape[0] // 2, left : left + shape[1] // 2] = number
    stripes = np.indices(shape).sum(0) // 4 % 2 * 120 + 60
    grey = np.choose(label, [np.full(shape, 50), np.full(shape, 200), stripes])
    tint = rng.integers(-30, 31, 3)
    image = grey[..., None] + tint + rng.normal(0, 8, (*shape, 3))
    return image.clip(0, 255).astype(np.uint8), label


def write_corpus(root: Path, *, train: int = 6, val: int = 4, labels: bool = True) -> Path:
    """ROOT/images/{train,val}/NN.png, with labels and dataset.yaml unless told otherwise."""
    number = 0
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            image, label = picture(number, SHAPES[number % len(SHAPES)])
            for kind, pixels in (("images", image), ("labels", label)):
                if kind == "images" or labels:
                    path = root / kind / split / f"{index:02d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
            number += 1
    if labels:
        (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": list(CLASSES), "ignore_index": 255}))
    return root


def small(root: Path, store: Path | str, weights: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Config data of a run that takes about a second; `sections` are merged over it, section by section."""
    method = sections.get("head", {}).get("method", "stego")
    data: dict[str, Any] = {
        "store": str(store),
        "dataset": {"root": str(root)},
        "features": {"backbone": BACKBONE, "weights": str(weights), "views": {"size": [64, 64]}},
        "head": {"method": method, **HEADS.get(method, {})},
        "clusters": {"k": 4, "restarts": 2, "iterations": 10},
        "probe": {"epochs": 2},
        "masks": {"crf": True, "crf_params": {"iterations": 2}},
        "report": {"images": 2, "patches": 2},
        "execution": {"executor": "serial", "device": "cpu", "precision": "fp32"},
    }
    for name, content in sections.items():
        data[name] = {**data.get(name, {}), **content}
    return data
