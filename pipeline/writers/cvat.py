"""CVAT's "Segmentation mask 1.1": `cvat.zip`, to be uploaded as annotations of a task with the same images.

Pixels are positions in `labelmap.txt`, whose first line is the background: class + 1. Beyond 255 classes they are the
colours that it lists.
"""

import re
import shutil
from collections.abc import Iterable
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, Writer, whole
from pipeline.writers.raster import png

MASKS = "SegmentationClass"
BREAKS = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    values = legend.from_one(whole(ids))
    if legend.nothing > 255:
        values = np.concatenate([np.zeros((1, 3), np.uint8), _colours(legend)])[values]
    path = out.work / _entry(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(values))


def _entry(image: ImageFacts) -> str:
    return f"{MASKS}/{_plain(image.name)}.png"


def _plain(name: str) -> str:
    """A name that is one line."""
    return BREAKS.sub("_", name)


def _colours(legend: Legend) -> np.ndarray:
    """The classes' colours; those that two have, or that are black, are replaced by a number: a colour must say which
    class it is."""
    numbers = (legend.colours.astype(np.int64) * (65536, 256, 1)).sum(1)
    taken = set(numbers.tolist())
    seen, free = {0}, iter(number for number in range(1, 2**24) if number not in taken)
    for at, number in enumerate(numbers.tolist()):
        if number in seen:
            numbers[at] = next(free)
        seen.add(int(numbers[at]))
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1).astype(np.uint8)


def label_map(legend: Legend) -> str:
    """The text of `labelmap.txt`. A name has no colon, no line break, and does not begin as a comment does."""
    names = [_plain(name).replace(":", "_").strip() or "_" for name in legend.names]
    names = ["_" + name if name[0] == "#" else name for name in names]
    distinct = Legend(["background", *names], legend.nothing, np.zeros((1, 3), np.uint8)).distinct
    colours = [(0, 0, 0), *_colours(legend).tolist()]
    lines = (f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in zip(distinct, colours, strict=True))
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def finish(out: Folder, legend: Legend, done: Iterable[Done]) -> None:
    with out.new("cvat.zip") as part, ZipFile(part, "w", ZIP_DEFLATED) as file:
        file.writestr("labelmap.txt", label_map(legend))
        names = "".join(f"{_plain(row.image.name)}\n" for row in done)
        file.writestr("ImageSets/Segmentation/default.txt", names)
        for row in done:
            file.write(out.work / _entry(row.image), _entry(row.image), ZIP_STORED)
    shutil.rmtree(out.work / MASKS, ignore_errors=True)


WRITER = Writer(one, finish, suffix=".png", first=1)
