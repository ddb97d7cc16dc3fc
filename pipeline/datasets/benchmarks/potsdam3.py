"""Potsdam with 3 classes: tiles of 200×200 pixels, prepared as MATLAB files, and the lists of its split.

ROOT/potsdam/imgs/<number>.mat      variable `img`: uint8 (200, 200, 4), red, green, blue, infrared
ROOT/potsdam/gt/<number>.mat        variable `gt`: int32 (200, 200)
ROOT/potsdam/labelled_train.txt     numbers of train, one per line
ROOT/potsdam/labelled_test.txt      numbers of val
"""

import io
import math

import numpy as np

from pipeline.datasets.benchmarks.layouts import Layout
from pipeline.images import formats
from pipeline.images.files import File
from pipeline.images.raster import Array, show
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Source, Whole

LAYOUT = Layout(
    folder="potsdam",
    images=("imgs", ".mat"),
    labels=("gt", ".mat"),
    lists={"train": ("labelled_train.txt",), "val": ("labelled_test.txt",)},
    classes=("roads and cars", "buildings and clutter", "vegetation and trees"),
    coarse={0: 0, 4: 0, 1: 1, 5: 1, 2: 2, 3: 2},
    images_from="unpack STEGO's prepared archive in ROOT: the tiles' names are random and cannot be rebuilt from the "
    "ISPRS download",
    labels_from="unpack STEGO's prepared archive in ROOT; or move gt away to run without scores",
    lists_from="copy it from STEGO's prepared archive: the split is a random draw and cannot be rebuilt from the ISPRS "
    "download",
)

MAX_BYTES = 2**20
"""Of a file, and values of an array; a tile has 160 000. Compressed data grow a thousandfold at most, so that a file
which lies about its size takes 1 GB for a moment and no more."""
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32")


def open_tile(file: File, reading: Reading = AS_STORED) -> Source:
    """The first three channels of `img` in a MATLAB file. Raises ValueError for anything else."""
    pixels = _variable(file, "img", ("uint8",))
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise ValueError(f"img has the shape {pixels.shape}, not (height, width, 3 or more)")
    names = ("R", "G", "B", "infrared")[: pixels.shape[2]]
    if reading != AS_STORED:
        return show(Array(file.name, pixels.shape[:2], lambda: pixels, names, pixels.dtype), reading, True)
    return Whole(file.name, pixels.shape[:2], lambda: pixels[..., :3], names)


def decode_label(file: File) -> np.ndarray:
    """`gt` in a MATLAB file, (H, W) integers. Raises ValueError for anything else."""
    label = _variable(file, "gt", INTEGERS)
    if label.ndim != 2:
        raise ValueError(f"gt has the shape {label.shape}, not (height, width)")
    return label


def _variable(file: File, name: str, kinds: tuple[str, ...]) -> np.ndarray:
    """One array of a MATLAB file. Only plain integers are read, so no object or function of a file is looked at."""
    from scipy.io import loadmat, whosmat

    if file.size > MAX_BYTES:
        raise ValueError(f"{file.size} bytes are more than a tile has")
    data = file.content()
    declared = next(((shape, kind) for found, shape, kind in whosmat(io.BytesIO(data)) if found == name), None)
    if declared is None or declared[1] not in kinds:
        raise ValueError(f"holds no variable {name} of type {' or '.join(kinds)}")
    if math.prod(declared[0]) > MAX_BYTES:
        raise ValueError(f"{name} has the shape {declared[0]}: more than a tile has")
    values = loadmat(io.BytesIO(data), variable_names=[name])[name]
    if values.dtype.kind not in "ui" or not values.size:  # complex numbers are declared by the type of their parts
        raise ValueError(f"{name} holds no integers")
    return values


formats.register(formats.Format("MATLAB tile", (".mat",), open=open_tile, label=decode_label))
