"""Reading a store back: status, lineage, label maps as files, and new images through an existing run."""

from collections import Counter
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pipeline.artifacts.labels import stem
from pipeline.artifacts.masks import decode_png, read_masks
from pipeline.config import apply, validate
from pipeline.core.artifact import Artifact, read_record
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError, DamageError
from pipeline.core.gc import every_artifact, find_artifact, status_of
from pipeline.core.runs import find_run, run_artifact, runs
from pipeline.core.runs import names as run_names
from pipeline.core.store import Store
from pipeline.session import STAGES, session
from pipeline.stages.head import HeadParams


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
            record = read_record(store, f"runs/{name}.json")
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
    except DamageError:
        raise
    except ConfigError:
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
        if role != "content"
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
    written, skipped = 0, []
    for done, (row, relative) in enumerate(zip(rows, _file_names(rows), strict=True), 1):
        data = row["mask_crf" if crf else "mask"]
        if data is None:
            skipped.append(row["id"])
            continue
        path = out / row["split"] / relative if several else out / relative
        if ".." in relative.parts or relative.is_absolute():
            raise ConfigError(f"{row['id']}: not a path below the split", next="rename the image")
        if not path.parent.resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"{path.parent} leads out of {out}", next="give --out a folder without links in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a link is replaced; what it names is left alone
        if table is None:
            path.write_bytes(data)
        else:
            Image.fromarray(table[decode_png(data)]).save(path)
        written += 1
        progress("export", done, len(rows), "label maps")
    return {"written": written, "out": str(out), "skipped": skipped}


def _file_names(rows: list[dict[str, Any]]) -> list[PurePosixPath]:
    """Where each label map goes below its split, no two the same: the image's path with the suffix .png.

    Where that is also another's, a folder, or longer than a file system allows: the image's whole name and .png
    (a.jpg and a.png beside each other); where that is too, the name cut short and a digest of it.
    """

    def digested(id: str) -> str:
        head, slash, name = id.rpartition("/")
        return f"{head}{slash}{name.encode()[:200].decode(errors='ignore')}-{sha256(id.encode()).hexdigest()[:12]}"

    folders = {(row["split"], str(parent)) for row in rows for parent in PurePosixPath(row["id"]).parents}
    names = [(row["split"], stem(row["id"]) + ".png") for row in rows]
    for other in (str, digested):
        counts = Counter(names)
        taken = [
            counts[name] > 1 or name in folders or len(name[1].rpartition("/")[2].encode()) > 255 for name in names
        ]
        names = [
            (row["split"], other(row["id"]) + ".png") if bad else name
            for row, name, bad in zip(rows, names, taken, strict=True)
        ]
    return [PurePosixPath(name) for _, name in names]


def segment(
    store: Store, run: str, images: str, out: Path, *, crf: bool = True, progress: Progress = silent
) -> dict[str, Any]:
    """Label maps of new images by the head and clusters of a run. Features and masks are cached like any others."""
    record = find_run(store, run)
    pins = {stage: run_artifact(store, record, stage).fingerprint for stage in ("head", "clusters")}
    # What the record of a store, perhaps someone else's, says about Dask would be imported and called here.
    execution = {name: value for name, value in record["config"]["execution"].items() if not name.startswith("dask_")}
    # The head is taken as it is; its settings may be those of an earlier version, in which STEGO's had no section.
    settings = {name: value for name, value in record["config"]["head"].items() if name in HeadParams.model_fields}
    data = {**record["config"], "head": settings, "execution": execution, "store": store.url}
    data["dataset"] = {"root": images}
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
