"""Reading everything back: is every byte of a store what was written?"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import zarr

from pipeline.core.artifact import Artifact, read_record
from pipeline.core.errors import DamageError, StoreError
from pipeline.core.executors import Executor
from pipeline.core.fingerprint import fingerprint
from pipeline.core.pieces import INDEX, files_of_pieces
from pipeline.core.store import Store


class Problem(NamedTuple):
    """One thing that is not as it was written."""

    stage: str
    fingerprint: str
    """Both empty for a record that belongs to no artifact."""
    file: str
    """Path inside the store."""
    problem: str


UNIT = 32
"""Markers, files or shards that are read by one worker, one after the other."""


class Unit(NamedTuple):
    """Some of what an artifact consists of, to be read back."""

    artifact: Artifact
    markers: tuple[str, ...] = ()
    """Names of parts; the files that each names are read too."""
    files: tuple[tuple[str, str], ...] = ()
    """(path below data, sha256)."""
    shards: tuple[tuple[str, str, int], ...] = ()
    """(group, array, number of the shard)."""


def check(unit: Unit) -> list[Problem]:
    """What is damaged in a unit."""
    try:
        return [problem for group in (_markers, _files, _shards) for problem in group(unit)]
    except StoreError as error:
        return [Problem(unit.artifact.stage, unit.artifact.fingerprint, unit.artifact.root, str(error))]


def _markers(unit: Unit) -> Iterator[Problem]:
    for name in unit.markers:
        found: list[Problem] = []
        facts = _record(unit.artifact, f"parts/{name}.json", found)
        yield from found
        files = tuple((file["path"], file["sha256"]) for file in facts.get("files", {}).values())
        yield from _files(Unit(unit.artifact, files=files))


def _record(artifact: Artifact, name: str, found: list[Problem]) -> dict[str, Any]:
    """A record, empty where it is damaged, which is `found`, or not there."""
    path = f"{artifact.root}/{name}"
    try:
        return read_record(artifact.store, path)
    except DamageError:
        found.append(Problem(artifact.stage, artifact.fingerprint, path, "not what was written"))
    except FileNotFoundError:
        if name == "spec.json" and artifact.exists:
            found.append(Problem(artifact.stage, artifact.fingerprint, path, "gone"))
    return {}


def _files(unit: Unit) -> Iterator[Problem]:
    artifact = unit.artifact
    for path, sha256 in unit.files:
        try:
            artifact.get({"path": path, "sha256": sha256})
        except DamageError as error:
            text = "gone" if error.message.endswith("is gone") else "not what was written"
            yield Problem(artifact.stage, artifact.fingerprint, artifact.data(path), text)


def _shards(unit: Unit) -> Iterator[Problem]:
    """Shards of a Zarr group: is each there, and do its checksums agree?"""
    artifact, arrays = unit.artifact, dict[str, Any]()
    for group, name, number in unit.shards:
        if name not in arrays:
            arrays[name] = _open(artifact, group)[name]
        array = arrays[name]
        step = (array.shards or array.chunks)[0]
        path = "/".join((artifact.data(group), name, "c", str(number), *["0"] * (array.ndim - 1)))
        if not artifact.store.exists(path):
            yield Problem(artifact.stage, artifact.fingerprint, path, "gone")
            continue
        try:
            array[number * step : (number + 1) * step]
        except Exception as error:  # zarr's codecs have no common error
            text = f"not what was written ({type(error).__name__})"
            yield Problem(artifact.stage, artifact.fingerprint, path, text)


def _open(artifact: Artifact, group: str) -> Any:
    # Format 3 alone: format 2 has a codec that unpickles.
    store = artifact.store.zarr(artifact.data(group), read_only=True)
    return zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)


def _here(units: list[Unit]) -> Iterator[tuple[Unit, list[Problem]]]:
    return ((unit, check(unit)) for unit in units)


def verify_artifact(
    artifact: Artifact, run: Callable[[list[Unit]], Iterable[tuple[Unit, list[Problem]]]] = _here
) -> Iterator[Problem]:
    """What is damaged in an artifact: records, data files and Zarr shards, each read whole. `run` applies `check`.

    An unfinished artifact is held against its markers alone.
    """
    found: list[Problem] = []
    names = sorted(artifact.markers())
    units = [Unit(artifact, markers=tuple(names[at : at + UNIT])) for at in range(0, len(names), UNIT)]
    for name in ("spec.json", "manifest.json"):
        facts = _record(artifact, name, found)
        keys = ("stage", "version", "encoding", "params", "inputs", "roots")
        if "inputs" in facts and fingerprint(**{key: facts[key] for key in keys}) != artifact.fingerprint:
            path = f"{artifact.root}/{name}"
            found.append(Problem(artifact.stage, artifact.fingerprint, path, "the record of another artifact"))
        units += _units(artifact, facts.get("files", {}), found)
    yield from found
    for _, problems in run(units):
        yield from problems


def _units(artifact: Artifact, files: dict[str, dict[str, Any]], found: list[Problem]) -> Iterator[Unit]:
    """What a manifest names. Metadata of groups and indices of tables are read here: they say what there is."""
    plain = [(file["path"], file["sha256"]) for name, file in files.items() if not _leads(name)]
    damaged = set()
    for name in filter(_leads, files):
        problems = check(Unit(artifact, files=((files[name]["path"], files[name]["sha256"]),)))
        found += problems
        damaged |= {name.split("/")[0]} if problems else set()
        if not problems:
            plain += [(piece["path"], piece["sha256"]) for piece in files_of_pieces(artifact, [name])]
    for at in range(0, len(plain), UNIT):
        yield Unit(artifact, files=tuple(plain[at : at + UNIT]))
    for name in files:
        group = name.removesuffix("/zarr.json")
        if name.endswith(".zarr/zarr.json") and name.count("/") == 1 and group not in damaged:
            try:
                arrays = dict(_open(artifact, group).arrays())
            except Exception as error:  # whatever zarr makes of damaged metadata
                text = f"cannot be opened: {type(error).__name__}"
                found.append(Problem(artifact.stage, artifact.fingerprint, artifact.data(name), text))
                continue
            for key, array in sorted(arrays.items()):
                count = ceil(array.shape[0] / (array.shards or array.chunks)[0])
                for at in range(0, count, UNIT):
                    yield Unit(artifact, shards=tuple((group, key, n) for n in range(at, min(at + UNIT, count))))


def _leads(name: str) -> bool:
    return name.endswith((f"/{INDEX}", "/zarr.json"))


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
    store: Store,
    artifacts: list[Artifact],
    progress: Callable[[int, int], None] = lambda done, total: None,
    executor: Executor | None = None,
) -> list[Problem]:
    """Every problem of these artifacts and of the store's other records. Reads all their bytes, on the executor's
    workers where there is one."""
    found = list(verify_records(store))
    for number, artifact in enumerate(artifacts):
        progress(number, len(artifacts))
        try:
            found += verify_artifact(artifact, partial(executor.run, check) if executor else _here)
        except StoreError as error:
            found.append(Problem(artifact.stage, artifact.fingerprint, artifact.root, str(error)))
    progress(len(artifacts), len(artifacts))
    return found
