"""Regrouping: shares, prices and moves against their definitions."""

import numpy as np
import pytest

from pipeline.numerics.kmeans import normalise
from pipeline.numerics.regroup import evidence, exchange, filled, grouped, halve, improve, prices

RNG = np.random.default_rng(0)
VIEWS, ROWS, COLUMNS = 6, 12, 10


def random_evidence(n: int = 7):
    member = RNG.integers(n, size=(VIEWS, ROWS, COLUMNS))
    codes = normalise(RNG.normal(size=(VIEWS, ROWS, COLUMNS, 5)))
    colours = RNG.uniform(0, 255, (VIEWS, ROWS, COLUMNS, 3)).astype(np.float32)
    return member, codes, colours, evidence(member, codes, colours, n)


def worth(member: np.ndarray, codes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Variance of codes between groups, of colour within images between groups, contrast on borders: with loops."""
    flat, within, border = codes.reshape(-1, codes.shape[-1]).astype(float), 0.0, 0.0
    mean = flat.mean(0)
    groups = member.ravel()
    between = sum((groups == g).sum() * np.square(flat[groups == g].mean(0) - mean).sum() for g in np.unique(groups))
    for view, picture in zip(member, colours.astype(float), strict=True):
        for g in np.unique(view):
            within += (view == g).sum() * np.square(picture[view == g].mean(0) - picture.mean((0, 1))).sum()
        for axis in (0, 1):
            contrast = np.linalg.norm(np.diff(picture, axis=axis), axis=-1)
            for place in np.ndindex(contrast.shape):
                other = (place[0] + 1, place[1]) if axis == 0 else (place[0], place[1] + 1)
                if view[place] != view[other]:
                    border += contrast[place] / contrast.mean() - 1
    return np.array([between, within, border])


def beyond(colours: np.ndarray) -> float:
    """All contrast above the mean of its image and direction."""
    total = 0.0
    for picture in colours.astype(float):
        for axis in (0, 1):
            contrast = np.linalg.norm(np.diff(picture, axis=axis), axis=-1)
            total += (contrast / contrast.mean() - 1).clip(0).sum()
    return total


def test_a_price_is_what_the_three_shares_lose():
    member, codes, colours, found = random_evidence()
    scale = [*worth(member, codes, colours)[:2], beyond(colours)]
    before = worth(member, codes, colours) / scale
    cost = prices(found)
    np.testing.assert_allclose(cost, cost.T)
    for i, j in ((0, 1), (2, 6), (5, 3)):
        after = worth(np.where(member == j, i, member), codes, colours) / scale
        assert cost[i, j] == pytest.approx((before - after).sum(), abs=1e-6)


def test_groups_are_sums_of_pieces():
    member, codes, colours, found = random_evidence()
    groups = np.array([0, 1, 2, 0, 1, 2, 2])
    joined, wanted = grouped(found, groups, 3), evidence(groups[member], codes, colours, 3)
    np.testing.assert_allclose(joined.size, wanted.size)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(joined.border[off], wanted.border[off])
    scale = joined.colour / np.where(wanted.colour, wanted.colour, 1)
    np.testing.assert_allclose(scale, scale.flat[0])  # the unit is that of the pieces


def test_halves_gain_what_joining_them_costs():
    *_, found = random_evidence()
    gain, second = halve(found, np.array([1, 3, 4, 6]))
    assert 0 < len(second) < 4
    assert set(second) < {1, 3, 4, 6}
    groups = np.full(7, -1)
    groups[[1, 3, 4, 6]] = 0
    groups[second] = 1
    assert gain == pytest.approx(prices(grouped(found, groups, 2))[0, 1])
    assert halve(found, np.array([2]))[0] == -np.inf


def test_pieces_go_where_the_three_shares_rise():
    """The gain is what the shares rise by, no single piece is left that gains, and other groups stay."""
    member, codes, colours, found = random_evidence(12)
    scale = [*worth(member, codes, colours)[:2], beyond(colours)]

    def shares(groups: np.ndarray) -> float:
        return float((worth(groups[member], codes, colours) / scale).sum())

    before = np.arange(12) % 4
    after, gain = exchange(found, before, 4, [0, 1, 3])
    assert gain > 0
    assert gain == pytest.approx(shares(after) - shares(before), abs=1e-6)
    np.testing.assert_array_equal(after == 2, before == 2)
    assert set(after) == {0, 1, 2, 3}
    for piece in np.flatnonzero(after != 2):
        for group in (0, 1, 3):
            other = after.copy()
            other[piece] = group
            assert len(set(other)) < 4 or shares(other) < shares(after) + 0.0021


def test_a_group_without_pieces_gets_one():
    np.testing.assert_array_equal(filled(np.array([0, 0, 0, 3]), 4), [1, 2, 0, 3])
    *_, found = random_evidence()
    groups, _ = improve(found, np.zeros(7, int), 3)
    assert set(groups) == {0, 1, 2}
