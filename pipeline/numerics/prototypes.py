"""Prototypes: several unit vectors to a group, each the nearest of some of its codes. No label is read.

Every cluster of k-means is cut into small pieces, by the detail of codes where they have some; pieces are then grouped
(as they came, or by `pipeline.numerics.regroup`). The direction of a group is found by logistic regression, since means
of groups were worse, and each of its pieces becomes a prototype beside it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import cosine_kmeans, nearest, normalise

if TYPE_CHECKING:
    import torch

SAMPLE = 30_000
"""Codes that pieces and prototypes are fitted to, at most."""
SCALE = 20.0
"""Of cosines, in the logistic regression."""
OFFSET = 0.1
"""Length by which a prototype is moved from its group's direction to the mean of its piece."""


def split(codes: Codes, centroids: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Of each cluster the unit vectors (piece, E) of its pieces: k-means on the detail of its codes (n, ·).

    The pieces, about `count`, are spread over the clusters by how much their detail varies, two of each at least."""
    label, finer = nearest(codes.compared, centroids)[0], codes.finer()
    return _cut_up([finer[label == cluster] for cluster in range(len(centroids))], count, 2, seed)


def refine(
    codes: Codes, centroids: np.ndarray, pieces: list[np.ndarray], count: int, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """The same pieces, each cut into smaller ones, about `count` in all; and of each new piece, counted through all
    clusters, the number of the one that it was part of."""
    member, finer = nearest_piece(codes, centroids, pieces), codes.finer()
    sizes = [len(part) for part in pieces]
    parts = _cut_up([finer[member == piece] for piece in range(sum(sizes))], count, 1, seed)
    old = np.concatenate([part for part in pieces if len(part)])
    parts = [part if len(part) else old[piece : piece + 1] for piece, part in enumerate(parts)]
    of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    bounds = np.cumsum([0, *sizes])
    return [np.concatenate([old[:0], *parts[a:b]]) for a, b in pairwise(bounds)], of


def _cut_up(own: list[np.ndarray], count: int, least: int, seed: int) -> list[np.ndarray]:
    """Centroids of k-means in each of some sets of unit vectors, about `count` in all, more where vectors vary more."""
    spread = np.array([len(part) - np.linalg.norm(part.sum(0)) ** 2 / max(1, len(part)) for part in own])
    counts = np.rint(count * spread / (spread.sum() or 1)).astype(int).clip(least)
    return [
        cosine_kmeans(part, min(most, len(part)), restarts=1, iterations=15, seed=seed)[0] if len(part) else part
        for part, most in zip(own, counts, strict=True)
    ]


def nearest_piece(codes: Codes, centroids: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
    """Of each code (n, ·) the number of the nearest piece of its cluster; pieces are counted through all clusters. Of a
    cluster without pieces, the nearest of all."""
    values = np.where([len(part) > 0 for part in pieces], codes.compared @ centroids.T, -np.inf)
    label, finer, first = values.argmax(1), codes.finer(), 0
    found = np.empty(len(label), np.int64)
    for cluster, part in enumerate(pieces):
        here = label == cluster
        if here.any():
            found[here] = first + nearest(finer[here], part)[0]
        first += len(part)
    return found


def fit(vectors: np.ndarray, piece: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Prototypes (P, D) float32, unit vectors, the nearest to a code being one of its group, there its piece's.

    vectors: (n, D) float32, unit vectors; piece: (n,) ints, the piece of each; groups: (P,) ints, the group of each
    piece. A prototype is its group's direction, moved a little to the mean of its piece: so groups are those of their
    directions, and pieces share them out.
    """
    means = normalise(_sums(vectors, piece, len(groups)))  # of a piece without codes: of all
    directions = readout(vectors, groups[piece], int(groups.max()) + 1)
    return normalise(directions[groups] + OFFSET * means)


def readout(vectors: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Unit vectors (K, D) float32 whose nearest is the group of a vector: logistic regression of `groups` (n,) on unit
    `vectors` (n, D) without bias, from the groups' means."""
    import torch
    from torch.nn import functional as F

    start = normalise(_sums(vectors, groups, k))
    weight = torch.from_numpy(start).requires_grad_()
    data, wanted = torch.from_numpy(vectors), torch.from_numpy(groups)
    optimiser = torch.optim.LBFGS([weight], max_iter=60, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        found = F.cross_entropy(SCALE * data @ F.normalize(weight, dim=1).T, wanted)
        found.backward()
        return found

    optimiser.step(loss)
    return normalise(weight.detach().numpy())


def _sums(vectors: np.ndarray, member: np.ndarray, count: int) -> np.ndarray:
    """(count, D) float64: the sum of the vectors of each member; of all, where it has none."""
    sums = np.zeros((count, vectors.shape[1]), np.float64)
    np.add.at(sums, member, vectors)
    sums[~sums.any(1)] = sums.sum(0)
    return sums
