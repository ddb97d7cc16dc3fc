"""Upsampling that follows the image's edges: the guided filter on the cosines to groups.

Sources: He, Sun and Tang, "Guided Image Filtering" (2010; IEEE TPAMI 35, 2013), section 3.4, colour guide; computed on
a coarse grid as in He and Sun, "Fast Guided Filter" (arXiv 1505.00996). Arrays in, arrays out.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipeline.numerics.tree import Cut
from pipeline.numerics.views import cosine_logits, winner

CELLS = 4
"""Cells of the coarse grid per token, in both directions."""
REACH = 1.0
"""How many tokens a window reaches to each side: as far as bilinear upsampling blurs."""
EPS = 1e-3
"""Ridge: a window whose colours (0..1) vary less than this is taken as flat, and smoothed."""


def guided_logits(image: np.ndarray, plane: np.ndarray, vectors: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
    """Cosine of every pixel to each group, in every window a linear function of the image's colours.

    image: (height, width, 3) uint8 RGB; plane: (rows, columns, D) codes; vectors: (P, D) unit vectors, of which `cut`
    makes n groups. Gives n maps (height, width) float32, one by one. Where the image is flat these are bilinearly
    upsampled cosines, smoothed; at an edge of colour the values of its two sides part.
    """
    return _upsampled(image, plane, _coarse(image, plane, vectors, cut))


def guided_winner(image: np.ndarray, plane: np.ndarray, vectors: np.ndarray, cut: Cut) -> np.ndarray:
    """The number of the group with the largest of `guided_logits` at each pixel, (height, width) int64.

    Groups that are neither first nor second at any cell of the coarse grid are left out: of pictures of four sets, cut
    into 3 to 200 groups, 99.9 % of the pixels and more are the same."""
    coarse = _coarse(image, plane, vectors, cut)
    each = coarse.reshape(len(coarse), -1)
    near = np.unique(np.argpartition(each, -2, axis=0)[-2:] if len(each) > 2 else np.arange(len(each)))
    return near[winner(_upsampled(image, plane, coarse[near]))]


def _coarse(image: np.ndarray, plane: np.ndarray, vectors: np.ndarray, cut: Cut) -> np.ndarray:
    """Cosines to groups, (n, row, column), on the coarse grid."""
    rows, columns = (min(side, CELLS * count) for side, count in zip(image.shape[:2], plane.shape[:2], strict=True))
    return cosine_logits(plane, vectors, cut, rows, columns)


def _upsampled(image: np.ndarray, plane: np.ndarray, coarse: np.ndarray) -> Iterator[np.ndarray]:
    import torch
    from torch.nn import functional as F

    height, width = image.shape[:2]
    rows, columns = coarse.shape[1:]
    reach = round(REACH * rows / plane.shape[0]), round(REACH * columns / plane.shape[1])
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX)
    models = linear_models(np.asarray(small) / 255, coarse, reach, EPS)
    colours = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    for model in models:
        *slopes, value = F.interpolate(torch.from_numpy(model)[None], (height, width), mode="bilinear")[0]
        for slope, colour in zip(slopes, colours, strict=True):
            value.addcmul_(slope, colour)
        yield value.numpy()


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
