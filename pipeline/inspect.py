"""Reading a store back: status, lineage, label maps as files, and new images through an existing run."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import apply, validate
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError
from pipeline.core.store import Store
from pipeline.run import STAGES, find_run, run_artifact, runs, session
from pipeline.stages.labels import stem
from pipeline.stages.masks import decode_png, read_masks


def status(store: Store) -> dict[str, Any]:
    """Every artifact (finished, or how many parts it has) with its size in bytes, and every run."""
    artifacts = []
    finished = set()
    for stage in STAGES:
        for name in store.folders(f"artifacts/{stage.name}"):
            artifact = Artifact(store, stage.name, name)
            exists = artifact.exists
            if exists:
                finished.add((stage.name, name))
            facts = artifact.manifest if exists else {}
            state = "finished" if exists else f"unfinished, {len(artifact.markers())} parts done"
            size = sum(entry.size for entry in store.entries(artifact.root))
            row = {"stage": stage.name, "fingerprint": name, "state": state, "written": facts.get("written", "–")}
            artifacts.append({**row, "items": facts.get("items", 0), "bytes": size})
    rows = []
    for name in runs(store):
        record = find_run(store, name)
        done = sum((stage, planned) in finished for stage, planned in record["stages"].items())
        dataset = record["config"]["dataset"]["root"]
        rows.append({"run": name, "dataset": dataset, "finished": done, "planned": len(record["stages"])})
    return {"store": store.shown, "artifacts": artifacts, "runs": rows}


def show(store: Store, ref: str) -> dict[str, Any]:
    """A run's record with the state of its stages, or an artifact's manifest with its lineage."""
    found = [
        Artifact(store, stage.name, name)
        for stage in STAGES
        for name in store.folders(f"artifacts/{stage.name}")
        if len(ref) >= 4 and name.startswith(ref)
    ]
    if len(found) > 1:
        names = ", ".join(f"{artifact.stage} {artifact.fingerprint[:16]}" for artifact in found[:5])
        raise ConfigError(f"{ref} names several artifacts: {names}", next="give more characters")
    if not found:
        record = find_run(store, ref)
        stages = {
            stage: {"fingerprint": name, "state": "finished" if Artifact(store, stage, name).exists else "missing"}
            for stage, name in record["stages"].items()
        }
        return {**record, "stages": stages}
    artifact = found[0]
    facts = artifact.manifest if artifact.exists else {**artifact.spec, "state": "unfinished"}
    return {**facts, "lineage": _lineage(artifact), "path": store.path_of(artifact.root)}


def _lineage(artifact: Artifact) -> dict[str, Any]:
    """Inputs of inputs, down to the roots."""
    inputs = (artifact.manifest if artifact.exists else artifact.spec)["inputs"]
    return {
        role: {"fingerprint": name, "inputs": _lineage(Artifact(artifact.store, role, name))}
        for role, name in inputs.items()
        if role != "content" and Artifact(artifact.store, role, name).exists
    }


def export(
    store: Store,
    run: str,
    out: Path,
    *,
    split: str | None = None,
    crf: bool = True,
    matched: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a run's label maps as PNG below `out`; see `stegoflow export --help`."""
    record = find_run(store, run)
    masks = run_artifact(store, record, "masks")
    table = None
    if matched:
        scores = run_artifact(store, record, "scores").read_json("scores.json")
        matching = scores["matching"].get("cluster_crf" if crf else "cluster")
        if matching is None:
            raise ConfigError("--matched: this run has no labels to match clusters to", next="leave --matched out")
        table = np.full(65536, 255, np.uint8 if len(scores["classes"]) <= 255 else np.uint16)
        table[: len(matching)] = np.where(np.asarray(matching) < 0, 255, matching)
    return _write(masks, out, split=split, crf=crf, table=table, progress=progress)


def _write(
    masks: Artifact, out: Path, *, split: str | None, crf: bool, table: np.ndarray | None, progress: Progress
) -> dict[str, Any]:
    if crf and not masks.manifest["params"]["crf"]:
        raise ConfigError("this run was made with masks.crf=false", next="add --no-crf")
    rows = [row for row in read_masks(masks) if split is None or row["split"] == split]
    if not rows:
        known = sorted({row["split"] for row in read_masks(masks)})
        raise ConfigError(f"--split {split}: masks exist for {', '.join(known)}", next=f"--split {known[0]}")
    several = len({row["split"] for row in rows}) > 1
    stems = [(row["split"], stem(row["id"])) for row in rows]
    shared = {name for name in stems if stems.count(name) > 1} if len(set(stems)) < len(stems) else set()
    written, skipped = 0, []
    for done, (row, name) in enumerate(zip(rows, stems, strict=True), 1):
        data = row["mask_crf" if crf else "mask"]
        if data is None:
            skipped.append(row["id"])
            continue
        # a.jpg and a.png beside each other keep their suffixes, so that neither overwrites the other.
        relative = PurePosixPath((row["id"] if name in shared else name[1]) + ".png")
        path = out / row["split"] / relative if several else out / relative
        if ".." in relative.parts or relative.is_absolute():
            raise ConfigError(f"{row['id']}: not a path below the split", next="rename the image")
        path.parent.mkdir(parents=True, exist_ok=True)
        if table is None:
            path.write_bytes(data)
        else:
            Image.fromarray(table[decode_png(data)]).save(path)
        written += 1
        progress("export", done, len(rows), "label maps")
    return {"written": written, "out": str(out), "skipped": skipped}


def segment(
    store: Store, run: str, images: str, out: Path, *, crf: bool = True, progress: Progress = silent
) -> dict[str, Any]:
    """Label maps of new images by the head and clusters of a run. Features and masks are cached like any others."""
    record = find_run(store, run)
    pins = {stage: run_artifact(store, record, stage).fingerprint for stage in ("head", "clusters")}
    data = {**record["config"], "store": store.url, "dataset": {"root": images}}
    apply(data, f"masks.crf={str(crf).lower()}")
    config = validate(data, f"run {record['run']}")
    trained_on = run_artifact(store, record, "features")
    with session(config, pins=pins, until="masks", progress=progress) as opened:
        planned = {node.stage.name: node for node in opened.nodes}
        weights = planned["features"].params.model_dump()["weights_sha256"]
        if weights != trained_on.manifest["params"]["weights_sha256"]:
            raise ConfigError(
                "the weights found now are not those that the run was made with",
                next=f"put back the weights of features {trained_on.fingerprint[:12]}",
            )
        for node in opened.nodes:
            opened.ensure(node)
    return _write(planned["masks"].artifact(store), out, split=None, crf=crf, table=None, progress=progress)
