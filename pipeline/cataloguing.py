"""What a person sees of a store: status, and a run or an artifact with its lineage."""

from typing import Any

from pipeline.core.artifact import Artifact
from pipeline.core.catalog import every_artifact, find_artifact, status_of
from pipeline.core.errors import DamageError, NotFoundError
from pipeline.core.runs import find_run, read_run, runs
from pipeline.core.runs import names as run_names
from pipeline.core.store import Store
from pipeline.planning import STAGES


def status(store: Store) -> dict[str, Any]:
    """Every artifact (finished, unfinished, damaged) with its size in bytes and the number of runs that planned it,
    and every run with its names."""
    order = {stage.name: number for number, stage in enumerate(STAGES)}
    planned: dict[tuple[str, str], int] = {}
    rows = []
    named: dict[str, list[str]] = {}
    for name, run in run_names(store).items():
        named.setdefault(run, []).append(name)
    for name in runs(store):
        row: dict[str, Any] = {"run": name, "names": named.get(name, []), "dataset": None, "finished": 0, "planned": 0}
        rows.append(row)
        try:
            record = read_run(store, name)
        except DamageError:
            row["dataset"] = "damaged record"
            continue
        row["dataset"], row["stages"] = record["config"]["dataset"]["root"], record["stages"]
        for pair in record["stages"].items():
            planned[pair] = planned.get(pair, 0) + 1
    artifacts = []
    finished = set()
    for artifact in sorted(every_artifact(store), key=lambda a: (order.get(a.stage, len(order)), a.fingerprint)):
        pair = artifact.stage, artifact.fingerprint
        facts = status_of(artifact)
        if facts["state"] == "finished":
            finished.add(pair)
        size = sum(entry.size for entry in store.entries(artifact.root))
        row = {"stage": artifact.stage, "fingerprint": artifact.fingerprint, **facts}
        artifacts.append({**row, "bytes": size, "runs": planned.get(pair, 0)})
    for row in rows:
        stages = row.pop("stages", {})
        row["finished"], row["planned"] = sum(pair in finished for pair in stages.items()), len(stages)
    return {"store": store.shown, "artifacts": artifacts, "runs": rows}


def show(store: Store, ref: str) -> dict[str, Any]:
    """A run's record with the state of its stages, or an artifact's manifest with its lineage."""
    try:
        record = find_run(store, ref)
    except NotFoundError:
        artifact = find_artifact(store, ref)
    else:
        stages = {
            stage: {"fingerprint": name, "state": status_of(Artifact(store, stage, name))["state"]}
            for stage, name in record["stages"].items()
        }
        return {**record, "stages": stages}
    facts = artifact.manifest if artifact.exists else {**artifact.spec, "state": "unfinished"}
    return {**facts, "lineage": _lineage(artifact), "path": store.path_of(artifact.root)}


def _lineage(artifact: Artifact) -> dict[str, Any]:
    """Inputs of inputs, down to the roots; what is no longer in the store is named, and ends there."""
    try:
        inputs = (artifact.manifest if artifact.exists else artifact.spec)["inputs"]
    except FileNotFoundError:
        return {}
    return {
        role: {"fingerprint": name, "inputs": _lineage(Artifact(artifact.store, role, name))}
        for role, name in inputs.items()
    }
