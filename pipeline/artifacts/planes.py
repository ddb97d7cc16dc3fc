"""The plane of an image: what its views say, merged onto the image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import Tokens
from pipeline.core.artifact import Artifact
from pipeline.numerics.pieces import needed
from pipeline.numerics.views import ALL, PlanePart, Window, merge, part_of, plane_size, uncovered

Encode = Callable[[np.ndarray], Any]
"""Tokens (view, row, column, channel) to codes (view, row, column, D) float32."""
BATCH = 64
"""Views of a piece that are encoded at a time."""


class Views:
    """The views of each image and their features, merged onto the image on demand."""

    def __init__(self, features: Artifact) -> None:
        self.tokens = Tokens(features)
        self.table, self.rows, self.images, self.windows = features.held("views.parquet", _by_image)

    def boxes(self, image: int) -> list[Window]:
        """The windows that an image is predicted from; none where it has no content."""
        return _distinct(self.windows[self._of(image)])

    def boxes_near(self, image: int, pixels: tuple[slice, slice]) -> list[Window]:
        """Those of its windows that hold any of some of its pixels."""
        near = self.windows[self._of(image)]
        for n, at in enumerate(pixels):
            near = near[(near[:, n] < at.stop) & (near[:, n] + near[:, n + 2] > at.start)]
        return _distinct(near)

    def uncovered(self, image: int, height: int, width: int) -> np.ndarray:
        """Where no view of an image was, once it is resized: bool (height, width)."""
        tall, wide = self._size(image)
        fy, fx = height / max(1, tall), width / max(1, wide)
        boxes = [Window(b.y0 * fy, b.x0 * fx, b.height * fy, b.width * fx) for b in self.boxes(image)]
        return uncovered(boxes, height, width)

    def plane_size(self, image: int) -> tuple[int, int]:
        """(rows, columns) of the plane of an image that has views."""
        height, width = self._size(image)
        return plane_size(Window(*self.windows[self._of(image)][0].tolist()), height, width, *self.tokens.shape[1:3])

    def plane(self, image: int, encode: Encode) -> np.ndarray | None:
        """What `encode` makes of an image's tokens, mirrored views averaged with the plain ones, merged: (rows,
        columns, D) float32. None where the image could not be decoded, or has no views."""
        at = self._of(image)
        return self._merged(image, self.rows[at], encode, ALL) if at.start < at.stop else None

    def part(self, image: int, part: tuple[slice, slice], encode: Encode) -> PlanePart | None:
        """Some rows and columns of `plane`, from the views that cover them alone; None where none does."""
        of, size, at = self.plane_size(image), self._size(image), self._of(image)
        windows = self.windows[at]
        near = np.ones(len(windows), bool)
        for n, (some, side, count) in enumerate(zip(part, size, of, strict=True)):
            first, last = ((place + 0.5) * side / count for place in (some.start, some.stop - 1))
            near &= (windows[:, n] <= last + 1e-6) & (windows[:, n] + windows[:, n + 2] >= first - 1e-6)
        if not near.any():
            return None
        values = self._merged(image, self.rows[at][near], encode, part)
        return None if values is None else PlanePart(values, (part[0].start, part[1].start), of)

    def seen_from(self, image: int, pixels: tuple[slice, slice], encode: Encode) -> PlanePart | None:
        """What of `plane` bilinear upsampling needs at some pixels; `ALL`: all of it."""
        if pixels == ALL or not self.boxes_near(image, pixels):
            found = self.plane(image, encode) if pixels == ALL else None
            return None if found is None else part_of(found)
        size, of = self._size(image), self.plane_size(image)
        rows, columns = (needed(*each) for each in zip(pixels, size, of, strict=True))
        return self.part(image, (rows, columns), encode)

    def _merged(self, image: int, rows: np.ndarray, encode: Encode, part: tuple[slice, slice]) -> np.ndarray | None:
        views = self.table.take(rows).to_pylist()
        step = BATCH if part != ALL else len(views)
        boxes: dict[Window, list[np.ndarray]] = {}
        for first in range(0, len(views), step):
            some = views[first : first + step]
            values = self.tokens.read(np.asarray([view["view"] for view in some]))
            if not np.isfinite(values[:, 0, 0, 0]).all():
                return None
            for view, code in zip(some, encode(values), strict=True):
                box = Window(view["y0"], view["x0"], view["height"], view["width"])
                boxes.setdefault(box, []).append(code[:, ::-1] if view["mirrored"] else code)
        means = np.stack([np.mean(codes, axis=0) for codes in boxes.values()])
        return merge(means, list(boxes), *self._size(image), part)

    def _of(self, image: int) -> slice:
        return slice(*np.searchsorted(self.images, [image, image + 1]).tolist())

    def _size(self, image: int) -> tuple[int, int]:
        row = int(self.rows[self._of(image).start])
        return self.table["image_height"][row].as_py(), self.table["image_width"][row].as_py()


def _distinct(windows: np.ndarray) -> list[Window]:
    return list(dict.fromkeys(Window(*box) for box in windows.tolist()))


def _by_image(features: Artifact, name: str) -> tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]:
    """The table of views, the rows of those that images are predicted from, sorted by image, their images, and their
    windows, (n, 4)."""
    windows = ["image_height", "image_width", "y0", "x0", "height", "width"]
    table = features.read_table(name, ["view", "image", *windows, "mirrored", "training"])
    image, training = np.asarray(table["image"]), np.asarray(table["training"])
    # A training image cut in crops also has whole views; those are its prediction.
    rows = np.flatnonzero(~training | ~np.isin(image, image[~training & ~np.asarray(table["mirrored"])]))
    rows = rows[np.argsort(image[rows], kind="stable")]
    boxes = np.stack([np.asarray(table[key])[rows] for key in Window._fields], axis=1)
    return table, rows, image[rows], boxes
