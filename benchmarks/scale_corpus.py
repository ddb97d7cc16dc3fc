"""Many distinct small images and what reads them fast, for `benchmarks/scale.py`: what is measured is the pipeline."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

BACKBONE = "test_vit"
"""timm's own: patch 16, 64 channels, 6 blocks."""
SIDE = 32
"""Pixels of an image's sides, and of a view's."""
FOLDER = 1000
"""Images per folder."""
MAPS = 16
"""Distinct label maps: each image has a link to one of them."""
CLASSES = 4
VAL = 1000
"""Images of the split `val`, of which `export` is measured."""


def write_corpus(root: Path, count: int, first: int = 0, labels: bool = True) -> Path:
    """ROOT/images/{train,val} with images `first` … count − 1, in folders of `FOLDER`, and with `labels` a
    label map for each."""
    rng = np.random.default_rng(0)
    base = [rng.integers(0, 200, (4, 4, 3), np.uint8) for _ in range(256)]
    large = [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.uint8) for one in base]
    maps = [_label_map(root, number) for number in range(MAPS)] if labels else []
    for number in range(first, count):
        split = "val" if number < VAL else "train"
        name = f"{split}/{number // FOLDER:04d}/{number:08d}"
        image, label = root / f"images/{name}.jpg", root / f"labels/{name}.png"
        if number % FOLDER == 0 or number == first:
            for path in (image, label) if labels else (image,):
                path.parent.mkdir(parents=True, exist_ok=True)
        # Two of 256 patterns and a stamp of the number: distinct bytes for every image.
        pixels = large[number % 256] // 2 + large[number // 256 % 256] // 2
        for bit in range(24):
            if number >> bit & 1:
                y, x = 4 * (bit // 8), 4 * (bit % 8)
                pixels[y : y + 4, x : x + 4] += 40
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "JPEG", quality=80)
        image.write_bytes(sink.getvalue())
        os.utime(image, (1_500_000_000, 1_500_000_000))
        if labels:
            label.hardlink_to(maps[number % MAPS])
    return root


def _label_map(root: Path, number: int) -> Path:
    path = root / f".maps/{number}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        label = np.zeros((SIDE, SIDE), np.uint8)
        rng = np.random.default_rng([1, number])
        for value in range(1, CLASSES):
            y, x = rng.integers(0, SIDE // 2, 2)
            label[y : y + SIDE // 2, x : x + SIDE // 2] = value
        Image.fromarray(label).save(path)
        os.utime(path, (1_500_000_000, 1_500_000_000))
        (root / "dataset.yaml").write_text(f"classes: {[f'class {value}' for value in range(CLASSES)]}\n")
    return path


def write_weights(path: Path) -> Path:
    """Weights of a random ViT that takes a millisecond per image."""
    import safetensors.torch
    import torch

    from pipeline.backbones import vit

    torch.manual_seed(0)
    safetensors.torch.save_file(vit._make(BACKBONE).state_dict(), path)
    return path
