"""The levels of a label map: sizes, nearest pixels, tiles."""

from collections.abc import Iterator

import numpy as np

from pipeline.writers.interface import STRIP, ImageFacts, LabelMap

TILE = 512


def level_sizes(image: ImageFacts, height: int, width: int) -> list[tuple[int, int]]:
    """The sizes of the image's own levels; where it has one, half and half again until one tile holds it."""
    if len(image.levels) > 1 and image.levels[0] == (height, width):
        return list(image.levels)
    sizes = [(height, width)]
    while max(sizes[-1]) > TILE:
        sizes.append((max(1, (sizes[-1][0] + 1) // 2), max(1, (sizes[-1][1] + 1) // 2)))
    return sizes


def nearest(size: int, full: int) -> np.ndarray:
    """The row (or column) of the full map that is nearest to each of a level's, ascending."""
    return np.minimum(((np.arange(size) + 0.5) * full / size).astype(np.int64), full - 1)


def tiles(ids: LabelMap, size: tuple[int, int], tile: int = TILE) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """A label map at a level of this size, tile by tile, row by row: rows, columns, ids. Memory: what a tile covers in
    the full map, in rows of tiles."""
    down, across = nearest(size[0], ids.shape[0]), nearest(size[1], ids.shape[1])
    for top in range(0, size[0], tile):
        rows = slice(top, min(top + tile, size[0]))
        for left in range(0, size[1], tile):
            columns = slice(left, min(left + tile, size[1]))
            yield rows, columns, _picked(ids, down[rows], across[columns])


def _picked(ids: LabelMap, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The pixels at some rows and columns. Read in bands where they are far apart."""
    columns = slice(int(x[0]), int(x[-1]) + 1)
    band = max(1, STRIP // max(1, columns.stop - columns.start))
    parts, start = [], 0
    while start < len(y):
        stop = max(start + 1, int(np.searchsorted(y, y[start] + band)))
        rows = slice(int(y[start]), int(y[stop - 1]) + 1)
        parts.append(ids[rows, columns][np.ix_(y[start:stop] - y[start], x - x[0])])
        start = stop
    return np.concatenate(parts)
