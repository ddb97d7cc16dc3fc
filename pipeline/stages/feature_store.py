"""Reading a features artifact: its Zarr group, its tokens in any order, its centre."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import zarr

from pipeline.core.artifact import Artifact

PART = 32
"""Views per part: one shard of the store, about 20 MB at 26×34 tokens of 384 channels."""


def open_group(artifact: Artifact, mode: Literal["r", "r+", "a"] = "r") -> zarr.Group:
    """The Zarr group of a features artifact."""
    return zarr.open_group(artifact.store.zarr(artifact.data("features.zarr"), read_only=mode == "r"), mode=mode)


def open_array(artifact: Artifact, name: str = "tokens") -> zarr.Array:
    """One array of a features artifact: `tokens`, `mean`, `pooled` or `center`."""
    found = open_group(artifact)[name]
    assert isinstance(found, zarr.Array)
    return found


def read_center(artifact: Artifact, center: str) -> np.ndarray:
    """What is taken off every token first, (channel,) float32: the training mean for `dataset`, zeros for `none`."""
    mean = np.asarray(open_array(artifact, "center")[:])
    return mean if center == "dataset" else np.zeros_like(mean)


def read_views(tokens: zarr.Array, views: np.ndarray) -> np.ndarray:
    """Tokens of the given views in their order, (view, row, column, channel) float16. Neighbouring ones are read at
    once; scattered ones one by one, which is many times faster on a sharded array than one orthogonal selection."""
    out = np.empty((len(views), *tokens.shape[1:]), np.float16)
    order = np.argsort(views, kind="stable")
    for run in _runs(views[order], int(tokens.shards[0]) if tokens.shards else 32):
        first, last = int(views[order[run.start]]), int(views[order[run.stop - 1]])
        block = np.asarray(tokens[first : last + 1])
        out[order[run]] = block[views[order[run]] - first]
    return out


def _runs(views: np.ndarray, longest: int) -> Iterator[slice]:
    start = 0
    for i in range(1, len(views) + 1):
        if i == len(views) or views[i] > views[i - 1] + 1 or views[i] // longest != views[start] // longest:
            yield slice(start, i)
            start = i
