"""Reading everything back: is every byte of a store what was written?"""

from collections.abc import Callable, Iterator
from itertools import chain
from math import ceil
from typing import Any, NamedTuple

import zarr

from pipeline.core.artifact import Artifact, read_record
from pipeline.core.errors import DamageError, StoreError
from pipeline.core.fingerprint import fingerprint
from pipeline.core.pieces import files_of_pieces
from pipeline.core.store import Store


class Problem(NamedTuple):
    """One thing that is not as it was written."""

    stage: str
    fingerprint: str
    """Both empty for a record that belongs to no artifact."""
    file: str
    """Path inside the store."""
    problem: str


def verify_artifact(artifact: Artifact) -> Iterator[Problem]:
    """What is damaged in an artifact: records, data files and Zarr shards, each read whole.

    An unfinished artifact is held against its markers alone.
    """
    store, root = artifact.store, artifact.root

    def problem(path: str, text: str) -> Problem:
        return Problem(artifact.stage, artifact.fingerprint, path, text)

    def check(facts: dict[str, Any]) -> Iterator[Problem]:
        try:
            artifact.get(facts)
        except DamageError as error:
            gone = error.message.endswith("is gone")
            yield problem(artifact.data(facts["path"]), "gone" if gone else "not what was written")

    groups: list[str] = []
    damaged = set()
    for record in chain(("spec.json", "manifest.json"), (f"parts/{part}.json" for part in sorted(artifact.markers()))):
        try:
            facts = read_record(store, f"{root}/{record}")
        except DamageError:
            yield problem(f"{root}/{record}", "not what was written")
            continue
        except FileNotFoundError:
            if record == "spec.json" and artifact.exists:
                yield problem(f"{root}/{record}", "gone")
            continue
        if "inputs" in facts:
            keys = ("stage", "version", "encoding", "params", "inputs", "roots")
            if fingerprint(**{key: facts[key] for key in keys}) != artifact.fingerprint:
                yield problem(f"{root}/{record}", "the record of another artifact")
        for name, file in facts.get("files", {}).items():
            found = list(check(file))
            damaged |= {name.split("/")[0]} if found else set()
            yield from found
            for piece in _pieces(artifact, [name]):
                yield from check(piece)
            if name.endswith(".zarr/zarr.json") and name.count("/") == 1:
                groups.append(name)
    for name in groups:
        if name.split("/")[0] not in damaged:
            for path, text in _verify_group(store, artifact.data(name.removesuffix("/zarr.json"))):
                yield problem(path, text)


def _pieces(artifact: Artifact, names: list[str]) -> Iterator[dict[str, Any]]:
    """The files that the indices of tables in pieces name; of a damaged index none, which is reported by itself."""
    for name in names:
        try:
            yield from files_of_pieces(artifact, [name])
        except DamageError:
            continue


def _verify_group(store: Store, path: str) -> Iterator[tuple[str, str]]:
    """Every shard of every array of a finished Zarr group: is it there, and do its checksums agree?"""
    there = {entry.path for entry in store.entries(path)}
    try:
        # Format 3 alone: format 2 has a codec that unpickles.
        group = zarr.open_group(store.zarr(path, read_only=True), mode="r", zarr_format=3, use_consolidated=False)
        arrays = sorted(group.arrays())
    except Exception as error:  # whatever zarr makes of damaged metadata
        yield f"{path}/zarr.json", f"cannot be opened: {type(error).__name__}"
        return
    for name, array in arrays:
        step = array.shards or array.chunks
        for number in range(ceil(array.shape[0] / step[0])):
            shard = "/".join((path, name, "c", str(number), *["0"] * (array.ndim - 1)))
            if shard not in there:
                yield shard, "gone"
                continue
            try:
                array[number * step[0] : (number + 1) * step[0]]
            except Exception as error:  # zarr's codecs have no common error
                yield shard, f"not what was written ({type(error).__name__})"


def verify_records(store: Store) -> Iterator[Problem]:
    """What is damaged in the records of runs, names, annotations and announced removals."""
    for folder in ("runs", "names", "annotations", "removing"):
        for entry in store.entries(folder):
            try:
                read_record(store, entry.path)
            except DamageError:
                yield Problem("", "", entry.path, "not what was written")
            except FileNotFoundError:  # forgotten at this moment
                continue


def verify(
    store: Store, artifacts: list[Artifact], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Problem]:
    """Every problem of these artifacts and of the store's other records. Reads all their bytes."""
    found = list(verify_records(store))
    for number, artifact in enumerate(artifacts):
        progress(number, len(artifacts))
        try:
            found += verify_artifact(artifact)
        except StoreError as error:
            found.append(Problem(artifact.stage, artifact.fingerprint, artifact.root, str(error)))
    progress(len(artifacts), len(artifacts))
    return found
