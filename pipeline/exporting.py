"""Reading a store back: status, lineage, label maps as files, and new images through an existing run."""

from collections import Counter
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pipeline.artifacts.labels import stem
from pipeline.artifacts.masks import decode_png, read_masks
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError
from pipeline.core.runs import find_run, run_artifact
from pipeline.core.store import Store


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
    return write_label_maps(masks, out, split=split, crf=crf, table=table, progress=progress)


def write_label_maps(
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
