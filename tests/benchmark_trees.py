"""Miniature trees in the layouts of the published benchmarks: a few tiny images each, of the same textures."""

from pathlib import Path

import numpy as np
from corpora import SHAPES, picture
from PIL import Image
from scipy.io import savemat

STORED = {"cocostuff27": (0, 93, 181), "cityscapes27": (7, 23, 33), "potsdam3": (4, 5, 3)}
"""The stored labels that stand for the three textures."""
IGNORED = {"cocostuff27": 255, "cityscapes27": 6, "potsdam3": 255}
"""A stored label of no class; the first row of every label map holds it."""
TRAIN, VAL = 6, 3


def write_benchmark(root: Path, layout: str, *, labels: bool = True) -> Path:
    """ROOT/{cocostuff,cityscapes,potsdam}/… with 6 training and 3 validation images, and some that no split has."""
    for number in range(TRAIN + VAL):
        split = "train" if number < TRAIN else "val"
        shape = SHAPES[number % len(SHAPES)] if layout != "potsdam3" else (40, 40)
        image, texture = picture(number, shape)
        label = np.asarray(STORED[layout])[texture]
        label[0] = IGNORED[layout]
        globals()[f"_{layout}"](root, split, number, image, label if labels else None)
    return root


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n" + (path.read_text() if path.exists() else ""))  # not in order


def _cocostuff27(root: Path, split: str, number: int, image: np.ndarray, label: np.ndarray | None) -> None:
    top, name = root / "cocostuff", f"{number:012d}"
    _save(top / f"images/{split}2017/{name}.jpg", image)
    _save(top / f"images/{split}2017/{number + 500:012d}.jpg", image)  # in no list
    _append(top / f"curated/{split}2017/Coco164kFull_Stuff_Coarse.txt", name)
    if number % 2:
        _append(top / f"curated/{split}2017/Coco164kFull_Stuff_Coarse_7.txt", name)
    if label is not None:
        _save(top / f"annotations/{split}2017/{name}.png", label.astype(np.uint8))


def _cityscapes27(root: Path, split: str, number: int, image: np.ndarray, label: np.ndarray | None) -> None:
    city = ("bonn", "aachen")[number % 2]
    stem = f"{split}/{city}/{city}_{number:06d}_000019"
    _save(root / f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png", image)
    if label is not None:
        _save(root / f"cityscapes/gtFine/{stem}_gtFine_labelIds.png", label.astype(np.uint8))
        _save(root / f"cityscapes/gtFine/{stem}_gtFine_instanceIds.png", label.astype(np.uint8))  # not read


def _potsdam3(root: Path, split: str, number: int, image: np.ndarray, label: np.ndarray | None) -> None:
    top = root / "potsdam"
    infrared = np.full((*image.shape[:2], 1), number, np.uint8)
    for folder in ("imgs", "gt"):
        (top / folder).mkdir(parents=True, exist_ok=True)
    savemat(top / f"imgs/{number}.mat", {"img": np.concatenate([image, infrared], 2), "more": {"a": 1}})
    savemat(top / f"imgs/{number + 500}.mat", {"img": np.concatenate([image, infrared], 2)})
    _append(top / f"labelled_{'train' if split == 'train' else 'test'}.txt", str(number))
    _append(top / "unlabelled_train.txt", str(number + 500))
    if label is not None:
        savemat(top / f"gt/{number}.mat", {"gt": label.astype(np.int32)}, do_compression=True)
