"""Reading the feature store of a features artifact: its Zarr group, its tokens in any order, its centre.

Nothing is read blindly: the metadata are held against the digests in the manifest, shards bring their own checksums,
and a row that is NaN although its image could be decoded is a shard that is gone, which Zarr does not tell from NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.engine import Part
from pipeline.core.errors import StoreError
from pipeline.core.pieces import Pieces
from pipeline.numerics.codecs import LOST, restore

if TYPE_CHECKING:
    import zarr

TABLE = "views"
"""The table of views, in pieces of some images each."""
BLOCK = 32
"""Views that are worked on together where tokens are read in order."""
PART_BYTES = 2**24
"""Bytes of a part, one shard of the store: 16 MiB."""
MOST_VIEWS = 512
"""Views of a part, at most."""
TRAINED = 100_000
"""Training views that neighbours, head and clusters are fitted on, at most: of more, a sample."""
PIECES = 512
"""Pieces of the table of views that such a sample is drawn from, at most."""
GROUP = "features.zarr"
STORED = {"fp16": ("tokens",), "int8": ("tokens", "scale", "mean")}
"""The arrays that a codec makes tokens of."""


def arrays(codec: str) -> tuple[str, ...]:
    """Names of the arrays of a group whose tokens are kept by a codec, in the order in which they are made."""
    return tuple(dict.fromkeys((*STORED[codec], "mean", "center")))


def open_group(artifact: Artifact, mode: Literal["r", "r+", "a"] = "r") -> zarr.Group:
    """The Zarr group of a features artifact, unchecked: for the stage that writes it. Format 3 alone: format 2 has a
    codec that unpickles."""
    import zarr

    store = artifact.store.zarr(artifact.data(GROUP), read_only=mode == "r")
    return zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=False)


def metadata_files(codec: str) -> list[str]:
    """Names of the group's metadata, which the manifest records with their digests."""
    return [f"{GROUP}/zarr.json", *(f"{GROUP}/{name}/zarr.json" for name in arrays(codec))]


def open_array(artifact: Artifact, name: str = "tokens") -> zarr.Array[Any]:
    """One array of a finished features artifact, as it is stored (`arrays`). DamageError where its metadata are not
    what was written."""
    import zarr

    for file in (f"{GROUP}/zarr.json", f"{GROUP}/{name}/zarr.json"):
        artifact.read(file)
    found = open_group(artifact)[name]
    assert isinstance(found, zarr.Array)
    return found


def read_center(artifact: Artifact, center: str) -> np.ndarray:
    """What is taken off every token first, (channel,) float32: the training mean for `dataset`, zeros for `none`."""
    array = open_array(artifact, "center")
    with checksums(artifact, "center"):
        mean = np.asarray(array[:])
    if not np.isfinite(mean).all():
        raise artifact.damaged(f"the array center of {artifact.store.path_of(artifact.data(GROUP))} is gone")
    return mean if center == "dataset" else np.zeros_like(mean)


def part_of(views: int, view_bytes: int) -> int:
    """Views per part where there are so many, each of so many bytes: a power of two."""
    fits = 1 << int(np.clip(PART_BYTES // max(1, view_bytes), 1, MOST_VIEWS)).bit_length() - 1
    return min(fits, 1 << (views - 1).bit_length())


def view_pieces(features: Artifact) -> Pieces:
    """The table of views. Its index says of each piece the first of its images (`image`) and how many of its views are
    trained on (`training`)."""
    return Pieces(features, TABLE)


def training_views(features: Artifact, most: int = TRAINED) -> np.ndarray:
    """Rows of the views that neighbours, head and clusters are fitted on, ascending: all training views, or `most` of
    them, the same ones whoever asks. A large sample is drawn evenly from some pieces of the table of views."""
    table = view_pieces(features)
    counts = np.asarray(table.index["training"])
    if counts.sum() <= most:
        return _training(table, range(table.count))
    generator = np.random.default_rng(0)
    chosen = np.flatnonzero(counts)
    if len(chosen) > PIECES:
        chosen = np.sort(generator.choice(chosen, PIECES, replace=False))
    rows = _training(table, chosen.tolist())
    return np.sort(generator.choice(rows, min(most, len(rows)), replace=False))


def _training(table: Pieces, numbers: Iterable[int]) -> np.ndarray:
    found = [np.flatnonzero(np.asarray(table.piece(n)["training"])) + table.starts[n] for n in numbers]
    return np.concatenate([np.empty(0, np.int64), *found])


class Rows:
    """One array of a finished features artifact that has a row per view: `tokens`, `mean` or `scale`."""

    def __init__(self, artifact: Artifact, name: str) -> None:
        self.artifact, self.name = artifact, name
        self.array = open_array(artifact, name)
        self.shape: tuple[int, ...] = self.array.shape
        self.part: int = (self.array.shards or self.array.chunks)[0]

    def read(self, views: np.ndarray) -> np.ndarray:
        """The rows of the given views in their order, (view, …) in the array's dtype. DamageError where a shard is
        damaged or gone.

        Neighbouring views are read at once; scattered ones one by one, which is many times faster on a sharded array
        than one orthogonal selection.
        """
        out = np.empty((len(views), *self.shape[1:]), self.array.dtype)
        order = np.argsort(views, kind="stable")
        for run in _runs(views[order], self.part, self.array.chunks[0]):
            first, last = int(views[order[run.start]]), int(views[order[run.stop - 1]])
            with checksums(self.artifact, _shard(self.name, first // self.part)):
                block = np.asarray(self.array[first : last + 1])
            out[order[run]] = block[views[order[run]] - first]
        lead = out.reshape(len(views), math.prod(self.shape[1:]))[:, 0]
        lost = np.isnan(lead) if out.dtype.kind == "f" else lead == LOST
        _check_missing(self.artifact, self.name, views[lost], self.part)
        return out


class Tokens:
    """The tokens of a finished features artifact, whatever its codec. `shape` is (view, row, column, channel)."""

    dtype = np.dtype(np.float16)

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.codec = str(artifact.manifest["params"]["codec"])
        self.rows = {name: Rows(artifact, name) for name in STORED[self.codec]}
        self.shape = self.rows["tokens"].shape

    def read(self, views: np.ndarray) -> np.ndarray:
        """Tokens of the given views in their order, (view, row, column, channel) float16, NaN where an image could not
        be decoded. DamageError where a shard is damaged or gone."""
        if self.codec == "fp16":
            return self.rows["tokens"].read(views)
        out = np.empty((len(views), *self.shape[1:]), np.float16)
        for start in range(0, len(views), BLOCK):
            some = slice(start, start + BLOCK)
            out[some] = restore(*(self.rows[name].read(views[some]) for name in ("tokens", "scale", "mean")))
        return out

    def __repr__(self) -> str:
        return f"<tokens {' × '.join(map(str, self.shape))} float16 (view, row, column, channel), read when indexed>"

    def __getitem__(self, key: Any) -> np.ndarray:
        """`tokens[view]`, `tokens[3:9, row, column]`, `tokens[:]`: float16, indexed as a NumPy array of this shape is.
        Whole views are read, and no others than the first index names."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        views = np.arange(self.shape[0])[first]
        values = self.read(np.atleast_1d(views))
        return values[0][tuple(rest)] if views.ndim == 0 else values[(slice(None), *rest)]


def _check_missing(artifact: Artifact, name: str, rows: np.ndarray, part: int) -> None:
    """DamageError where one of these rows, which have no values, is not among those that its part has lost."""
    for number in np.unique(rows // part).tolist():
        start, stop = number * part, min((number + 1) * part, artifact.manifest["items"])
        missing = artifact.marker(Part(start, stop).name)["missing"]
        gone = set(rows[rows // part == number].tolist()) - set(missing)
        if gone:
            path = artifact.store.path_of(artifact.data(f"{GROUP}/{_shard(name, number)}"))
            raise artifact.damaged(f"{path} is gone: view {min(gone)} has no values")


def _shard(name: str, number: int) -> str:
    return f"{name}/c/{number}" + "/0" * (3 if name == "tokens" else 1)


@contextmanager
def checksums(artifact: Artifact, shard: str) -> Iterator[None]:
    """A checksum that does not agree becomes a DamageError; what the store itself says stays a StoreError."""
    path = artifact.data(f"{GROUP}/{shard}")
    try:
        with artifact.store.wrap_errors("cannot read", path):
            yield
    except StoreError:
        raise
    except Exception as error:  # zarr's codecs have no common error
        raise artifact.damaged(f"{artifact.store.path_of(path)} is damaged: {error}") from error


def _runs(views: np.ndarray, longest: int, apart: int) -> Iterator[slice]:
    start = 0
    for i in range(1, len(views) + 1):
        if i == len(views) or views[i] > views[i - 1] + apart or views[i] // longest != views[start] // longest:
            yield slice(start, i)
            start = i
