"""From label maps to polygons: the exact outlines of pixels, valid, with holes; neighbours share their border."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.writers.interface import LabelMap

LARGE = 2**24
"""Pixels of a label map up to which outlines are those of the whole; of a larger one they are cut by tiles."""
TILE = 2048


def outlines(ids: LabelMap, nothing: int) -> Iterator[tuple[str, dict[int, list[Any]]]]:
    """The polygons of each class in turn for every tile: the tile's name, and shapely Polygons by id, in pixels (x, y)
    from the upper left corner.

    Regions hang together by their sides. Nothing is simplified: a corner of a pixel's outline lies further than half a
    pixel from the line that would replace it, and borders would no longer be shared.
    """
    height, width = ids.shape
    side = max(height, width) if height * width <= LARGE else TILE
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows, columns = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            yield f"{top},{left}", _polygons(np.ascontiguousarray(ids[rows, columns]), nothing, top, left)


def _polygons(ids: np.ndarray, nothing: int, top: int, left: int) -> dict[int, list[Any]]:
    from rasterio.features import shapes
    from rasterio.transform import Affine
    from shapely.geometry import shape

    found: dict[int, list[Any]] = {}
    for outline, value in shapes(ids, ids != nothing, 4, Affine.translation(left, top)):
        found.setdefault(int(value), []).append(shape(outline))
    return dict(sorted(found.items()))
