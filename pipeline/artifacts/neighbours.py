"""Nearest views of other images, from a neighbours artifact."""

from dataclasses import dataclass

import numpy as np

from pipeline.core.artifact import Artifact


@dataclass(frozen=True)
class Neighbours:
    """For each training view its nearest views of other images, nearest first."""

    view: np.ndarray
    """(n,) int64: rows of the table of views."""
    neighbours: np.ndarray
    """(n, k) int64: rows of the table of views; −1 where there are fewer other images."""
    similarities: np.ndarray
    """(n, k) float32: their cosines; NaN where there is no neighbour."""

    def __repr__(self) -> str:
        return f"<{self.neighbours.shape[1]} neighbours of {len(self.view):,} views>"


def read_neighbours(artifact: Artifact) -> Neighbours:
    """The table of a neighbours artifact as arrays."""
    table = artifact.read_table("neighbours.parquet")
    lengths = np.asarray([len(line) for line in table["neighbours"]])
    there = np.arange(lengths.max(initial=0)) < lengths[:, None]
    neighbours = np.full(there.shape, -1, np.int64)
    similarities = np.full(there.shape, np.nan, np.float32)
    for values, name in ((neighbours, "neighbours"), (similarities, "similarities")):
        values[there] = table[name].combine_chunks().flatten()
    return Neighbours(np.asarray(table["view"]), neighbours, similarities)
