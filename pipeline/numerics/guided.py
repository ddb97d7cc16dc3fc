"""Upsampling that follows the image's edges: the guided filter on the cosines to groups.

Sources: He, Sun and Tang, "Guided Image Filtering" (2010; IEEE TPAMI 35, 2013), section 3.4, colour guide; computed on
a coarse grid as in He and Sun, "Fast Guided Filter" (arXiv 1505.00996). Arrays in, arrays out.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.numerics.pieces import Piece, whole
from pipeline.numerics.tree import Cut
from pipeline.numerics.views import PlanePart, cosine_logits, winner

if TYPE_CHECKING:
    import torch

EPS = 1e-3
"""Ridge: a window whose colours (0..1) vary less than this is taken as flat, and smoothed."""
MODELS = 2**26
"""Numbers of linear models that are held at a time."""

Plane = np.ndarray | PlanePart


def guided_logits(
    image: np.ndarray, plane: Plane, vectors: np.ndarray, cut: Cut, piece: Piece | None = None
) -> Iterator[np.ndarray]:
    """Cosine of every pixel to each group, in every window a linear function of the image's colours.

    image: (height, width, 3) uint8 RGB; plane: (rows, columns, D) codes; vectors: (P, D) unit vectors, of which `cut`
    makes n groups. Gives n maps (height, width) float32, one by one. Where the image is flat these are bilinearly
    upsampled cosines, smoothed; at an edge of colour the values of its two sides part.

    Of a `piece` of an image `image` are the pixels that are seen, `plane` is the part that is needed, and the maps are
    those of what is kept: what they are in the maps of the whole image.
    """
    piece = piece or whole(image.shape[:2], plane.shape[:2])  # type: ignore[union-attr]
    return _upsampled(image, piece, _coarse(piece, plane, vectors, cut))


def guided_winner(
    image: np.ndarray, plane: Plane, vectors: np.ndarray, cut: Cut, piece: Piece | None = None
) -> np.ndarray:
    """The number of the group with the largest of `guided_logits` at each pixel, (height, width) int64.

    Groups that are neither first nor second at any cell of the coarse grid are left out: of pictures of four sets, cut
    into 3 to 200 groups, 99.9 % of the pixels and more are the same."""
    piece = piece or whole(image.shape[:2], plane.shape[:2])  # type: ignore[union-attr]
    coarse = _coarse(piece, plane, vectors, cut)
    each = coarse.reshape(len(coarse), -1)
    near = np.unique(np.argpartition(each, -2, axis=0)[-2:] if len(each) > 2 else np.arange(len(each)))
    return near[winner(_upsampled(image, piece, coarse[near]))]


def _coarse(piece: Piece, plane: Plane, vectors: np.ndarray, cut: Cut) -> np.ndarray:
    """Cosines to groups, (n, row, column), on the cells of the coarse grid that models are made of."""
    down, across = piece.cells
    return cosine_logits(plane, vectors, cut, down.total, across.total, (down.made, across.made))


def _upsampled(image: np.ndarray, piece: Piece, coarse: np.ndarray) -> Iterator[np.ndarray]:
    import torch

    (height, width), (down, across) = piece.size, piece.cells
    top, bottom = ((at * height / down.total) - piece.seen[0].start for at in (down.made.start, down.made.stop))
    left, right = ((at * width / across.total) - piece.seen[1].start for at in (across.made.start, across.made.stop))
    size = across.made.stop - across.made.start, down.made.stop - down.made.start
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX, (left, top, right, bottom))
    guide = np.asarray(small) / 255
    kept = image[piece.inside]
    colours = torch.from_numpy(np.ascontiguousarray(kept.transpose(2, 0, 1))).float() / 255
    some = max(1, MODELS // (4 * guide.shape[0] * guide.shape[1]))
    for first in range(0, len(coarse), some):
        for model in linear_models(guide, coarse[first : first + some], (down.reach, across.reach), EPS):
            *slopes, value = _stretched(torch.from_numpy(model), piece)
            for slope, colour in zip(slopes, colours, strict=True):
                value.addcmul_(slope, colour)
            yield value.numpy()


def _stretched(models: "torch.Tensor", piece: Piece) -> "torch.Tensor":
    """Models (4, rows, columns) of the cells that they are made of, interpolated at the pixels that are kept."""
    import torch
    from torch.nn import functional as F

    if piece.kept == piece.seen:
        return F.interpolate(models[None], piece.size, mode="bilinear")[0]
    for axis, (kept, length, cells) in enumerate(zip(piece.kept, piece.size, piece.cells, strict=True), 1):
        at = (np.arange(kept.start, kept.stop) + 0.5) * cells.total / length - 0.5
        at = np.clip(at, 0, cells.total - 1) - cells.made.start
        low = np.minimum(at.astype(np.int64), max(0, models.shape[axis] - 2))
        share = torch.from_numpy((at - low).astype(np.float32)).view((-1, 1) if axis == 1 else (-1,))
        first, second = (
            models.index_select(axis, torch.from_numpy(n)) for n in (low, np.minimum(low + 1, models.shape[axis] - 1))
        )
        models = first.lerp_(second, share)
    return models


def linear_models(guide: np.ndarray, values: np.ndarray, reach: tuple[int, int], eps: float) -> np.ndarray:
    """Per pixel the linear function from colour to value: the mean of the ridge fits of all windows that hold it.

    guide: (rows, columns, 3) float in 0..1; values: (K, rows, columns); reach: of a window, to each side. Returns
    (K, 4, rows, columns) float32: three slopes and the offset.
    """
    from scipy.ndimage import uniform_filter

    guide = guide.astype(np.float64)
    size = [2 * side + 1 for side in reach]

    def mean(maps: np.ndarray) -> np.ndarray:  # (rows, columns, …)
        return uniform_filter(maps, [*size, *[1] * (maps.ndim - 2)], mode="reflect")

    colour = mean(guide)
    spread = mean(guide[..., None] * guide[..., None, :]) - colour[..., None] * colour[..., None, :]
    inverse = np.linalg.inv(spread + eps * np.eye(3))
    found = np.empty((len(values), 4, *guide.shape[:2]), np.float32)
    for model, value in zip(found, values.astype(np.float64), strict=True):
        middle = mean(value)
        together = mean(guide * value[..., None]) - colour * middle[..., None]
        slope = np.einsum("yxij,yxj->yxi", inverse, together)
        offset = middle - (slope * colour).sum(-1)
        model[:] = np.moveaxis(mean(np.concatenate([slope, offset[..., None]], -1)), -1, 0)
    return found
