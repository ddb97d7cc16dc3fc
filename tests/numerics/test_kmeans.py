"""Cosine k-means: unit centroids, planted directions, restarts."""

import faiss
import numpy as np
import pytest

from pipeline.numerics import kmeans
from pipeline.numerics.kmeans import cosine_kmeans, nearest, normalise, ward_centroids

RNG = np.random.default_rng(0)


def planted(k: int, each: int, depth: int = 16, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors around k orthogonal directions: vectors, their directions' numbers, the directions."""
    directions = np.linalg.qr(RNG.normal(size=(depth, depth)))[0][:k]
    labels = np.repeat(np.arange(k), each)
    vectors = normalise(directions[labels] + noise * RNG.normal(size=(k * each, depth)) / np.sqrt(depth) * 2)
    return vectors, labels, directions


def test_planted_directions_are_found():
    vectors, labels, directions = planted(6, 80)
    centroids, objectives = cosine_kmeans(vectors, 6, restarts=8, iterations=20, seed=0)
    cosines = directions @ centroids.T
    assert sorted(cosines.argmax(1)) == list(range(6))
    assert cosines.max(1).min() > 0.98
    np.testing.assert_array_equal(cosines.argmax(1)[labels], nearest(vectors, centroids)[0])
    assert max(objectives) > 0.9


def test_the_length_of_a_direction_does_not_count():
    """Opposite and nearly equal directions: cosine, not distance to an average through the origin."""
    vectors = normalise(np.array([[1, 0.01], [1, -0.01], [-1, 0.01], [-1, -0.01]] * 10))
    centroids, _ = cosine_kmeans(vectors, 2, restarts=5, iterations=10, seed=0)
    np.testing.assert_allclose(np.sort(centroids[:, 0]), [-1, 1], atol=1e-3)


def test_centroids_are_unit_float32():
    vectors = normalise(RNG.normal(size=(200, 7)))
    for k in (1, 5, 200):
        centroids, objectives = cosine_kmeans(vectors, k, restarts=2, iterations=5, seed=0)
        assert centroids.shape == (k, 7)
        assert centroids.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
        assert len(objectives) == 3


def test_the_best_restart_is_kept(monkeypatch: pytest.MonkeyPatch):
    vectors, *_ = planted(12, 15, noise=0.4)
    trained: list[np.ndarray] = []
    train = faiss.Kmeans.train

    def remember(self, *args, **options):
        result = train(self, *args, **options)
        trained.append(normalise(np.asarray(self.centroids)))
        return result

    monkeypatch.setattr(faiss.Kmeans, "train", remember)
    centroids, objectives = cosine_kmeans(vectors, 12, restarts=8, iterations=15, seed=0)
    own = [float((vectors @ each.T).max(1).mean()) for each in trained]
    np.testing.assert_allclose(objectives, own, atol=1e-5)
    assert len({round(value, 6) for value in own}) > 1, "the restarts must differ"
    assert float((vectors @ centroids.T).max(1).mean()) == pytest.approx(max(own), abs=1e-6)


def test_the_tree_finds_what_restarts_miss():
    """Sixty directions of unequal weight: k-means++ leaves two of them to one centroid, the tree does not."""
    directions = normalise(RNG.normal(size=(60, 64)))
    vectors = normalise(np.repeat(directions, np.arange(20, 80), 0) + 0.05 * RNG.normal(size=(2970, 64)))
    objectives = cosine_kmeans(vectors, 60, restarts=5, iterations=25, seed=0)[1]
    assert objectives[0] > max(objectives[1:])
    found = nearest(directions, ward_centroids(vectors, 60, 0))[0]
    assert len(set(found.tolist())) == 60


def test_the_tree_copes_with_copies():
    """As many clusters as vectors, and more clusters than different vectors."""
    same = np.tile(normalise(RNG.normal(size=(1, 4))), (6, 1))
    for k in (1, 3, 6):
        assert np.isfinite(ward_centroids(same, k, 0)).all()


def test_the_seed_decides():
    vectors = normalise(RNG.normal(size=(300, 8)))
    one, again, other = (cosine_kmeans(vectors, 9, restarts=2, iterations=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], again[0])
    assert one[1][1:] != other[1][1:]
    assert np.abs(ward_centroids(vectors, 9, 1) - ward_centroids(vectors, 9, 2)).max() == 0, "the tree holds them all"


def test_too_few_vectors():
    with pytest.raises(ValueError, match="3 vectors cannot make 4 clusters"):
        cosine_kmeans(normalise(RNG.normal(size=(3, 5))), 4, restarts=1, iterations=1, seed=0)


def test_nearest_in_blocks():
    """More vectors than one block holds."""
    vectors, centroids = normalise(RNG.normal(size=(70_000, 3))), normalise(RNG.normal(size=(5, 3)))
    labels, values = nearest(vectors, centroids)
    cosines = vectors @ centroids.T
    np.testing.assert_array_equal(labels, cosines.argmax(1))
    np.testing.assert_allclose(values, cosines.max(1), atol=1e-6)


def test_normalise():
    found = kmeans.normalise(np.array([[3, 4], [0, 0]], np.float16))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], atol=1e-6)


# How many groups ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 5, 16])
def test_equal_orthogonal_groups_are_counted(groups: int):
    """Each view holds its tokens of every group in another order."""
    vectors, _, _ = planted(groups, 320 // groups, noise=0)
    views = np.stack([RNG.permutation(vectors) for _ in range(4)])
    assert kmeans.effective_groups(views) == pytest.approx(groups)


def test_groups_are_counted_between_views():
    """As by definition, pair by pair; what the tokens of one view have in common is not asked."""
    vectors = normalise(RNG.normal(size=(3, 5, 4)))
    cosines = np.einsum("vnd,wmd->vnwm", vectors, vectors) ** 2
    between = [cosines[v, :, w].mean() for v in range(3) for w in range(3) if v != w]
    assert kmeans.effective_groups(vectors) == pytest.approx(1 / np.mean(between))
    own = np.eye(4, dtype=np.float32)[:, None] * np.ones((1, 7, 1), np.float32)  # a direction of its own for each view
    assert kmeans.effective_groups(own) == 4
    assert kmeans.effective_groups(own[:1]) == 1
