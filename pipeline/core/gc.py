"""Taking things out of a store: `retract` what is damaged, `collect` what no run wants. Neither breaks a running run.

A removal is announced first (removing/<stage>-<fingerprint>.json), then the run records are read once more, then
manifests go, then markers, then data, so that at every moment what is marked as done is there. A run does it the other
way round: it writes its record first and then looks for announcements. Whichever comes second sees the other: either
the collector finds the artifact wanted and leaves it, or the run waits until it is gone and makes it again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, TypeVar

from pipeline.core.artifact import Artifact, record, retracting, shown
from pipeline.core.catalog import downstream, every_artifact, find_artifact
from pipeline.core.errors import ConfigError, DamageError, StageError
from pipeline.core.pieces import files_of_pieces
from pipeline.core.runs import planned
from pipeline.core.store import BULK, Entry, Store

Value = TypeVar("Value")

PATIENCE = 60.0
"""Seconds that a run waits for an announced removal."""


AT_WORK = 600.0
"""Seconds for which a half-written file or an announcement may be of somebody who is at work, whatever the grace."""


class Removal(NamedTuple):
    """What `collect` removed, or would remove."""

    path: str
    why: str
    objects: int
    bytes: int


def wait_for_removal(artifacts: Iterable[Artifact]) -> None:
    """Return when none of the artifacts is being removed. StageError after a minute."""
    deadline = time.monotonic() + PATIENCE
    for artifact in artifacts:
        path = _announcement(artifact)
        while artifact.store.exists(path):
            if time.monotonic() > deadline:
                raise StageError(
                    f"{artifact.stage} {shown(artifact.fingerprint)} is being removed, or that was cut short",
                    next=(retracting(artifact), " ends it; then run again"),
                )
            time.sleep(0.2)


def retract(store: Store, ref: str, *, with_downstream: bool) -> list[Artifact]:
    """Remove an artifact, and what was made from it, so that the next run makes them again; returns what was removed.

    ConfigError where something was made from it and `with_downstream` is not given.
    """
    artifact = find_artifact(store, ref)
    chain = downstream(store, [artifact])
    if len(chain) > 1 and not with_downstream:
        listed = ", ".join(f"{each.stage} {shown(each.fingerprint)}" for each in chain[:-1])
        raise ConfigError(
            f"{artifact.stage} {shown(artifact.fingerprint)} was read by: {listed}",
            next=retracting(artifact),
        )
    remove(chain)
    return chain


def remove(chain: list[Artifact], wanted: Callable[[Artifact], bool] = lambda artifact: False) -> list[Artifact]:
    """Remove artifacts but those that turn out to be `wanted` after the removal was announced: all manifests, then all
    markers, then the rest. Cut short at any point, it can be done again. Returns what was removed."""
    for artifact in chain:
        artifact.store.create(_announcement(artifact), record("removal", {"fingerprint": artifact.fingerprint}))
    gone = [artifact for artifact in chain if not wanted(artifact)]
    for artifact in gone:
        artifact.store.delete(f"{artifact.root}/manifest.json")
    for below in ("/parts", ""):
        for artifact in gone:
            for some in batched(artifact.store.entries(artifact.root + below), BULK):
                artifact.store.delete(*(entry.path for entry in some))
    for artifact in gone:  # behind the announcement: a writer that has just made a folder would fail for want of it
        artifact.store.drop_empty(artifact.root)
    for artifact in chain:
        artifact.store.delete(_announcement(artifact))
    return gone


def collect(
    store: Store,
    grace: float,
    *,
    delete: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
    companions: Mapping[str, int] | None = None,
) -> list[Removal]:
    """Remove (or only list) what no run wants and nothing has touched for `grace` seconds:

    - artifacts that no run planned, finished or not; but of `companions`, {stage: version} that no run plans, those
      whose inputs runs planned;
    - in finished artifacts, objects that neither manifest nor markers name: what a killed or overtaken run wrote;
    - in a local folder, files that a killed writer left half written, and empty folders.

    A damaged run record stops it (DamageError): what that run wanted cannot be known.
    """
    found: list[Removal] = []
    wanted = _wanted(store, companions or {})
    artifacts = list(every_artifact(store))
    for number, artifact in enumerate(artifacts, 1):
        if wanted(artifact):
            strays = [entry for entry in _strays(artifact, store.entries(artifact.root)) if _old(entry, grace)]
            if strays and delete:
                strays = _remove_strays(artifact, strays)
            found += [Removal(entry.path, "named by no record", 1, entry.size) for entry in strays]
            progress(number, len(artifacts))
            continue
        objects = size = 0
        old = True
        for entry in store.entries(artifact.root):
            objects, size, old = objects + 1, size + entry.size, old and _old(entry, grace)
        if old:
            gone = not delete or remove([artifact], lambda a: _wanted(store, companions or {})(a))
            if gone and objects:  # an empty folder is removed and not listed
                found.append(Removal(artifact.root, "planned by no run", objects, size))
        progress(number, len(artifacts))
    for entry in store.leftovers():
        if _old(entry, max(grace, AT_WORK)):
            if delete:
                store.delete_leftover(entry.path)
            found.append(Removal(entry.path, "half written", 1, entry.size))
    for entry in list(store.entries("removing")):
        if _old(entry, max(grace, AT_WORK)):
            if delete:
                store.delete(entry.path)
            found.append(Removal(entry.path, "removal that was cut short", 1, entry.size))
    return found


def _wanted(store: Store, companions: Mapping[str, int]) -> Callable[[Artifact], bool]:
    """Whether a run planned an artifact, or all that a companion was made from."""
    kept = planned(store)

    def wanted(artifact: Artifact) -> bool:
        if (artifact.stage, artifact.fingerprint) in kept or artifact.stage not in companions:
            return (artifact.stage, artifact.fingerprint) in kept
        try:
            spec = artifact.spec
        except (FileNotFoundError, DamageError):
            return False
        return spec["version"] == companions[artifact.stage] and kept.issuperset(spec["inputs"].items())

    return wanted


def _strays(artifact: Artifact, entries: Iterable[Entry]) -> list[Entry]:
    """Objects of a finished artifact that no record names. Zarr groups are left alone: their shards are named by the
    markers' ranges. Of an unfinished artifact nothing is stray yet."""
    try:
        named = {facts["path"] for facts in artifact.manifest["files"].values()}
        named |= {facts["path"] for facts in files_of_pieces(artifact, artifact.manifest["files"])}
        for marker in artifact.each_marker():
            named |= {facts["path"] for facts in marker["files"].values()}
    except (FileNotFoundError, DamageError):
        return []
    kept = {f"{artifact.root}/spec.json", f"{artifact.root}/manifest.json", *(artifact.data(path) for path in named)}
    inside = (
        f"{artifact.root}/parts/",
        *(artifact.data(f"{p.split('.zarr/')[0]}.zarr/") for p in named if ".zarr/" in p),
    )
    return [entry for entry in entries if entry.path not in kept and not entry.path.startswith(inside)]


def _remove_strays(artifact: Artifact, strays: list[Entry]) -> list[Entry]:
    """Delete strays behind an announcement, if the artifact is still finished then: nobody makes it again meanwhile."""
    store = artifact.store
    store.create(_announcement(artifact), record("removal", {"fingerprint": artifact.fingerprint}))
    gone = strays if artifact.exists else []
    store.delete(*(entry.path for entry in gone))
    store.delete(_announcement(artifact))
    return gone


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Consecutive values, `size` at a time."""
    each = iter(values)
    while some := list(islice(each, size)):
        yield some


def _old(entry: Entry, grace: float) -> bool:
    """Whether nothing touched an object for `grace` seconds. What seems to come from the future (a clock that was set
    back) is young."""
    return entry.modified <= time.time() - grace


def _announcement(artifact: Artifact) -> str:
    return f"removing/{artifact.stage}-{artifact.fingerprint}.json"
