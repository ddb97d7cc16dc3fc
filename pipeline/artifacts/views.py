"""The table of views: which windows of which images the backbone sees, and what each is for."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

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


def view_size(dataset: pa.Table, views: ViewParams, patch: int) -> tuple[int, int]:
    """Height and width of the views of a dataset in pixels as the backbone sees them: `views.size`, or by the images.

    Patches then have their own size in the median image, so that no pixels are made up and few are lost."""
    if views.size:
        return views.size

    def side(pixels: float) -> int:
        return max(1, round(pixels / patch)) * patch

    if views.kind == "sliding":
        return side(LEAST), side(LEAST)
    split = dataset["split"].to_pylist()
    trained = np.isin(split, list(folder.training_splits(set(split))))
    height, width = (np.asarray(dataset[name], np.float64)[trained] for name in ("height", "width"))
    seen = (height > 0) & (width > 0)
    if not seen.any():
        return side(LEAST), side(LEAST)
    part = 0.5 if views.kind == "crops" else 1
    tall, wide = float(np.median(height[seen])) * part, float(np.median(width[seen])) * part
    if min((height > width)[seen].mean(), (width > height)[seen].mean()) >= ACROSS:
        tall = wide = (tall * wide) ** 0.5
    shorter = float(np.clip(min(tall, wide), LEAST, MOST * patch))
    longer = shorter * min(2.0, max(tall, wide) / min(tall, wide))
    return (side(longer), side(shorter)) if tall > wide else (side(shorter), side(longer))


def view_table(
    dataset: pa.Table,
    views: ViewParams,
    size: tuple[int, int],
    mirror: str,
    masked: list[str],
    steps: Sequence[tuple[float, float]] | None = None,
) -> pa.Table:
    """The views of a dataset, of `size` = (height, width) pixels as the backbone sees them: plain ones in the dataset's
    order, then the mirrored ones in the same order.

    `training` marks what neighbours, head and clusters are fitted on: plain views of the training splits; of a dataset
    cut in crops, the crops and not the whole images that masks are made from. steps: of each image the pixels, (down,
    across), that make one of a sliding view; None: one.
    """
    present = set(dataset["split"].to_pylist())
    training = folder.training_splits(present)
    predicted = folder.predicted_splits(present, masked)
    rows = []
    for index, image in enumerate(dataset.to_pylist()):
        trained = image["split"] in training
        kinds: list[str] = [views.kind]
        if views.kind == "crops":
            kinds = ["crops"] * trained + ["whole"] * (image["split"] in predicted or not trained)
        mirrored = mirror == "all" or (mirror == "predicted" and image["split"] in predicted)
        common = {key: image[key] for key in ("split", "id", "path", "sha256")}
        common |= {
            "bytes": image["size"],
            "image": index,
            "image_height": image["height"],
            "image_width": image["width"],
        }
        height, width = max(1, image["height"]), max(1, image["width"])
        for kind in kinds:
            for box in windows(kind, height, width, size, views.overlap, steps[index] if steps else NATIVE):
                scales = {"scale_y": size[0] / box.height, "scale_x": size[1] / box.width}
                row = {**common, **box._asdict(), **scales}
                rows.append({**row, "mirrored": False, "training": trained and kind == views.kind})
                if mirrored and kind != "crops":
                    rows.append({**row, "mirrored": True, "training": False})
    rows.sort(key=lambda row: row["mirrored"])
    return pa.Table.from_pylist([{**row, "view": number} for number, row in enumerate(rows)], schema=VIEW_SCHEMA)


Content = Callable[[dict[str, Any], int, int], np.ndarray]
"""Where an image, given by the row of one of its views, has content on a grid of (rows, columns): bool."""
GRID = 2048
"""Rows and columns at most of the grid that the content of an image is looked for on."""
CONTENT = 0.05
"""The share of a view that must have content: views of less are left out (nodata, slide glass)."""


def with_content(
    table: pa.Table,
    sparse: Sequence[int],
    find: Content,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """A table of views without those that show next to nothing.

    sparse: rows of the table of images whose pixels may be without content. progress: called with the number of them
    that were looked at, and of all.
    """
    image = np.asarray(table["image"])
    order = np.argsort(image, kind="stable")
    first, stop = (np.searchsorted(image[order], list(sparse), side).tolist() for side in ("left", "right"))
    rows = [order[a:b] for a, b in zip(first, stop, strict=True) if a < b]
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
        for done, (at, share) in enumerate(zip(rows, pool.map(look, rows), strict=True), 1):
            kept[at] = share >= CONTENT
            progress(done, len(rows))
    table = table.filter(pa.array(kept))
    return table.set_column(0, "view", pa.array(range(len(table)), pa.int64()))
