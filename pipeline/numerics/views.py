"""Views and the plane they lie on: windows of an image, bilinear matrices, codes of views merged onto an image.

Pixel-centre convention throughout: sample i of n covers [i, i + 1) of n, as in Pillow, OpenCV and torch's
`align_corners=False`. Arrays in, arrays out.
"""

from collections.abc import Iterable, Iterator
from math import ceil, floor
from typing import NamedTuple

import numpy as np

from pipeline.numerics.tree import Cut


class Window(NamedTuple):
    """A view's window in source pixels; it is resized to the view size (`rows × patch`, `columns × patch`)."""

    y0: float
    x0: float
    height: float
    width: float


ALL = (slice(None), slice(None))
"""The window of pixels that is the whole image."""


class PlanePart(NamedTuple):
    """A rectangle of the plane of an image."""

    values: np.ndarray
    """(rows, columns, D)."""
    corner: tuple[int, int]
    """The row and the column of its first position."""
    of: tuple[int, int]
    """(rows, columns) of the plane."""


def part_of(plane: np.ndarray | PlanePart) -> PlanePart:
    """A plane as the part that is all of it."""
    return plane if isinstance(plane, PlanePart) else PlanePart(plane, (0, 0), (plane.shape[0], plane.shape[1]))


NATIVE = (1.0, 1.0)
"""A pixel of an image per pixel of a view."""


def windows(
    kind: str, height: int, width: int, size: tuple[int, int], overlap: float, step: tuple[float, float] = NATIVE
) -> list[Window]:
    """The windows of one image (height × width pixels).

    `whole`: the image. `crops`: STEGO's five crops of half the height and width, in its order (four corners, centre).
    `sliding`: windows of `size` whose neighbours share at least `overlap` of their length; `step` pixels of the image,
    (down, across), make one of the view. An image smaller than a window in some direction is enlarged (both directions
    alike) until it holds one.
    """
    if kind == "whole":
        return [Window(0, 0, height, width)]
    if kind == "crops":
        h, w = max(1, int(0.5 * height)), max(1, int(0.5 * width))
        corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w)]
        centre = (round((height - h) / 2), round((width - w) / 2))
        return [Window(y, x, h, w) for y, x in [*corners, centre]]
    rows, columns, tall, wide = _grid(height, width, size, overlap, step)
    return [Window(y, x, tall, wide) for y in rows for x in columns]


def count_windows(height: int, width: int, size: tuple[int, int], overlap: float, step: tuple[float, float]) -> int:
    """How many `sliding` windows an image has."""
    rows, columns, _, _ = _grid(height, width, size, overlap, step)
    return len(rows) * len(columns)


def _grid(
    height: int, width: int, size: tuple[int, int], overlap: float, step: tuple[float, float]
) -> tuple[list[float], list[float], float, float]:
    """Where sliding windows start, down and across, and how tall and wide they are."""
    tall, wide = size[0] * step[0], size[1] * step[1]
    scale = max(1.0, tall / height, wide / width)
    native = scale == 1 and step == NATIVE  # windows then start at whole pixels, so that nothing is resampled
    tall, wide = tall / scale, wide / scale
    return _starts(height, tall, overlap, native), _starts(width, wide, overlap, native), tall, wide


def _starts(length: float, window: float, overlap: float, native: bool) -> list[float]:
    free = length - window
    if free <= 1e-6:
        return [0.0]
    steps = int(np.ceil(free / (window * (1 - overlap))))
    starts = np.linspace(0, free, steps + 1)
    return (starts.round() if native else starts).tolist()


def bilinear(positions: np.ndarray, n: int) -> np.ndarray:
    """Matrix (len(positions), n), float32, that interpolates n samples at `positions` (sample i sits at i); clamped."""
    clamped = np.clip(np.asarray(positions, np.float64), 0, n - 1)
    low = np.minimum(clamped.astype(np.int64), max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    part = clamped - low
    matrix = np.zeros((len(clamped), n), np.float32)
    rows = np.arange(len(clamped))
    np.add.at(matrix, (rows, low), 1 - part)
    np.add.at(matrix, (rows, high), part)
    return matrix


def resize_matrix(
    n_out: int, n_in: int, out: slice = slice(None), start: int = 0, held: int | None = None
) -> np.ndarray:
    """Matrix (n_out, n_in) of bilinear resizing between two samplings of the same length; of it the rows `out`, and
    `held` columns from `start`, which must be all that these rows read."""
    positions = np.clip((np.arange(n_out)[out] + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    return bilinear(positions - start, n_in if held is None else held)


def plane_size(box: Window, height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of the plane of an image whose views are like `box`, of rows × columns tokens."""
    return max(1, round(height * rows / box.height)), max(1, round(width * columns / box.width))


def merge(
    maps: np.ndarray, boxes: list[Window], height: int, width: int, part: tuple[slice, slice] = ALL
) -> np.ndarray:
    """Merge per-view maps onto one plane that covers the image (height × width pixels).

    maps: (view, row, column, D) float32. Returns (rows, columns, D) float32 with the views' own resolution, or of that
    the rows and columns `part`, for which the views that cover these are enough. A plane position is the mean of the
    views that cover it, each weighted by its distance to the view's border, so that no seam shows; where none does it
    is 0. One view of the whole image comes back unchanged.
    """
    if len(boxes) == 1 and boxes[0][2:] == (height, width):
        return maps[0][part]
    _, rows, columns, depth = maps.shape
    plane_rows, plane_columns = plane_size(boxes[0], height, width, rows, columns)
    y = ((np.arange(plane_rows) + 0.5) * height / plane_rows)[part[0]]
    x = ((np.arange(plane_columns) + 0.5) * width / plane_columns)[part[1]]
    total = np.zeros((len(y), len(x), depth), np.float32)
    weight = np.zeros((len(y), len(x), 1), np.float32)
    for view, box in zip(maps, boxes, strict=True):
        iy, my, wy = _onto(y, box.y0, box.height, rows)
        ix, mx, wx = _onto(x, box.x0, box.width, columns)
        if not len(iy) or not len(ix):
            continue
        block = np.einsum("yr,rcd,xc->yxd", my, view, mx, optimize=True)
        w = (wy[:, None] * wx[None, :])[..., None]
        total[iy[0] : iy[-1] + 1, ix[0] : ix[-1] + 1] += w * block
        weight[iy[0] : iy[-1] + 1, ix[0] : ix[-1] + 1] += w
    return np.divide(total, weight, out=total, where=weight > 0)


def uncovered(boxes: Iterable[Window], height: int, width: int) -> np.ndarray:
    """The pixels of an image that lie in none of some windows: bool (height, width)."""
    out = np.ones((height, width), bool)
    for box in boxes:
        top, left = max(0, floor(box.y0)), max(0, floor(box.x0))
        out[top : max(0, ceil(box.y0 + box.height)), left : max(0, ceil(box.x0 + box.width))] = False
    return out


def shares(content: np.ndarray, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The share of each window that has content: (n,) float64. content: (rows, columns) bool, a grid over an image of
    height × width pixels; boxes: (n, 4) windows (y0, x0, height, width) in pixels."""
    rows, columns = content.shape
    sums = np.zeros((rows + 1, columns + 1))
    sums[1:, 1:] = content.cumsum(0, dtype=np.float64).cumsum(1)
    (top, bottom), (left, right) = (
        _cells(boxes[:, n], boxes[:, n + 2], of, count) for n, of, count in ((0, height, rows), (1, width, columns))
    )
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return total / ((bottom - top) * (right - left))


def _cells(start: np.ndarray, length: np.ndarray, of: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `count` cells over `of` pixels the first in each window, and the one after its last; at least one."""
    first = np.clip(np.rint(start * count / of), 0, count - 1).astype(int)
    return first, np.clip(np.rint((start + length) * count / of), first + 1, count).astype(int)


def _onto(positions: np.ndarray, start: float, length: float, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inside = np.flatnonzero((positions >= start - 1e-6) & (positions <= start + length + 1e-6))
    local = (positions[inside] - start) / length
    weights = np.minimum(local, 1 - local).clip(1e-3).astype(np.float32)
    return inside, bilinear(local * n - 0.5, n), weights


def cosine_logits(
    plane: np.ndarray | PlanePart,
    vectors: np.ndarray,
    cut: Cut,
    height: int,
    width: int,
    window: tuple[slice, slice] = ALL,
) -> np.ndarray:
    """Cosine of every pixel's bilinearly upsampled code to every group: the largest to one of its prototypes.

    plane: (rows, columns, D), or the part of it that the window needs; vectors: (P, D) unit vectors, of which `cut`
    makes n groups. Returns (n, height, width) float32 in −1..1, or of that the `window` (rows and columns of pixels).
    Codes are upsampled before they are
    normalised (STEGO, evaluation), strip by strip, so that memory stays at n maps.
    """
    part = part_of(plane)
    plane = np.ascontiguousarray(part.values, np.float32)
    # Upsampling is linear, so products with prototypes may be upsampled beside the codes, whose length alone is wanted.
    both = np.concatenate([plane @ vectors.T.astype(np.float32), plane], -1)
    rows, columns, depth = both.shape
    down, across = (
        resize_matrix(*each)
        for each in zip((height, width), part.of, window, part.corner, (rows, columns), strict=True)
    )
    out = np.empty((len(cut.nodes), len(down), len(across)), np.float32)
    strip = max(1, 4_000_000 // max(1, len(across) * depth))
    flat = both.reshape(rows, columns * depth)
    for top in range(0, len(down), strip):
        stretched = np.matmul(across, (down[top : top + strip] @ flat).reshape(-1, columns, depth))
        products, codes = np.split(stretched, [len(vectors)], axis=-1)
        norms = np.linalg.norm(codes, axis=-1, keepdims=True).clip(1e-8)
        out[:, top : top + strip] = np.moveaxis(cut.best(products) / norms, -1, 0)
    return out


def upsample(
    plane: np.ndarray | PlanePart, height: int, width: int, window: tuple[slice, slice] = ALL
) -> Iterator[np.ndarray]:
    """Bilinear upsampling of (rows, columns, K): K maps (height, width) float32, or of these the `window`, one by one,
    because all of them of a large image fill the memory."""
    part = part_of(plane)
    down, across = (
        resize_matrix(*each)
        for each in zip((height, width), part.of, window, part.corner, part.values.shape[:2], strict=True)
    )
    for values in np.moveaxis(part.values.astype(np.float32), -1, 0):
        yield down @ (values @ across.T)


def winner(maps: Iterable[np.ndarray]) -> np.ndarray:
    """The number of the first of the largest of K maps (height, width) at each place: (height, width) int64. Maps may
    come one by one: two of them are in memory."""
    each = iter(maps)
    best = np.array(next(each))
    out = np.zeros(best.shape, np.int64)
    for number, values in enumerate(each, 1):
        np.copyto(out, number, where=values > best)
        np.maximum(best, values, out=best)
    return out


def area_fractions(label: np.ndarray, box: Window, rows: int, columns: int, classes: int, ignore: int) -> np.ndarray:
    """Share of each class in every token's patch of a view: (rows, columns, classes) float32; all zero where ignored.

    label: (height, width) ints of the whole image; pixels outside 0..classes−1 count as `ignore`.
    """
    height, width = label.shape
    y = np.clip(np.floor((np.arange(height) + 0.5 - box.y0) * rows / box.height), -1, rows).astype(np.int64)
    x = np.clip(np.floor((np.arange(width) + 0.5 - box.x0) * columns / box.width), -1, columns).astype(np.int64)
    iy, ix = np.flatnonzero((y >= 0) & (y < rows)), np.flatnonzero((x >= 0) & (x < columns))
    part = label[np.ix_(iy, ix)].astype(np.int64)
    cell = y[iy][:, None] * columns + x[ix][None, :]
    known = (part >= 0) & (part < classes) & (part != ignore)
    counts = np.bincount(cell[known] * classes + part[known], minlength=rows * columns * classes)
    counts = counts.reshape(rows, columns, classes).astype(np.float32)
    pixels = np.bincount(cell.ravel(), minlength=rows * columns).reshape(rows, columns, 1)
    return counts / pixels.clip(1).astype(np.float32)
