"""Regrouping: shares and prices against their definitions, planted pictures that k-means cuts in the wrong place."""

import numpy as np
import pytest

from pipeline.numerics.kmeans import cosine_kmeans, nearest, normalise
from pipeline.numerics.regroup import evidence, exchange, filled, grouped, halve, improve, prices, readout, regroup

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
    """The gain that is told is what the shares rise by, no single piece is left that gains, and other groups stay."""
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


def smears() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, colours and truth of pictures of a dark disc in a grey ring. The ground has two codes that are far apart
    and one colour; disc and ring have codes that are close, and colours that are not."""
    y, x = np.mgrid[:16, :16] - 7.5
    truth = np.digitize(np.hypot(y, x), [3.2, 5.5])[None].repeat(12, 0)  # 0 disc, 1 ring, 2 ground
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    kinds = np.stack([axes[0], normalise(axes[0] + 0.35 * axes[1]), axes[2], normalise(0.5 * axes[2] + axes[3])])
    shade = truth + (truth == 2) * (np.mgrid[:16, :16][1] > 7)
    noise = np.random.default_rng(2).normal(size=(*truth.shape, 8))
    codes = normalise(kinds[shade] + 0.05 * noise)
    colours = np.array([[60, 20, 90], [150, 120, 160], [240, 240, 230]])[truth] + RNG.normal(0, 4, (*truth.shape, 3))
    return codes, colours.clip(0, 255).astype(np.float32), truth


def test_clusters_follow_the_pictures():
    codes, colours, truth = smears()
    flat = codes.reshape(-1, 8)
    plain = cosine_kmeans(flat, 3, restarts=5, iterations=20, seed=0)[0]

    def best(centroids: np.ndarray) -> float:
        """Share of the three kinds that lie in clusters of their own."""
        found = nearest(flat, centroids)[0]
        table = np.histogram2d(found, truth.ravel(), (3, 3))[0]
        return float(table.max(1).sum() / table.sum()) if len(set(table.argmax(1))) == 3 else 0.0

    assert best(plain) == 0, "k-means has two clusters of ground"
    new, gains = regroup(flat, plain, 8, codes, colours, 0)
    assert len(gains) == 1
    assert gains[0] > 0.1
    assert new.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), 1, atol=1e-5)
    assert best(new) > 0.99
    again, _ = regroup(flat, plain, 8, codes, colours, 0)
    np.testing.assert_array_equal(new, again)


def test_detail_tells_apart_what_leading_channels_do_not():
    """Disc and ring have one code; only the channels behind it know."""
    codes, colours, truth = smears()
    leading = codes.copy()
    leading[truth < 2] = normalise(codes[truth < 2].mean(0) + 0.05 * RNG.normal(size=((truth < 2).sum(), 8)))
    both = normalise(np.concatenate([leading, codes], -1))
    flat = both.reshape(-1, 16)
    plain = cosine_kmeans(normalise(flat[:, :8]), 3, restarts=5, iterations=20, seed=0)[0]

    def kept(found: np.ndarray, width: int) -> float:
        table = np.histogram2d(nearest(flat[:, :width], found)[0], truth.ravel(), (3, 3))[0]
        return float(table.max(0).sum() / table.sum()) if len(set(table.argmax(0))) == 3 else 0.0

    blind, _ = regroup(normalise(flat[:, :8]), plain, 8, leading, colours, 0)
    assert kept(blind, 8) == 0
    new, gains = regroup(flat, np.pad(plain, ((0, 0), (0, 8))), 8, both, colours, 0)
    assert len(gains) == 1
    assert kept(new, 16) > 0.99


def test_clusters_that_fit_stay():
    codes, colours, truth = smears()
    means = normalise(np.stack([codes[truth == kind].mean(0) for kind in range(3)]))
    new, gains = regroup(codes.reshape(-1, 8), means, 8, codes, colours, 0)
    assert gains == []
    agree = nearest(codes.reshape(-1, 8), new)[0] == nearest(codes.reshape(-1, 8), means)[0]
    assert agree.mean() > 0.97


def test_one_colour_says_nothing():
    """Images without any contrast: codes alone decide, and k-means has no better grouping to find."""
    codes, colours, _ = smears()
    flat = codes.reshape(-1, 8)
    plain = cosine_kmeans(flat, 3, restarts=5, iterations=20, seed=0)[0]
    new, gains = regroup(flat, plain, 8, codes, np.full_like(colours, 7), 0)
    assert gains == []
    assert np.isfinite(new).all()


@pytest.mark.parametrize(("k", "n"), [(1, 500), (3, 79), (50, 99)])
def test_too_little_to_regroup(k: int, n: int):
    vectors = normalise(RNG.normal(size=(n, 6)))
    centroids = normalise(RNG.normal(size=(k, 6)))
    same, gains = regroup(vectors, centroids, 6, vectors.reshape(1, 1, n, 6), np.zeros((1, 1, n, 3), np.float32), 0)
    assert same is centroids
    assert gains == []


def test_a_group_without_pieces_gets_one():
    np.testing.assert_array_equal(filled(np.array([0, 0, 0, 3]), 4), [1, 2, 0, 3])
    *_, found = random_evidence()
    groups, _ = improve(found, np.zeros(7, int), 3)
    assert set(groups) == {0, 1, 2}


def test_the_readout_gives_every_vector_its_group():
    codes, _, truth = smears()
    flat, wanted = codes.reshape(-1, 8), truth.ravel()
    centroids = normalise(RNG.normal(size=(3, 8)))
    found = readout(flat, wanted, centroids)
    assert (nearest(flat, found)[0] == wanted).mean() > 0.99
    alone = readout(flat, np.zeros(len(flat), int), centroids)  # groups that no vector is in
    assert np.isfinite(alone).all()
    assert (nearest(flat, alone)[0] == 0).all()
