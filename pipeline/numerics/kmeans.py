"""Cosine k-means (FAISS, spherical): K unit vectors, several starts, the best objective kept. And of unit vectors, how
many groups they form."""

import numpy as np

from pipeline.core.extras import require

SAMPLE = 50_000
"""Vectors on which the starts compete."""
TREE = 5_000
"""Vectors in the tree from which one start is cut."""


def cosine_kmeans(
    vectors: np.ndarray, k: int, *, restarts: int, iterations: int, seed: int
) -> tuple[np.ndarray, list[float]]:
    """Cluster unit vectors (n, D) float32 by cosine.

    One start is a Ward tree cut at K, `restarts` more are k-means++; each runs on the same sample of at most `SAMPLE`
    vectors, and the one with the largest objective is finished on all of them. Returns its centroids (K, D) float32,
    unit vectors, and every start's objective, the tree's first: the mean cosine of a sampled vector to its centroid.
    ValueError where there are fewer vectors than clusters.
    """
    require("faiss", "k-means")
    import faiss

    vectors = np.ascontiguousarray(vectors, np.float32)
    if len(vectors) < k:
        raise ValueError(f"{len(vectors)} vectors cannot make {k} clusters")
    sample = vectors
    if len(vectors) > SAMPLE:
        sample = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), max(SAMPLE, k), replace=False))]

    def fit(data: np.ndarray, start: int, centroids: np.ndarray | None = None) -> np.ndarray:
        means = faiss.Kmeans(
            data.shape[1], k, niter=iterations, spherical=True, seed=start % 2**31,  # a C int
            init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
            min_points_per_centroid=1, max_points_per_centroid=len(data),
        )  # fmt: skip
        means.train(data, init_centroids=centroids)
        return np.asarray(means.centroids)

    starts = [fit(sample, seed, ward_centroids(sample, k, seed))]
    starts += [fit(sample, seed * 1000 + restart) for restart in range(restarts)]
    objectives = [float(nearest(sample, centroids)[1].mean()) for centroids in starts]
    best = starts[int(np.argmax(objectives))]
    if sample is not vectors:
        best = fit(vectors, seed, best)
    return normalise(best), objectives


def ward_centroids(vectors: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Means (K, D) float32, of unit length, of the K clusters of a Ward tree over at most `TREE` vectors (Ward 1963).

    The tree lowers the same sum of squares as k-means, by merging: it does not start with two centroids in one cluster
    and none in another, which is what keeps k-means++ from the best optimum when K is large.
    """
    from sklearn.cluster import AgglomerativeClustering  # takes two seconds to import

    if len(vectors) > max(TREE, k):
        vectors = vectors[np.random.default_rng([seed, 1]).choice(len(vectors), max(TREE, k), replace=False)]
    member = AgglomerativeClustering(k).fit_predict(vectors) if len(vectors) > k > 1 else np.arange(len(vectors)) % k
    sums = np.zeros((k, vectors.shape[1]), np.float64)
    np.add.at(sums, member, vectors)
    return normalise(sums)


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each vector and their inner product: (n,) int64, (n,) float32. Works in blocks."""
    labels, values = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), 65536):
        block = vectors[start : start + 65536] @ centroids.T
        labels[start : start + 65536] = block.argmax(1)
        values[start : start + 65536] = block.max(1)
    return labels, values


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis, float32."""
    vectors = vectors.astype(np.float32, copy=False)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)


def effective_groups(vectors: np.ndarray) -> float:
    """1 / mean squared cosine of unit vectors of different views: G where they form G orthogonal groups of one size, 1
    where all are alike, D where they have no direction in common (a participation ratio).

    vectors: (view, n, D) float32, unit vectors. Of a single view, all its pairs count.
    """

    def squares(block: np.ndarray) -> float:  # over all pairs of a block, by its (D, D) moments
        return float(np.square(block.T.astype(np.float64) @ block).sum())

    views, n, depth = vectors.shape
    total, pairs = squares(vectors.reshape(-1, depth)), (views * n) ** 2
    if views > 1:
        total, pairs = total - sum(squares(view) for view in vectors), pairs - views * n * n
    return pairs / total if total else float(depth)


def group_counts(vectors: np.ndarray) -> tuple[float, float]:
    """`effective_groups` of unit vectors (view, n, D): of all views together, and of a single view, on average."""
    return effective_groups(vectors), float(np.mean([effective_groups(view[None]) for view in vectors]))


def likely_groups(vectors: np.ndarray) -> float:
    """How many groups to look for in unit vectors (view, n, D): the geometric mean of the two of `group_counts`, which
    does not grow with the number of views (docs/decisions/011)."""
    groups, within = group_counts(vectors)
    return max(1.0, (groups * within) ** 0.5)


class WardTree:
    """A Ward tree over a sample of unit vectors (n, channel) float32 (Ward 1963), for k-means with any K."""

    def __init__(self, vectors: np.ndarray, most: int, seed: int) -> None:
        from scipy.cluster.hierarchy import linkage

        self.vectors = np.ascontiguousarray(vectors)
        self.sample = vectors
        if len(vectors) > most:
            self.sample = vectors[np.sort(np.random.default_rng([seed, 1]).choice(len(vectors), most, replace=False))]
        self.tree = linkage(self.sample, "ward") if len(self.sample) > 1 else None

    def kmeans(self, k: int) -> np.ndarray:
        """(K, channel) float32 centroids of cosine k-means on all vectors, started from the tree cut at K."""
        import faiss
        from scipy.cluster.hierarchy import fcluster

        members = np.zeros(len(self.sample), int) if self.tree is None else fcluster(self.tree, k, "maxclust") - 1
        sums = np.zeros((members.max() + 1, self.sample.shape[1]), np.float64)
        np.add.at(sums, members, self.sample)
        means = faiss.Kmeans(
            self.vectors.shape[1], len(sums), niter=15, spherical=True,
            min_points_per_centroid=1, max_points_per_centroid=len(self.vectors),
        )  # fmt: skip
        means.train(self.vectors, init_centroids=normalise(sums))
        return normalise(np.asarray(means.centroids))
