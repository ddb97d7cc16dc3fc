"""Prototypes: several unit vectors to a group, each the nearest of some of its codes. No label is read.

Every cluster of k-means is cut into small pieces, by the detail of codes where they have some; pieces are then grouped
(as they came, or by `pipeline.numerics.regroup`), and each becomes a unit vector by logistic regression.
"""

from __future__ import annotations

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


def split(codes: Codes, centroids: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Of each cluster the unit vectors (piece, E) of its pieces: k-means on the detail of its codes (n, ·).

    The pieces, about `count`, are spread over the clusters by how much their detail varies, two of each at least."""
    label, finer = nearest(codes.compared, centroids)[0], codes.finer()
    own = [finer[label == cluster] for cluster in range(len(centroids))]
    spread = np.array([len(part) - np.linalg.norm(part.sum(0)) ** 2 / max(1, len(part)) for part in own])
    counts = np.rint(count * spread / (spread.sum() or 1)).astype(int).clip(2)
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


def readout(vectors: np.ndarray, piece: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Unit vectors (P, D) float32, of which the nearest to a code is one of its group, and the one of its piece.

    vectors: (n, D) float32, unit vectors; piece: (n,) ints, the piece of each; groups: (P,) ints, the group of each
    piece. Logistic regression without bias from the pieces' means: the cross-entropies of piece and of group, the
    probability of a group being the sum of its pieces'.
    """
    import torch
    from torch.nn import functional as F

    sums = np.zeros((len(groups), vectors.shape[1]), np.float64)
    np.add.at(sums, piece, vectors)
    sums[~sums.any(1)] = sums.sum(0)  # a piece that no vector is in
    weight = torch.from_numpy(normalise(sums)).requires_grad_()
    data, own = torch.from_numpy(vectors), torch.from_numpy(piece)[:, None]
    outside = torch.from_numpy(groups != groups[piece][:, None])
    optimiser = torch.optim.LBFGS([weight], max_iter=60, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = SCALE * data @ F.normalize(weight, dim=1).T
        group = logits.masked_fill(outside, -torch.inf).logsumexp(1)
        found = (2 * logits.logsumexp(1) - group - logits.gather(1, own)[:, 0]).mean()
        found.backward()
        return found

    optimiser.step(loss)
    return normalise(weight.detach().numpy())
