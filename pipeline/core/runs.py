"""Runs and names: the records that say which artifacts are wanted. Whatever no run planned may be collected.

runs/<id>.json is written before a run's first stage and holds every fingerprint that it planned. names/<name>/<n>.json
are numbered and create-only; the highest n is what the name means: a run, or nothing any more.
"""

import logging
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from pipeline.core.artifact import Artifact, read_record, record
from pipeline.core.environment import environment
from pipeline.core.errors import Command, ConfigError, DamageError, NotFoundError
from pipeline.core.store import Store

log = logging.getLogger("stegoflow")

RUN_TIME = "%Y%m%d-%H%M%S"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")


def begin_run(
    store: Store,
    config: dict[str, Any],
    stages: dict[str, str],
    *,
    pinned: list[str] | None = None,
    flow_run: dict[str, str] | None = None,
) -> str:
    """Write the record of a run that is about to start; its id. From here on its artifacts are wanted.

    `pinned` are the stages whose artifacts were given (`segment`); `flow_run` is {"id", "name"} of the one of Prefect's
    that this run is in. Ids sort by time of start, also where the clock was set back in between.
    """
    known = runs(store)
    now = time.strftime(RUN_TIME, time.gmtime())
    if known and known[-1] >= now:
        newest = time.mktime(time.strptime(known[-1][:15], RUN_TIME)) - time.timezone
        now = time.strftime(RUN_TIME, time.gmtime(newest + 1))
    run_id = f"{now}-{secrets.token_hex(2)}"
    content = {"run": run_id, "config": config, "pinned": pinned or [], "stages": stages, "environment": environment()}
    if flow_run:
        content["flow_run"] = flow_run
    if not store.create(f"runs/{run_id}.json", record("run", content)):
        return begin_run(
            store, config, stages, pinned=pinned, flow_run=flow_run
        )  # one in 65536 of the runs in the same second
    return run_id


def runs(store: Store) -> list[str]:
    """Ids of every run in a store, oldest first."""
    return sorted(entry.path.rsplit("/", 1)[-1][: -len(".json")] for entry in store.entries("runs"))


def find_run(store: Store, ref: str, having: str | None = None) -> dict[str, Any]:
    """The record of a run: by its id, the beginning of one, its name, or `latest`: the newest that changed something,
    of those that have finished the stage `having`, where any has.

    A run of `segment` is not `latest`, nor one whose artifacts are all those of an earlier run."""
    return read_run(store, _run_id(store, ref, having))


def read_run(store: Store, run: str) -> dict[str, Any]:
    """The record of a run by its whole id: {"run", "config", "pinned", "stages", "environment"}, and "flow_run" of one
    that Prefect ran. DamageError where it is not what was written, FileNotFoundError where it was forgotten."""
    try:
        return read_record(store, f"runs/{run}.json")
    except DamageError as error:
        way = ("put back the file from a copy, or ", Command("forget", run, store=store.shown))
        raise DamageError(error.message, next=way) from None


def _run_id(store: Store, ref: str, having: str | None = None) -> str:
    known = runs(store)
    if ref in known:
        return ref
    latest = ref == "latest"
    hits = _newest_change(store, known, having) if latest else [run for run in known if run.startswith(ref)]
    if not hits and (named := names(store).get(ref)):
        hits = [named]
    status = Command("status", store=store.shown)
    if not hits:
        raise NotFoundError(f"{ref} is neither a run nor a name of this store ({store.shown})", next=status)
    if len(hits) > 1:
        raise ConfigError(f"{ref} names several runs ({store.shown})", next=status)
    return hits[0]


def _newest_change(store: Store, known: list[str], having: str | None) -> list[str]:
    """Of runs in the order of their start, the last that is no run of `segment` and differs from all before it; of
    those that have finished the stage `having`, where any has."""
    seen: set[frozenset[tuple[str, str]]] = set()
    changed: list[tuple[str, str]] = []
    for run in known:
        try:
            record = read_run(store, run)
        except FileNotFoundError:  # forgotten at this moment
            continue
        except DamageError:
            if run == known[-1]:
                raise
            continue
        stages = frozenset(record["stages"].items())
        if not record["pinned"] and stages not in seen:
            seen.add(stages)
            changed.append((run, record["stages"].get(having or "", "none")))
    there = (run for run, name in reversed(changed) if having and Artifact(store, having, name).exists)
    return [next(there, changed[-1][0])] if changed else []


def run_artifact(store: Store, run: dict[str, Any], stage: str) -> Artifact:
    """A stage's artifact of a run, which must exist."""
    artifact = Artifact(store, stage, run["stages"].get(stage, "none"))
    if not artifact.exists:
        other = _newest_change(store, runs(store), stage)
        has = bool(other) and Artifact(store, stage, read_run(store, other[0])["stages"].get(stage, "none")).exists
        way = f"run {other[0]} has" if has else "run its config again: finished parts are kept"
        raise NotFoundError(f"run {run['run']} has no finished {stage}", next=way)
    return artifact


def planned(store: Store) -> set[tuple[str, str]]:
    """(stage, fingerprint) of every artifact that a run planned."""
    found: set[tuple[str, str]] = set()
    for run in runs(store):
        try:
            found |= set(read_run(store, run)["stages"].items())
        except FileNotFoundError:  # forgotten at this moment
            continue
    return found


def names(store: Store) -> dict[str, str]:
    """{name: run} of every name that means a run; a damaged record of a name is warned of and left out."""
    found = {}
    for name in store.folders("names"):
        last = max(_numbers(store, name), default=0)
        try:
            run = read_record(store, f"names/{name}/{last}.json")["run"] if last else None
        except DamageError as error:
            log.warning("%s", error.message)
            continue
        if run:
            found[name] = run
    return found


def name_run(store: Store, ref: str, name: str) -> dict[str, Any]:
    """Let a name mean a run from now on: {"name", "run"}."""
    if not NAME.fullmatch(name) or name == "latest":
        raise ConfigError(
            f"{name}: a name begins with a letter and holds letters, digits, dots, - and _ (100 at most; not `latest`)",
            next=Command("name", ref, "NAME"),
        )
    run = _run_id(store, ref)
    _rename(store, name, run)
    return {"name": name, "run": run}


def forget(store: Store, ref: str) -> dict[str, Any]:
    """Take a name, or the record of a run, out of the store: {"forgot", "kind"}. What only it wanted can then be
    collected. A run that has a name is kept until the name means another one."""
    if ref in names(store):
        _rename(store, ref, None)
        return {"forgot": ref, "kind": "name"}
    if ref == "latest":
        raise ConfigError(
            "forget: `latest` may mean another run by now", next=(Command("status"), ", then give its id")
        )
    run = _run_id(store, ref)
    holders = [name for name, held in names(store).items() if held == run]
    if holders:
        raise ConfigError(
            f"run {run} is named {', '.join(holders)}", next=Command("forget", holders[0], store=store.shown)
        )
    store.delete(f"runs/{run}.json")
    return {"forgot": run, "kind": "run"}


def _numbers(store: Store, name: str) -> Iterator[int]:
    return (int(entry.path.rsplit("/", 1)[-1][: -len(".json")]) for entry in store.entries(f"names/{name}"))


def _rename(store: Store, name: str, run: str | None) -> None:
    while True:  # somebody else may take the next number first
        number = max(_numbers(store, name), default=0) + 1
        if store.create(f"names/{name}/{number}.json", record("name", {"name": name, "run": run})):
            return
