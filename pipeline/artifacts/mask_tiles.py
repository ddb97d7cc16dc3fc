"""Label maps of large images: tiles, each a row of the masks artifact, and the map that they make."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from math import ceil, prod
from typing import Any

import numpy as np

from pipeline.artifacts.images import Images, Ranges
from pipeline.core.artifact import Artifact

LARGE = 2**24
"""Pixels (16.8 megapixels) up to which a label map is one piece."""
TILE = 2048
"""Rows and columns of a tile."""
HELD = 2**28
"""Bytes of decoded tiles that an open map keeps: a row of tiles, where it fits."""
SOME = 4096
"""Rows of the table of images that are looked at together."""
FILE = "tiles.json"
"""[position, tiles] of each large image; missing where there is none."""

ROWS = "images.json"
"""Of a masks artifact: which rows of the table of images are predicted, as ranges [start, stop]."""

Rectangle = tuple[slice, slice]


def grid(height: int, width: int) -> tuple[int, int]:
    """How many tiles an image has, down and across."""
    return (1, 1) if height * width <= LARGE else (ceil(height / TILE), ceil(width / TILE))


def tile_at(height: int, width: int, number: int) -> Rectangle:
    """The pixels of a tile; tiles are counted row by row."""
    down, across = divmod(number, grid(height, width)[1])
    if height * width <= LARGE:
        return slice(0, height), slice(0, width)
    rows, columns = ((at * TILE, min((at + 1) * TILE, side)) for at, side in ((down, height), (across, width)))
    return slice(*rows), slice(*columns)


class Items:
    """What rows of a masks artifact hold: image after image, of a large one tile after tile."""

    def __init__(self, images: int, large: Sequence[Sequence[int]] = ()) -> None:
        """images: how many. large: (position, tiles), ascending."""
        self.large = [position for position, _ in large]
        self._more = [0, *accumulate(tiles - 1 for _, tiles in large)]
        self._starts = [position + more for position, more in zip(self.large, self._more, strict=False)]
        self._tiles = [tiles for _, tiles in large]
        self.total = images + self._more[-1]

    def rows(self, position: int) -> range:
        """The rows of the image at a position of `images.json`."""
        before = bisect_right(self.large, position - 1)
        first = position + self._more[before]
        own = before < len(self.large) and self.large[before] == position
        return range(first, first + (self._tiles[before] if own else 1))

    def at(self, row: int) -> tuple[int, int]:
        """The position of the image that a row is of, and the number of its tile."""
        before = bisect_right(self._starts, row) - 1
        if before >= 0 and row < self._starts[before] + self._tiles[before]:
            return self.large[before], row - self._starts[before]
        return row - self._more[before + 1], 0


def find_large(heights: np.ndarray, widths: np.ndarray, first: int = 0) -> list[list[int]]:
    """[position, tiles] of the large ones of some images, of which the first is at the position `first`."""
    found = np.flatnonzero(heights.astype(np.int64) * widths > LARGE)
    return [[first + at, prod(grid(int(heights[at]), int(widths[at])))] for at in found.tolist()]


def large_images(images: Images, rows: Ranges) -> list[list[int]]:
    """`find_large` of the images in some rows, thousands at a time."""
    large: list[list[int]] = []
    done = 0
    for one in rows.ranges:
        for start in range(one.start, one.stop, SOME):
            some = images.pieces.rows(start, min(start + SOME, one.stop))
            large += find_large(np.asarray(some["height"]), np.asarray(some["width"]), done)
            done += len(some)
    return large


def predicted_rows(masks: Artifact) -> Ranges:
    """The rows of the table of images that masks were made of."""
    return Ranges(*(range(*one) for one in masks.held(ROWS, Artifact.read_json)))


def items_of(masks: Artifact) -> Items:
    """The items of an artifact of masks, finished or not."""
    return masks.held(ROWS, _items)


def _items(masks: Artifact, name: str) -> Items:
    there = FILE in masks.files or (masks.exists and FILE in masks.manifest["files"])
    return Items(len(predicted_rows(masks)), masks.read_json(FILE) if there else ())


def reduced(read: Callable[[Rectangle], np.ndarray], shape: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """The nearest pixels of a map of `shape` at another `size`, (height, width). `read` gives the pixels of a tile."""
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(size, shape, strict=True))
    lines = []
    for down in np.unique(rows // TILE).tolist():
        y, line = rows[rows // TILE == down], []
        for across in np.unique(columns // TILE).tolist():
            x = columns[columns // TILE == across]
            top, left = down * TILE, across * TILE
            part = read((slice(top, min(top + TILE, shape[0])), slice(left, min(left + TILE, shape[1]))))
            line.append(part[np.ix_(y - top, x - left)])
        lines.append(np.concatenate(line, axis=1))
    return np.concatenate(lines)


class Tiled:
    """A label map in tiles, read when it is sliced with two slices; `numpy.asarray` gives all of it."""

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: Any, read: Callable[[int], np.ndarray]) -> None:
        """read: the tile of a number, which it may be asked for several times."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._across = grid(*shape)[1]
        most = HELD // (TILE * TILE * self.dtype.itemsize)
        self._tile = lru_cache(maxsize=min(most, self._across + 1))(read)

    def __getitem__(self, window: Rectangle) -> np.ndarray:
        (top, bottom, _), (left, right, _) = (at.indices(side) for at, side in zip(window, self.shape, strict=True))
        out = np.empty((max(0, bottom - top), max(0, right - left)), self.dtype)
        for down in range(top // TILE, ceil(bottom / TILE)):
            for across in range(left // TILE, ceil(right / TILE)):
                y, x = down * TILE, across * TILE
                part = self._tile(down * self._across + across)
                rows, columns = (max(top, y), min(bottom, y + TILE)), (max(left, x), min(right, x + TILE))
                out[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = part[
                    rows[0] - y : rows[1] - y, columns[0] - x : columns[1] - x
                ]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self[slice(None), slice(None)]
        return found if dtype is None else found.astype(dtype)

    def __repr__(self) -> str:
        return f"<label map {self.shape[0]} × {self.shape[1]} {self.dtype} in tiles, read when sliced>"
