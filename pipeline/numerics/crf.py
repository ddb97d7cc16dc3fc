"""The dense CRF that snaps masks to the image's edges (Krähenbühl and Koltun 2011, arXiv:1210.5644, section 4)."""

from collections.abc import Iterator
from itertools import product
from math import ceil
from typing import NamedTuple

import numpy as np
from pydantic import Field, FiniteFloat

from pipeline.core.extras import require
from pipeline.core.params import Params
from pipeline.numerics.views import winner

_FLOOR = float(np.log(1e-5))  # as pydensecrf.utils.unary_from_softmax, which STEGO calls: no energy is infinite


class CrfParams(Params):
    """STEGO's values (Hamilton et al. 2022, arXiv:2203.08414; `src/crf.py` of its repository) are the defaults."""

    iterations: int = Field(default=10, ge=0)
    """Mean-field iterations; with 0 the labels are those of the log-probabilities. A change re-runs `masks`."""

    gaussian_sxy: FiniteFloat = Field(default=1.0, gt=0)
    """Standard deviation, in pixels, of the smoothness kernel. A change re-runs `masks`."""

    gaussian_compat: FiniteFloat = Field(default=3.0, ge=0)
    """Weight of the smoothness kernel: it removes specks. A change re-runs `masks`."""

    bilateral_sxy: FiniteFloat = Field(default=67.0, gt=0)
    """Standard deviation, in pixels, of the appearance kernel: how far a pixel listens. A change re-runs `masks`."""

    bilateral_srgb: FiniteFloat = Field(default=3.0, gt=0)
    """Standard deviation, in grey levels 0..255, of the appearance kernel: how alike colours must be to share a label.
    A change re-runs `masks`."""

    bilateral_compat: FiniteFloat = Field(default=4.0, ge=0)
    """Weight of the appearance kernel: it moves borders to colour edges. A change re-runs `masks`."""


DEFAULTS = CrfParams()


MEMORY = 1.9 * 2**30
"""Bytes that one CRF may take: larger images are refined in tiles."""
PER_CLASS, PER_PIXEL = 90, 520
"""Bytes that it takes per class and pixel, and per pixel, where neighbouring pixels have nothing in common (measured on
noise); photographs take half."""


class Tile(NamedTuple):
    """A piece of an image and where it is refined: slices of rows and of columns of pixels."""

    seen: tuple[slice, slice]
    """The piece with a margin around it."""
    kept: tuple[slice, slice]
    """The piece itself, in the image."""
    inside: tuple[slice, slice]
    """The piece itself, in what is seen."""


def tiles(k: int, height: int, width: int, params: CrfParams = DEFAULTS, memory: float = MEMORY) -> Iterator[Tile]:
    """The pieces that cover an image, each with a margin of two standard deviations of the appearance kernel, and each
    so small that its CRF stays within `memory`; the whole image where that fits. Of enlarged CamVid pictures in four
    tiles 99.9 % of pixels were as without."""
    most = memory / (PER_CLASS * k + PER_PIXEL)
    side = int(most**0.5)
    margin = min(ceil(2 * params.bilateral_sxy), side // 4)

    def pixels(rows: int, columns: int) -> int:
        return min(height, ceil(height / rows) + 2 * margin) * min(width, ceil(width / columns) + 2 * margin)

    down, across = (range(1, ceil(length / max(1, side - 2 * margin)) + 1) for length in (height, width))
    fitting = [(m, n) for m, n in product(down, across) if pixels(m, n) <= most]
    rows, columns = min(fitting, key=lambda grid: (grid[0] * grid[1] * pixels(*grid), grid))
    for y, x in product(_cuts(height, rows, margin), _cuts(width, columns, margin)):
        yield Tile(*zip(y, x, strict=True))


def _cuts(length: int, count: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Of one direction what is seen, what is kept, and that in what is seen."""
    for i in range(count):
        start, stop = length * i // count, length * (i + 1) // count
        first = max(0, start - margin)
        yield slice(first, min(length, stop + margin)), slice(start, stop), slice(start - first, stop - first)


def dense_crf(image: np.ndarray, log_probs: np.ndarray, params: CrfParams = DEFAULTS) -> np.ndarray:
    """The most probable label of each pixel after the CRF: (H, W), uint8 for K <= 255, else uint16.

    `image` uint8 (H, W, 3), RGB; `log_probs` (K, H, W), log-softmax over K at the image's resolution, −inf allowed;
    strides and float width do not matter. The pixels are those of a plain pydensecrf call. Cost and memory grow with
    K·H·W: `tiles` cuts large images.
    Raises ValueError for shapes or dtypes that do not fit and for NaN.
    """
    k, height, width = log_probs.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(f"image {image.dtype} {image.shape} does not fit log_probs {log_probs.shape}")
    if not 1 <= k < 65535 or not height * width:
        raise ValueError(f"log_probs {log_probs.shape} hold no pixels, or no class, or too many classes")
    if np.isnan(log_probs).any():
        raise ValueError("log_probs contain NaN")
    dtype = np.uint8 if k <= 255 else np.uint16
    if k == 1:
        return np.zeros((height, width), dtype)
    require("pydensecrf", "the dense CRF (masks.crf)")
    import pydensecrf.densecrf as dcrf

    energy = -log_probs.reshape(k, -1).astype(np.float32, copy=False)
    np.minimum(energy, np.float32(-_FLOOR), out=energy)
    crf = dcrf.DenseCRF2D(width, height, k)
    crf.setUnaryEnergy(np.ascontiguousarray(energy))
    crf.addPairwiseGaussian(sxy=params.gaussian_sxy, compat=params.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=params.bilateral_sxy,
        srgb=params.bilateral_srgb,
        rgbim=np.require(image, requirements=["C", "W"]),
        compat=params.bilateral_compat,
    )
    marginals = np.asarray(crf.inference(params.iterations))  # (K, H·W)
    return winner(marginals.reshape(k, height, width)).astype(dtype)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the first axis, in place and without overflow."""
    logits -= logits.max(0)
    logits -= np.log(np.exp(logits).sum(0))
    return logits
