"""A piece of an image: which pixels and which part of its plane make it what it is in the whole image.

Upsampling looks a few tokens around a pixel. A piece that is made from that much more than itself has no seam.
"""

from math import ceil, floor
from typing import NamedTuple

Rectangle = tuple[slice, slice]
"""Rows and columns, from a first to one after the last."""
CELLS = 4
"""Cells of the coarse grid of guided upsampling per token, in both directions."""
REACH = 1.0
"""How many tokens a window of the guided filter reaches to each side: as far as bilinear upsampling blurs."""


class Cells(NamedTuple):
    """Cells of the coarse grid, in one direction."""

    total: int
    """Of the whole image."""
    reach: int
    """Of a window, to each side."""
    read: slice
    """Those whose linear models are interpolated."""
    made: slice
    """Those that their models are made of."""


class Piece(NamedTuple):
    """A rectangle of an image, and what is seen around it."""

    size: tuple[int, int]
    """(height, width) of the image."""
    kept: Rectangle
    """The piece, in the image."""
    seen: Rectangle
    """The piece and its surroundings, in the image."""
    cells: tuple[Cells, Cells]

    @property
    def inside(self) -> Rectangle:
        """The piece, in what is seen."""
        return _moved(self.kept[0], self.seen[0]), _moved(self.kept[1], self.seen[1])

    def part(self, plane: tuple[int, int]) -> Rectangle:
        """The part of a plane of (rows, columns) that is needed."""
        rows, columns = (needed(*each, 1) for each in zip(self.seen, self.size, plane, strict=True))
        return rows, columns


def whole(size: tuple[int, int], plane: tuple[int, int]) -> Piece:
    """All of an image of (height, width) pixels with a plane of (rows, columns)."""
    return piece_of((slice(0, size[0]), slice(0, size[1])), size, plane)


def piece_of(kept: Rectangle, size: tuple[int, int], plane: tuple[int, int], margin: int = 0) -> Piece:
    """A rectangle of an image of (height, width) pixels with a plane of (rows, columns); at least so many pixels around
    it are seen."""
    (y, down), (x, across) = (_side(*each, margin) for each in zip(kept, size, plane, strict=True))
    return Piece(size, kept, (y, x), (down, across))


def _side(kept: slice, length: int, positions: int, margin: int) -> tuple[slice, Cells]:
    total = min(length, CELLS * positions)
    reach = round(REACH * total / positions)
    made = needed(kept, length, total, 2 * reach)
    cells = Cells(total, reach, needed(kept, length, total), made)
    first = min(kept.start - margin, floor(made.start * length / total))
    last = max(kept.stop + margin, ceil(made.stop * length / total))
    return slice(max(0, first), min(length, last)), cells


def needed(pixels: slice, length: int, samples: int, margin: int = 0) -> slice:
    """Of `samples` over `length` pixels those that bilinear interpolation at some of the pixels reads, and `margin`
    more on each side."""
    first = floor((pixels.start + 0.5) * samples / length - 0.5) - margin
    last = floor((pixels.stop - 0.5) * samples / length - 0.5) + 1 + margin
    return slice(min(max(0, first), samples - 1), min(samples, last + 1))


def _moved(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
