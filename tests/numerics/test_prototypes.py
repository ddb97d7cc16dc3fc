"""Pieces and prototypes: planted pictures that k-means cuts in the wrong place and regrouped pieces do not."""

import numpy as np
import pytest

from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import cosine_kmeans, nearest, normalise
from pipeline.numerics.prototypes import fit, nearest_piece, readout, refine, split
from pipeline.numerics.regroup import evidence, improve
from pipeline.numerics.tree import cut, ward

RNG = np.random.default_rng(0)


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


def found(codes: Codes, centroids: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The group of every token (view, row, column) by its nearest prototype, and what each move gained."""
    k, flat = len(centroids), codes.flat()
    pieces = split(flat, centroids, 64, 0)
    owner = np.repeat(np.arange(k), [len(part) for part in pieces])
    piece = nearest_piece(flat, centroids, pieces)
    groups, gains = improve(
        evidence(piece.reshape(colours.shape[:3]), codes.directions(), colours, len(owner)), owner, k
    )
    vectors = fit(flat.joint(), piece, groups)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    label = nearest(flat.joint(), vectors)[0]
    tree = ward(vectors, np.bincount(label, minlength=len(vectors)), groups)
    return cut(tree, k).group[label].reshape(colours.shape[:3]), gains


def alike(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the three kinds that lie in groups of their own; 0 where two share one."""
    table = np.histogram2d(found.ravel(), truth.ravel(), (3, 3))[0]
    return float(table.max(1).sum() / table.sum()) if len(set(table.argmax(1))) == 3 else 0.0


def clusters(codes: np.ndarray) -> np.ndarray:
    return cosine_kmeans(codes.reshape(-1, codes.shape[-1]), 3, restarts=5, iterations=20, seed=0)[0]


def test_groups_follow_the_pictures():
    codes, colours, truth = smears()
    plain = clusters(codes)
    assert alike(nearest(codes.reshape(-1, 8), plain)[0], truth) == 0, "k-means has two clusters of ground"
    groups, gains = found(Codes(codes), plain, colours)
    assert len(gains) == 1
    assert gains[0] > 0.1
    assert alike(groups, truth) > 0.99
    np.testing.assert_array_equal(found(Codes(codes), plain, colours)[0], groups)


def test_detail_separates_what_the_compared_part_does_not():
    """Disc and ring have one code; only the detail differs."""
    codes, colours, truth = smears()
    compared = codes.copy()
    compared[truth < 2] = normalise(codes[truth < 2].mean(0) + 0.05 * RNG.normal(size=((truth < 2).sum(), 8)))
    plain = clusters(compared)
    assert alike(found(Codes(compared), plain, colours)[0], truth) == 0
    groups, gains = found(Codes(compared, codes).unit(), plain, colours)
    assert len(gains) == 1
    assert alike(groups, truth) > 0.99


def test_groups_that_fit_stay():
    codes, colours, truth = smears()
    means = normalise(np.stack([codes[truth == kind].mean(0) for kind in range(3)]))
    groups, gains = found(Codes(codes), means, colours)
    assert gains == []
    assert alike(groups, nearest(codes.reshape(-1, 8), means)[0]) > 0.97


def test_one_colour_says_nothing():
    """Images without any contrast: codes alone decide, and k-means has no better grouping to find."""
    codes, colours, _ = smears()
    plain = clusters(codes)
    groups, gains = found(Codes(codes), plain, np.full_like(colours, 7))
    assert gains == []
    assert alike(groups, nearest(codes.reshape(-1, 8), plain)[0]) > 0.97


def test_pieces_are_spread_by_how_much_detail_varies():
    tight = normalise(np.array([1, 0, 0, 0]) + 0.01 * RNG.normal(size=(500, 4)))
    loose = normalise(np.array([0, 1, 0, 0]) + 0.15 * RNG.normal(size=(500, 4)))
    codes, centroids = Codes(np.concatenate([tight, loose])), np.eye(4, dtype=np.float32)[:2]
    pieces = split(codes, centroids, 20, 0)
    assert len(pieces[0]) == 2
    assert 16 < len(pieces[1]) <= 20
    piece = nearest_piece(codes, centroids, pieces)
    np.testing.assert_array_equal(np.repeat([0, 1], [len(part) for part in pieces])[piece], np.repeat([0, 1], 500))


def test_a_code_of_a_cluster_without_pieces_goes_to_another():
    centroids, pieces = np.eye(2, dtype=np.float32), [np.empty((0, 2), np.float32), np.eye(2, dtype=np.float32)]
    np.testing.assert_array_equal(nearest_piece(Codes(np.eye(2, dtype=np.float32)), centroids, pieces), [0, 1])


@pytest.mark.parametrize("empty", [[], [2]])
def test_a_vector_is_nearest_to_its_group_and_there_to_its_piece(empty: list[int]):
    codes, _, truth = smears()
    flat, piece, groups = codes.reshape(-1, 8), truth.ravel().copy(), np.array([0, 1, 0])
    for gone in empty:
        piece[piece == gone] = 0
    vectors = fit(flat, piece, groups)
    assert np.isfinite(vectors).all()
    label = nearest(flat, vectors)[0]
    assert (groups[label] == groups[piece]).mean() > 0.99
    if not empty:  # a piece without a code lies at the direction of its group, and shares its codes with the others
        assert (label == piece).mean() > 0.97


def test_groups_of_prototypes_are_those_of_their_directions():
    """However many pieces a group has."""
    flat = smears()[0].reshape(-1, 8)
    piece = nearest(flat, normalise(RNG.normal(size=(30, 8))))[0]
    groups = np.arange(30) % 3
    wanted = nearest(flat, readout(flat, groups[piece], 3))[0]
    assert (groups[nearest(flat, fit(flat, piece, groups))[0]] == wanted).mean() > 0.95


def test_the_readout_of_groups_that_no_vector_is_in():
    flat = smears()[0].reshape(-1, 8)
    alone = readout(flat, np.zeros(len(flat), int), 3)
    assert np.isfinite(alone).all()
    assert (nearest(flat, alone)[0] == 0).all()


def test_pieces_of_pieces_lie_in_them():
    """Every code stays in the group of its piece, but for a few at borders; an empty cluster stays empty."""
    codes = Codes(normalise(RNG.normal(size=(3000, 6)).astype(np.float32)))
    centroids = normalise(RNG.normal(size=(3, 6)).astype(np.float32))
    pieces = split(codes, centroids, 12, 0)
    finer, parent = refine(codes, centroids, pieces, 60, 0)
    assert len(parent) == sum(map(len, finer))
    assert 50 <= len(parent) <= 75
    assert (np.diff(parent) >= 0).all()
    assert set(parent) == set(range(sum(map(len, pieces))))
    before, after = nearest_piece(codes, centroids, pieces), parent[nearest_piece(codes, centroids, finer)]
    assert (before == after).mean() > 0.7
    far = np.concatenate([centroids, [[0, 0, 0, 0, 0, 0]]]).astype(np.float32)
    few = Codes(centroids.repeat(20, 0))
    lonely, of = refine(few, far, [*split(few, far, 8, 0)[:3], centroids[:0]], 9, 0)
    assert len(lonely[3]) == 0
    assert len(of) == sum(map(len, lonely))
