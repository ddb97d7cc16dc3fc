"""The plane of an image: what its views say, merged onto the image."""

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import Tokens, view_pieces
from pipeline.core.artifact import Artifact
from pipeline.numerics.pieces import needed
from pipeline.numerics.views import ALL, PlanePart, Window, merge, part_of, plane_size, uncovered

Encode = Callable[[np.ndarray], Any]
"""Tokens (view, row, column, channel) to codes (view, row, column, D) float32."""
BATCH = 64
"""Views of a piece that are encoded at a time."""
AHEAD = 2**19
"""Bytes of tokens that are read at once, with those of the next small images; a view of 23 × 23 × 384 has nearly as
many."""


class Views:
    """The views of each image and their features, merged onto the image on demand."""

    def __init__(self, features: Artifact) -> None:
        self.tokens = Tokens(features)
        self.pieces = view_pieces(features)
        self.firsts: list[int] = self.pieces.index["image"].to_pylist()
        self._blocks: dict[int, np.ndarray] = {}

    def of(self, image: int) -> pa.Table:
        """The views that an image is predicted from."""
        return self._of(image)[0]

    def boxes(self, image: int) -> list[Window]:
        """The windows that an image is predicted from; none where it has no content."""
        return _distinct(self._of(image)[1])

    def boxes_near(self, image: int, pixels: tuple[slice, slice]) -> list[Window]:
        """Those of its windows that hold any of some of its pixels."""
        near = self._of(image)[1]
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
        return plane_size(Window(*self._of(image)[1][0].tolist()), height, width, *self.tokens.shape[1:3])

    def plane(self, image: int, encode: Encode) -> np.ndarray | None:
        """What `encode` makes of an image's tokens, mirrored views averaged with the plain ones, merged: (rows,
        columns, D) float32. None where the image could not be decoded, or has no views."""
        views, _ = self._of(image)
        return self._merged(views, encode, ALL) if len(views) else None

    def part(self, image: int, part: tuple[slice, slice], encode: Encode) -> PlanePart | None:
        """Some rows and columns of `plane`, from the views that cover them alone; None where none does."""
        of, size, (views, windows) = self.plane_size(image), self._size(image), self._of(image)
        near = np.ones(len(windows), bool)
        for n, (some, side, count) in enumerate(zip(part, size, of, strict=True)):
            first, last = ((place + 0.5) * side / count for place in (some.start, some.stop - 1))
            near &= (windows[:, n] <= last + 1e-6) & (windows[:, n] + windows[:, n + 2] >= first - 1e-6)
        if not near.any():
            return None
        values = self._merged(views.filter(pa.array(near)), encode, part)
        return None if values is None else PlanePart(values, (part[0].start, part[1].start), of)

    def seen_from(self, image: int, pixels: tuple[slice, slice], encode: Encode) -> PlanePart | None:
        """What of `plane` bilinear upsampling needs at some pixels; `ALL`: all of it."""
        if pixels == ALL or not self.boxes_near(image, pixels):
            found = self.plane(image, encode) if pixels == ALL else None
            return None if found is None else part_of(found)
        size, of = self._size(image), self.plane_size(image)
        rows, columns = (needed(*each) for each in zip(pixels, size, of, strict=True))
        return self.part(image, (rows, columns), encode)

    def _merged(self, table: pa.Table, encode: Encode, part: tuple[slice, slice]) -> np.ndarray | None:
        views = table.to_pylist()
        step = BATCH if part != ALL else len(views)
        boxes: dict[Window, list[np.ndarray]] = {}
        for first in range(0, len(views), step):
            some = views[first : first + step]
            values = self._read(np.asarray([view["view"] for view in some]))
            if not np.isfinite(values[:, 0, 0, 0]).all():
                return None
            for view, code in zip(some, encode(values), strict=True):
                box = Window(view["y0"], view["x0"], view["height"], view["width"])
                boxes.setdefault(box, []).append(code[:, ::-1] if view["mirrored"] else code)
        means = np.stack([np.mean(codes, axis=0) for codes in boxes.values()])
        return merge(means, list(boxes), views[0]["image_height"], views[0]["image_width"], part)

    def _read(self, views: np.ndarray) -> np.ndarray:
        """Tokens of the given views: a read of a shard takes a millisecond, and small images follow each other."""
        block = AHEAD // max(1, 2 * math.prod(self.tokens.shape[1:]))
        if len(views) >= block:
            return self.tokens.read(views)
        return np.stack([self._block(view // block, block)[view % block] for view in views.tolist()])

    def _block(self, number: int, size: int) -> np.ndarray:
        if number not in self._blocks:
            while len(self._blocks) > 1:  # plain and mirrored views lie apart
                self._blocks.pop(next(iter(self._blocks)))
            stop = min((number + 1) * size, self.tokens.shape[0])
            self._blocks[number] = self.tokens.read(np.arange(number * size, stop))
        return self._blocks[number]

    def _of(self, image: int) -> tuple[pa.Table, np.ndarray]:
        number = bisect_right(self.firsts, image) - 1
        return _views(self.pieces.artifact, number, image)

    def _size(self, image: int) -> tuple[int, int]:
        views = self.of(image)
        return views["image_height"][0].as_py(), views["image_width"][0].as_py()


def _distinct(windows: np.ndarray) -> list[Window]:
    return list(dict.fromkeys(Window(*box) for box in windows.tolist()))


@lru_cache(maxsize=2)  # the tiles of one image follow each other
def _views(features: Artifact, number: int, image: int) -> tuple[pa.Table, np.ndarray]:
    """The views in a piece of the table that an image is predicted from, and their windows, (n, 4)."""
    table, rows, images = _by_image(features, number)
    own = rows[slice(*np.searchsorted(images, [image, image + 1]))]
    together = len(own) and own[-1] - own[0] + 1 == len(own)
    found = table.slice(own[0], len(own)) if together else table.take(own)  # a slice costs next to nothing
    return found, np.stack([np.asarray(found[key], np.float64) for key in Window._fields], axis=1)


@lru_cache(maxsize=2)
def _by_image(features: Artifact, number: int) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """A piece of the table of views, the rows of those that images are predicted from, sorted by image, and their
    images."""
    windows = ["image_height", "image_width", "y0", "x0", "height", "width"]
    table = view_pieces(features).piece(number).select(["view", "image", *windows, "mirrored", "training"])
    image, training = np.asarray(table["image"]), np.asarray(table["training"])
    # A training image cut in crops also has whole views; those are its prediction.
    rows = np.flatnonzero(~training | ~np.isin(image, image[~training & ~np.asarray(table["mirrored"])]))
    rows = rows[np.argsort(image[rows], kind="stable")]
    return table, rows, image[rows]
