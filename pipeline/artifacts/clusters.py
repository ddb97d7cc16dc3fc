"""Clusters: reading them, and whether there are as many as asked for."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.artifacts.head import TrainedHead
from pipeline.core.artifact import Artifact
from pipeline.numerics.kmeans import nearest, normalise

log = logging.getLogger("stegoflow")


TWINS = 0.95
"""Centroids of a larger cosine are nearly one cluster."""


def look(centroids: np.ndarray, codes: np.ndarray | None = None) -> dict[str, Any]:
    """What tells that there are fewer clusters than asked for: the largest cosine of two centroids, `closest` (None of
    a single one), and the number of clusters without any of the codes, `empty`. Both are warned of."""
    cosines = centroids @ centroids.T
    np.fill_diagonal(cosines, -1)
    found: dict[str, Any] = {"closest": round(float(cosines.max()), 4) if len(centroids) > 1 else None}
    if codes is not None:
        found["empty"] = len(centroids) - len(np.unique(nearest(codes, centroids)[0]))
    if trouble := fewer(found, len(centroids)):
        log.warning("clusters: %s", trouble)
    return found


def fewer(facts: dict[str, Any], k: int) -> str | None:
    """In words, and what to do, where the facts of `look` say that there are fewer than K clusters."""
    if facts.get("empty"):
        return f"{facts['empty']} of {k} clusters are empty; try clusters.k={k - facts['empty']}"
    if (facts.get("closest") or 0) > TWINS:
        return f"two of {k} clusters are nearly one (cosine {facts['closest']:.2f}); try clusters.k={k - 1}"
    return None


def leading(codes: np.ndarray, head: TrainedHead) -> np.ndarray:
    """What k-means compares of unit codes (n, D): unit vectors of their leading channels."""
    return codes if head.method.leading is None else normalise(codes[:, : head.method.leading])


@dataclass(frozen=True)
class Clusters:
    """The clusters of a run."""

    centroids: np.ndarray
    """(K, D) float32 unit vectors in the space of codes."""
    shares: np.ndarray | None
    """(K,) float64: share of each of all mask pixels; None where nothing was scored yet."""

    @property
    def k(self) -> int:
        """How many there are."""
        return len(self.centroids)

    def __repr__(self) -> str:
        return f"<{self.k} clusters>"


def read_clusters(clusters: Artifact, scores: Artifact | None = None) -> Clusters:
    """The clusters of a clusters artifact, with their shares where there is a scores artifact."""
    shares = np.asarray(scores.read_json("scores.json")["cluster_share"]) if scores else None
    return Clusters(clusters.read_tensors("clusters.safetensors")["centroids"], shares)
