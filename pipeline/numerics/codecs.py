"""Tokens as int8: what a view's tokens differ by from their mean, in steps that are a share of how far they spread.

Arrays in, arrays out. A view that is NaN becomes `LOST`, a number that no token is given, and NaN again.
"""

import numpy as np

STEP = 0.3
"""A quantiser's step as a share of the standard deviation: an error of 0.3 / √12 = 9 % of it."""
LOST = -128
"""What stands for NaN."""
HIGHEST = 127
TINY = 1e-6
"""The least step, for tokens that are all equal."""


def quantise(tokens: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (view, row, column, channel) float32 as int8, and the `scale` (view, channel) float32 of a number.

    `mean` (view, channel) float32 is taken off first. A channel's step is `STEP` of its own deviation in the view; one
    that passes ±127 steps has longer ones.
    """
    values = tokens - mean[:, None, None]
    step = STEP * values.std(axis=(1, 2))
    scale = np.maximum(np.maximum(step, TINY), np.abs(values).max(axis=(1, 2)) / HIGHEST)
    numbers = np.rint(values / scale[:, None, None])
    return np.where(np.isnan(numbers), LOST, numbers).astype(np.int8), scale.astype(np.float32)


def restore(numbers: np.ndarray, scale: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The tokens (view, row, column, channel) float16 that `quantise` was given, to half a step of each number.

    NaN where `mean` (view, channel) float32 is.
    """
    values = numbers * scale[:, None, None]
    values += mean[:, None, None]
    limit = np.finfo(np.float16).max
    return np.clip(values, -limit, limit, out=values).astype(np.float16)
