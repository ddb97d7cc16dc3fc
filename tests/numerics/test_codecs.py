"""Quantised tokens: how far they are from what was given, and what is kept exactly."""

import numpy as np
import pytest

from pipeline.numerics.codecs import HIGHEST, LOST, STEP, quantise, restore


def planted(views: int = 3, grid: tuple[int, int] = (6, 8), channels: int = 12, seed: int = 0) -> np.ndarray:
    """Tokens (view, row, column, channel) float32 with correlated channels of very different means and spreads."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(views, *grid, channels)) @ rng.normal(size=(channels, channels))
    return (mixed * np.geomspace(0.01, 5, channels) + rng.normal(0, 3, channels)).astype(np.float32)


def coded(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """numbers, scale and the tokens that come back."""
    mean = tokens.mean(axis=(1, 2))
    numbers, scale = quantise(tokens, mean)
    assert (numbers.dtype, scale.dtype, numbers.shape) == (np.int8, np.float32, tokens.shape)
    back = restore(numbers, scale, mean)
    assert (back.dtype, back.shape) == (np.float16, tokens.shape)
    return numbers, scale, back


def half_step(tokens: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The error that is allowed: half a step, and what float16 rounds."""
    return scale[:, None, None] * 0.501 + np.abs(tokens) * 2.0**-11 + 1e-6


def test_every_token_is_within_half_a_step():
    tokens = planted()
    numbers, scale, back = coded(tokens)
    assert (np.abs(back - tokens) <= half_step(tokens, scale)).all()
    np.testing.assert_allclose(scale, STEP * tokens.std(axis=(1, 2)), rtol=1e-3)
    assert numbers.min() > LOST


def test_an_outlier_lengthens_the_steps_of_its_own_channel():
    tokens = planted(grid=(60, 60))
    before = coded(tokens)[1]
    tokens[1, 2, 3, 4] += 1000 * tokens[..., 4].std()
    numbers, scale, back = coded(tokens)
    assert (np.abs(back - tokens) <= half_step(tokens, scale)).all()
    assert numbers.max() == HIGHEST
    longer = scale > before * 1.01
    assert longer.sum() == 1
    assert longer[1, 4]


def test_a_view_that_is_nan_stays_nan_and_touches_no_other():
    tokens = planted()
    whole = coded(tokens)[2]
    tokens[1] = np.nan
    numbers, scale, back = coded(tokens)
    assert np.isnan(back[1]).all()
    assert (numbers[1] == LOST).all()
    assert np.isnan(scale[1]).all()
    np.testing.assert_array_equal(back[[0, 2]], whole[[0, 2]])


@pytest.mark.parametrize("tokens", [np.full((2, 3, 3, 4), 7.0), planted(grid=(1, 1)), np.zeros((0, 2, 2, 4))])
def test_tokens_without_spread_come_back_as_they_are(tokens: np.ndarray):
    tokens = tokens.astype(np.float32)
    np.testing.assert_array_equal(coded(tokens)[2], tokens.astype(np.float16))


def test_the_ends_of_float16_are_not_passed():
    tokens = np.full((1, 4, 4, 2), -65504, np.float32)
    tokens[0, ::2] = 65504
    assert np.isfinite(coded(tokens)[2]).all()
