"""The table of views: which windows of which images the backbone sees, and what each is for."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.core.params import Params, later
from pipeline.datasets import folder
from pipeline.numerics.views import NATIVE, shares, windows


class ViewParams(Params):
    kind: Literal["whole", "crops", "sliding"] = "whole"
    """`whole`: each image resized to `size`. `crops`: STEGO's five crops of training images, whole images where masks
    are made. `sliding`: windows of `size` pixels, for images much larger than the backbone's input, at native scale
    unless `mpp` or `gsd` gives another; the default where one of them is set."""
    size: tuple[int, int] | None = None
    """Height and width of a view in pixels as the backbone sees it; multiples of its patch. None: `sliding` 322×322;
    otherwise by the training images, whole or cropped: their median size, but the shorter side is 322 pixels at least
    and 64 patches at most, and the longer twice the shorter at most; a square where a tenth of them lies across."""
    overlap: float = Field(0.25, ge=0, lt=0.9)
    """Share of a sliding window that it has in common with the next one."""
    mpp: float | None = later(gt=0)
    """Micrometres that a pixel of a sliding window measures. What a pixel of an image measures is read from its file,
    unless `dataset.pixel_size` says it; an image that is smaller than one window is enlarged until it fills it."""
    gsd: float | None = later(gt=0)
    """The same in metres on the ground."""

    @model_validator(mode="before")
    @classmethod
    def _windows_of_a_scale_slide(cls, data: Any) -> Any:
        scaled = isinstance(data, dict) and (data.get("mpp") is not None or data.get("gsd") is not None)
        return {"kind": "sliding", **data} if scaled else data

    @model_validator(mode="after")
    def _one_scale(self) -> "ViewParams":
        if self.mpp is not None and self.gsd is not None:
            raise ValueError("mpp and gsd say the same thing twice: give one of them")
        if self.scale is not None and self.kind != "sliding":
            raise ValueError(f"views of the kind {self.kind} have no scale of their own: leave mpp and gsd out")
        return self

    @property
    def scale(self) -> tuple[str, float] | None:
        """The field that gives the scale of views, and the metres that one of their pixels measures."""
        if self.mpp is not None:
            return "features.views.mpp", self.mpp * 1e-6
        return None if self.gsd is None else ("features.views.gsd", self.gsd)


VIEW_SCHEMA = pa.schema(
    [
        ("view", pa.int64()),
        ("image", pa.int64()),
        ("split", pa.string()),
        ("id", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("image_height", pa.int32()),
        ("image_width", pa.int32()),
        ("y0", pa.float64()),
        ("x0", pa.float64()),
        ("height", pa.float64()),
        ("width", pa.float64()),
        ("scale_y", pa.float64()),
        ("scale_x", pa.float64()),
        ("mirrored", pa.bool_()),
        ("training", pa.bool_()),
    ]
)


LEAST = 322
"""Pixels of the shorter side of a view, at least: smaller images gained nothing from finer tokens, and larger ones lost
from coarser ones (docs/decisions/032)."""
MOST = 64
"""Patches of the shorter side of a view, at most."""
ACROSS = 0.1
"""Share of images in the other orientation from which on views are square."""


IMAGES = 4096
"""Images in a piece, at most."""
VIEWS = 2**16
"""Views in a piece, beyond which no image is added."""


class Shapes:
    """How many images have each (height, width): what the size of views is chosen by."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[int, int]] = Counter()

    def add(self, height: np.ndarray, width: np.ndarray) -> None:
        shapes, counts = np.unique(np.stack([height, width], 1), axis=0, return_counts=True)
        for (tall, wide), count in zip(shapes.tolist(), counts.tolist(), strict=True):
            if tall > 0 and wide > 0:
                self.counts[tall, wide] += count

    def median(self, side: int) -> float:
        """The median height (side 0) or width (1)."""
        values = sorted((shape[side], count) for shape, count in self.counts.items())
        ends = np.cumsum([count for _, count in values])
        middle = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
        return float(np.mean([values[at][0] for at in middle]))

    def across(self) -> float:
        """The share of images in the orientation that fewer have."""
        total = sum(self.counts.values())
        tall = sum(count for shape, count in self.counts.items() if shape[0] > shape[1])
        wide = sum(count for shape, count in self.counts.items() if shape[0] < shape[1])
        return min(tall, wide) / total


def view_size(shapes: Shapes, views: ViewParams, patch: int) -> tuple[int, int]:
    """Height and width of the views of a dataset in pixels as the backbone sees them: `views.size`, or by the `shapes`
    of its training images.

    Patches then have their own size in the median image, so that no pixels are made up and few are lost."""
    if views.size:
        return views.size

    def side(pixels: float) -> int:
        return max(1, round(pixels / patch)) * patch

    if views.kind == "sliding" or not shapes.counts:
        return side(LEAST), side(LEAST)
    part = 0.5 if views.kind == "crops" else 1
    tall, wide = shapes.median(0) * part, shapes.median(1) * part
    if shapes.across() >= ACROSS:
        tall = wide = (tall * wide) ** 0.5
    shorter = float(np.clip(min(tall, wide), LEAST, MOST * patch))
    longer = shorter * min(2.0, max(tall, wide) / min(tall, wide))
    return (side(longer), side(shorter)) if tall > wide else (side(shorter), side(longer))


class Splits(NamedTuple):
    """What the splits of a dataset are for."""

    training: list[str]
    predicted: list[str]

    @classmethod
    def of(cls, present: Iterable[str], masked: list[str]) -> "Splits":
        return cls(folder.training_splits(set(present)), folder.predicted_splits(set(present), masked))


def view_tables(
    images: pa.Table,
    first: int,
    views: ViewParams,
    size: tuple[int, int],
    mirror: str,
    splits: Splits,
    steps: Sequence[tuple[float, float]] | None = None,
) -> Iterator[tuple[pa.Table, int]]:
    """The views of consecutive images, of which the first is in row `first` of the dataset, of `size` = (height, width)
    pixels as the backbone sees them: tables, with the number of their
    images, `IMAGES` at most. In each the plain views stand in the dataset's
    order, then the mirrored ones in the same order.

    `training` marks what neighbours, head and clusters are fitted on: plain views of the training splits; of a dataset
    cut in crops, the crops and not the whole images that masks are made from. `view` is the row in its table.
    steps: of each image the pixels, (down, across), that make one of a sliding view; None: one.
    """
    columns = (images[name].to_pylist() for name in ("split", "height", "width"))
    rows: list[tuple[int, float, float, float, float, bool, bool]] = []
    begun = 0
    for at, (split, tall, wide) in enumerate(zip(*columns, strict=True)):
        if at - begun == IMAGES or len(rows) > VIEWS:
            yield _view_table(images, first, rows, size), at - begun
            rows, begun = [], at
        trained, predicted = split in splits.training, split in splits.predicted
        kinds: list[str] = [views.kind]
        if views.kind == "crops":
            kinds = ["crops"] * trained + ["whole"] * (predicted or not trained)
        mirrored = mirror == "all" or (mirror == "predicted" and predicted)
        for kind in kinds:
            for box in windows(kind, max(1, tall), max(1, wide), size, views.overlap, steps[at] if steps else NATIVE):
                rows.append((at, *box, False, trained and kind == views.kind))
                if mirrored and kind != "crops":
                    rows.append((at, *box, True, False))
    yield _view_table(images, first, rows, size), len(images) - begun


def _view_table(
    images: pa.Table,
    first: int,
    rows: list[tuple[int, float, float, float, float, bool, bool]],
    size: tuple[int, int],
) -> pa.Table:
    rows = sorted(rows, key=lambda row: row[5])
    image, y0, x0, height, width, mirrored, training = zip(*rows, strict=True) if rows else [()] * 7
    at = np.asarray(image, np.int64)
    of = images.take(at)
    tall, wide = np.asarray(height, np.float64), np.asarray(width, np.float64)
    columns = {
        "view": np.arange(len(rows)),
        "image": at + first,
        **{name: of[name] for name in ("split", "id", "path", "sha256")},
        "bytes": of["size"],
        "image_height": of["height"],
        "image_width": of["width"],
        "y0": y0,
        "x0": x0,
        "height": tall,
        "width": wide,
        "scale_y": size[0] / tall,
        "scale_x": size[1] / wide,
        "mirrored": mirrored,
        "training": training,
    }
    return pa.table(columns).cast(VIEW_SCHEMA)


Content = Callable[[dict[str, Any], int, int], np.ndarray]
"""Where an image, given by the row of one of its views, has content on a grid of (rows, columns): bool."""
GRID = 2048
"""Rows and columns at most of the grid that the content of an image is looked for on."""
CONTENT = 0.05
"""The share of a view that must have content: views of less are left out (nodata, slide glass)."""


def with_content(table: pa.Table, sparse: Sequence[int], find: Content, progress: Callable[[], None]) -> pa.Table:
    """A table of views without those that show next to nothing.

    sparse: rows of the table of images whose pixels may be without content. progress: called after each of them.
    """
    image = np.asarray(table["image"])
    order = np.argsort(image, kind="stable")
    first, stop = (np.searchsorted(image[order], list(sparse), side).tolist() for side in ("left", "right"))
    rows = [order[a:b] for a, b in zip(first, stop, strict=True) if a < b]
    if not rows:
        return table
    boxes = np.stack([np.asarray(table[key]) for key in ("y0", "x0", "height", "width")], axis=1)
    kept = np.ones(len(table), bool)

    def look(at: np.ndarray) -> np.ndarray:
        (view,) = table.slice(int(at[0]), 1).to_pylist()
        height, width = max(1, view["image_height"]), max(1, view["image_width"])
        # At least 16 cells in the least window, each way.
        least = boxes[at, 2:].min(axis=0).clip(1)
        cells = [min(GRID, math.ceil(16 * side / part)) for side, part in zip((height, width), least, strict=True)]
        return shares(find(view, cells[0], cells[1]), boxes[at], height, width)

    with ThreadPoolExecutor(4) as pool:  # each holds what an open image keeps
        for at, share in zip(rows, pool.map(look, rows), strict=True):
            kept[at] = share >= CONTENT
            progress()
    return table.filter(pa.array(kept))


def numbered(table: pa.Table, first: int) -> pa.Table:
    """A table of views whose first is view `first` of all."""
    return table.set_column(0, "view", pa.array(range(first, first + len(table)), pa.int64()))
