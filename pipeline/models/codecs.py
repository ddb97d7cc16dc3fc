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


def quantise(tokens: np.ndarray, mean: np.ndarray, basis: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (view, row, column, channel) float32 as int8, and the `scale` (view, channel) float32 of a number.

    `mean` (view, channel) float32 is taken off first. Without a basis a channel's step is `STEP` of its own deviation
    in the view; with one (`fit_basis`) the numbers count its rows. A channel that passes ±127 steps has longer ones.
    """
    values = tokens - mean[:, None, None]
    if basis is None:
        step = STEP * values.std(axis=(1, 2))
    else:
        values = values @ (basis / np.square(basis).sum(axis=1, keepdims=True)).T
        step = np.ones((len(values), values.shape[-1]), np.float32)
    scale = np.maximum(np.maximum(step, TINY), np.abs(values).max(axis=(1, 2)) / HIGHEST)
    numbers = np.rint(values / scale[:, None, None])
    return np.where(np.isnan(numbers), LOST, numbers).astype(np.int8), scale.astype(np.float32)


def restore(numbers: np.ndarray, scale: np.ndarray, mean: np.ndarray, basis: np.ndarray | None = None) -> np.ndarray:
    """The tokens (view, row, column, channel) float16 that `quantise` was given, to half a step of each number.

    NaN where `mean` (view, channel) float32 is.
    """
    values = numbers * scale[:, None, None]
    if basis is not None:
        values = values @ basis
    values += mean[:, None, None]
    limit = np.finfo(np.float16).max
    return np.clip(values, -limit, limit, out=values).astype(np.float16)


def products(tokens: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Sum over tokens (view, row, column, channel) of the products of what two channels differ by from the view's
    `mean` (view, channel): (channel, channel) float64, what `fit_basis` is fitted to. Views that are NaN do not count.
    """
    values = (tokens - mean[:, None, None])[np.isfinite(mean[:, 0])]
    flat = values.reshape(-1, tokens.shape[-1]).astype(np.float64)
    return flat.T @ flat


def fit_basis(products: np.ndarray, tokens: int) -> np.ndarray:
    """The principal directions of so many tokens, (component, channel) float32, the largest first: orthogonal, each as
    long as one step, which is `STEP` of the deviation of the average channel. One length for all makes the least error
    at a size: small components become zeros, which compress to nothing.
    """
    variances, vectors = np.linalg.eigh(products / max(tokens, 1))
    step = max(STEP * np.sqrt(max(float(variances.mean()), 0.0)), TINY)
    return (step * vectors.T[::-1]).astype(np.float32)
