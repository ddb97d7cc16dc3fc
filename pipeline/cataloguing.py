"""What a person sees of a store: status, and a run or an artifact with its lineage."""

from collections import Counter
from typing import Any

from pipeline.core.artifact import Artifact
from pipeline.core.catalog import every_artifact, find_artifact, status_of
from pipeline.core.errors import DamageError, NotFoundError
from pipeline.core.runs import find_run, read_run, runs
from pipeline.core.runs import names as run_names
from pipeline.core.store import Store
from pipeline.planning import STAGES


def status(store: Store) -> dict[str, Any]:
    """{"store", "runs", "artifacts"}: every run, oldest first, with what it found (`run_facts`), and every artifact
    (finished, unfinished, damaged) with its size in bytes and the number of runs that planned it."""
    order = {stage.name: number for number, stage in enumerate(STAGES)}
    sizes: Counter[tuple[str, ...]] = Counter()
    for entry in store.entries("artifacts"):
        sizes[tuple(entry.path.split("/")[1:3])] += entry.size
    artifacts = []
    for artifact in sorted(every_artifact(store), key=lambda a: (order.get(a.stage, len(order)), a.fingerprint)):
        facts = {"stage": artifact.stage, "fingerprint": artifact.fingerprint, **status_of(artifact)}
        artifacts.append({**facts, "bytes": sizes[artifact.stage, artifact.fingerprint], "runs": 0})
    known = {(row["stage"], row["fingerprint"]): row for row in artifacts}
    named = names_of(store)
    rows = []
    for name in runs(store):
        row: dict[str, Any] = {"run": name, "names": named.get(name, [])}
        rows.append(row)
        try:
            record = read_run(store, name)
        except DamageError:
            row |= {"damaged": True}
            continue
        pairs = [pair for pair in record["stages"].items() if pair in known]
        for pair in pairs:
            known[pair]["runs"] += 1
        finished = {stage: Artifact(store, stage, name) for stage, name in pairs if _finished(known[stage, name])}
        row |= {**run_facts(record, finished), "finished": len(finished), "planned": len(record["stages"])}
    return {"store": store.shown, "runs": rows, "artifacts": artifacts}


def names_of(store: Store) -> dict[str, list[str]]:
    """{run: its names}."""
    named: dict[str, list[str]] = {}
    for name, run in run_names(store).items():
        named.setdefault(run, []).append(name)
    return named


def run_facts(record: dict[str, Any], finished: dict[str, Artifact]) -> dict[str, Any]:
    """What tells a run from others: {"written", "dataset", "head", "k", "said", "miou", "pinned"}. K, what a person
    said ({"groups", "points"} in its annotation) and the mIoU in percent (of the masks with CRF, where there are such)
    are None where the run has not come that far, or has none; without labels there is no mIoU."""
    config = record["config"]
    k, miou, said = config["clusters"]["k"], None, None
    try:
        if "suggestion" in finished:
            k = finished["suggestion"].manifest["k"]
        if "masks" in finished:
            k = finished["masks"].manifest["clusters"]
        if "classes" in finished:
            said = {name: finished["classes"].manifest[name] for name in ("groups", "points")}
        if "scores" in finished:
            miou = product(finished["scores"].read_json("scores.json")["scores"]).get("miou")
    except DamageError:  # `verify` names it
        pass
    return {
        "written": record["written"],
        "dataset": config["dataset"]["root"],
        "head": config["head"]["method"],
        "k": k,
        "said": said,
        "miou": miou,
        "pinned": record["pinned"],
    }


def product(scores: dict[str, dict[str, float] | None]) -> dict[str, float]:
    """Of the scores of all methods those of the masks themselves: with CRF where there are. Empty without labels."""
    names = ("annotated_crf", "annotated", "cluster_crf", "cluster")
    return next((found for name in names if (found := scores.get(name))), {})


def _finished(row: dict[str, Any]) -> bool:
    return row["state"] == "finished"


def show(store: Store, ref: str) -> dict[str, Any]:
    """A run's record with what it found and the state of its stages, or an artifact's manifest with its lineage.

    Of a run: its record, and "annotation" (what a person gave, or None),
    "names", "k", "miou", "scores" (by method, {"accuracy", "miou"} or None), "protocol",
    "report" (a path or URL), "images" (by split), "view" (height and width); "stages" {stage: {"fingerprint", "state",
    "items", "seconds"}}.
    """
    try:
        record = find_run(store, ref)
    except NotFoundError:
        return show_artifact(find_artifact(store, ref))
    stages: dict[str, dict[str, Any]] = {}
    finished: dict[str, Artifact] = {}
    for stage, name in record["stages"].items():
        artifact = Artifact(store, stage, name)
        facts = status_of(artifact)
        stages[stage] = {"fingerprint": name, "state": facts["state"], "items": facts["items"], "seconds": None}
        if facts["state"] == "finished":
            finished[stage] = artifact
            stages[stage]["seconds"] = artifact.manifest["seconds"]
    found: dict[str, Any] = {"images": {}, "view": None, "protocol": None, "scores": {}, "report": None}
    found["annotation"] = None
    if "features" in finished:
        found["view"] = finished["features"].manifest["view"]
    if "dataset" in finished:
        found["images"] = finished["dataset"].manifest["splits"]
    if "scores" in finished:
        content = finished["scores"].read_json("scores.json")
        found |= {"protocol": content["protocol"], "scores": content["scores"]}
        found["annotation"] = content.get("annotation")
    if "report" in finished:
        found["report"] = finished["report"].path("report.html")
    names = names_of(store).get(record["run"], [])
    return {**record, "names": names, **run_facts(record, finished), **found, "stages": stages}


def show_artifact(artifact: Artifact) -> dict[str, Any]:
    """An artifact's manifest (or its spec, where it is unfinished), state, size, path, and lineage."""
    facts = artifact.manifest if artifact.exists else artifact.spec
    size = sum(entry.size for entry in artifact.store.entries(artifact.root))
    more = {"state": "finished" if artifact.exists else "unfinished", "size": size}
    where = {"lineage": _lineage(artifact), "path": artifact.store.path_of(artifact.root)}
    return {**facts, "fingerprint": artifact.fingerprint, **more, **where}


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
