"""Ten lines of a user who has no backbone: k-means on every pixel's blurred colour and local contrast.

It is what groups are held against, and no part of the pipeline.
"""

from typing import Any

import faiss
import numpy as np
from quality_named import Labelled, Pixels, majority, near_border  # beside this file
from scipy.ndimage import gaussian_filter

from pipeline.images.pixels import DecodeError
from pipeline.numerics.metrics import match, scores
from pipeline.results import Run

BLUR = 0.01
"""Standard deviation of the Gaussian, by the shorter side; of the one that contrast is taken in, twice that."""
SAMPLE = 60_000
"""Training pixels that k-means is fitted to, at most; the same number of each image."""
NAMED = 50
"""Groups of the cut that is named."""


def colours(image: np.ndarray) -> np.ndarray:
    """Blurred red, green and blue of each pixel, and the deviation of its surroundings' grey: (height, width, 4)
    float32 of an image (height, width, 3) uint8."""
    pixels, sigma = image / np.float32(255), BLUR * min(image.shape[:2])
    grey = pixels.mean(-1)
    mean, square = (gaussian_filter(values, 2 * sigma) for values in (grey, grey * grey))
    return np.dstack([gaussian_filter(pixels, (sigma, sigma, 0)), np.sqrt((square - mean * mean).clip(0))])


def kmeans(vectors: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Centroids (n, channel) float32 of vectors (m, channel) float32: the best of five starts."""
    many = {"min_points_per_centroid": 1, "max_points_per_centroid": len(vectors)}
    found = faiss.Kmeans(vectors.shape[1], n, niter=30, nredo=5, seed=seed, **many)
    found.train(np.ascontiguousarray(vectors, np.float32))
    return found.centroids


def groups(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid of each vector: (…,) int64 of (…, channel)."""
    return (vectors @ centroids.T - (centroids**2).sum(1) / 2).argmax(-1)


def worth(run: Run, data: Labelled, seed: int) -> dict[str, Any]:
    """mIoU in percent, on the run's images: `k`, groups as many as classes, one Hungarian match; `named`, 50 groups
    named by the pixels of the training images that name all other groups; `boundary` of the former."""

    def sampled(row: int) -> np.ndarray:
        flat = colours(run.images.read(row)).reshape(-1, 4)
        size = min(len(flat), SAMPLE // len(data.train) + 1)
        return flat[np.random.default_rng([seed, row]).choice(len(flat), size, replace=False)]

    sample = np.concatenate([sampled(row) for row in data.train])
    middle, scale = sample.mean(0), sample.std(0).clip(1e-6)

    def assigned(centroids: np.ndarray) -> Pixels:
        def read(row: int) -> np.ndarray:
            try:
                return groups((colours(run.images.read(row)) - middle) / scale, centroids)
            except DecodeError:
                return np.full(data.images.size(row), -1)

        return read

    k = run.clusters.k
    few, many = (assigned(kmeans((sample - middle) / scale, n, seed)) for n in (k, NAMED))
    counts = data.counts(data.val, few, k)
    matching = match(counts)
    names = majority(data.counts(data.train, many, NAMED)[:-1])
    return {
        "k": scores(counts, matching)["miou"],
        "named": scores(data.counts(data.val, many, NAMED), names)["miou"],
        "boundary": scores(data.counts(data.val, few, k, near_border), matching)["miou"],
    }
