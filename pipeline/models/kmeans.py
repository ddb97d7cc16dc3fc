"""Cosine k-means (FAISS, spherical): K unit vectors, several restarts, the best objective kept."""

import numpy as np


def cosine_kmeans(
    vectors: np.ndarray, k: int, *, restarts: int, iterations: int, seed: int
) -> tuple[np.ndarray, list[float]]:
    """Cluster unit vectors (n, D) float32 by cosine.

    Returns the centroids (K, D) float32, unit vectors, of the restart with the largest objective, and every restart's
    objective: the mean cosine of a vector to its centroid. ValueError where there are fewer vectors than clusters.
    """
    import faiss

    vectors = np.ascontiguousarray(vectors, np.float32)
    if len(vectors) < k:
        raise ValueError(f"{len(vectors)} vectors cannot make {k} clusters")
    best = np.empty((0, vectors.shape[1]), np.float32)
    objectives: list[float] = []
    for restart in range(restarts):
        means = faiss.Kmeans(
            vectors.shape[1], k, niter=iterations, spherical=True, seed=seed * 1000 + restart,
            min_points_per_centroid=1, max_points_per_centroid=len(vectors),
        )  # fmt: skip
        means.train(vectors)
        centroids = np.asarray(means.centroids)
        objectives.append(float(nearest(vectors, centroids)[1].mean()))
        if objectives[-1] == max(objectives):
            best = centroids
    return best / np.linalg.norm(best, axis=1, keepdims=True).clip(1e-12), objectives


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
