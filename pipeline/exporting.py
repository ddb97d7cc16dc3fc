"""Label maps as files: palette PNGs below a folder, and a legend beside them."""

import io
import json
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipeline.artifacts.baseline import Baseline, baseline_maps
from pipeline.artifacts.images import ByImage, Images
from pipeline.artifacts.labels import stem
from pipeline.artifacts.masks import ignore_value, label_maps, mask_dtype
from pipeline.artifacts.scores import read_scores
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Progress
from pipeline.core.errors import ConfigError
from pipeline.core.runs import find_run, run_artifact
from pipeline.core.store import Store, open_existing
from pipeline.cuts import cut_maps
from pipeline.cuts import groups as tree_groups
from pipeline.numerics.palette import palette
from pipeline.progress import watched


class Groups(NamedTuple):
    """What the numbers of label maps mean."""

    names: list[str]
    nothing: int
    """The number of pixels that have no group."""
    of_cluster: np.ndarray | None = None
    """Where clusters become classes: the number to write for each cluster id."""
    nodes: list[dict[str, Any]] | None = None
    """Where the tree of clusters was cut: the `node` of each group, and its `parent`."""
    colors: list[str] | None = None
    """`#rrggbb` of each, where a person gave them; else the palette's."""


def export(
    store: str | Path | Store,
    run: str,
    out: str | Path,
    *,
    splits: Sequence[str] = (),
    crf: bool | None = None,
    matched: bool = False,
    baseline: bool = False,
    cut: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a run's label maps below `out` as PNG, each under its image's path below the split.

    Args:
        store: Folder or URL.
        run: A run's id, the beginning of one, its name, or `latest`.
        out: A new or empty folder.
        splits: Only these splits; with several, each has a folder of its own.
        crf: With the dense CRF or without; None: with it where the run has it.
        matched: Class ids of the Hungarian match instead of cluster ids; unmatched clusters become 255
            (65535 beyond 255 classes).
        baseline: The maps of the baseline, k-means on tokens.
        cut: The tree of clusters cut into so many groups, computed from cached tokens; `splits` may then be any.
        overwrite: Write into a folder that is not empty.
        progress: As of `pipeline.run`.

    Returns {"run", "written", "out", "skipped"}: ids of images whose size is unknown have no map. ConfigError where
    what is asked for does not exist.
    """
    opened = open_existing(store)
    record = find_run(opened, run)
    check_empty(Path(out), overwrite)
    if cut is None:
        maps, groups = _stored(opened, record, crf, matched, baseline)
        if unknown := [split for split in splits if split not in maps.splits]:
            known = ", ".join(maps.splits)
            raise ConfigError(f"--split {unknown[0]}: masks exist for {known}", next=f"--split {maps.splits[0]}")
        maps = maps.split(*splits) if splits else maps
    elif crf or matched or baseline:
        raise ConfigError("a cut has no CRF, no classes and no baseline", next="leave the others out")
    else:
        maps = cut_maps(opened, record, cut, splits)
        groups = Groups(_numbered(cut), ignore_value(cut), nodes=tree_groups(opened, record, cut))
    return {"run": record["run"], **write_label_maps(maps, groups, Path(out), progress)}


def _stored(
    store: Store, record: dict[str, Any], crf: bool | None, matched: bool, baseline: bool
) -> tuple[ByImage[np.ndarray], Groups]:
    """The label maps that a run has, or those of its baseline."""
    masks, images = run_artifact(store, record, "masks"), Images(run_artifact(store, record, "dataset"))
    if baseline and crf:
        raise ConfigError("the baseline has no CRF", next="leave one of baseline and crf out")
    maps, method = label_maps(masks, images, crf=crf), "cluster"
    if baseline:
        features = run_artifact(store, record, "features")
        found = Baseline(run_artifact(store, record, "baseline"), features)
        maps, method = baseline_maps(found, images, maps.rows), "baseline"
    elif crf or (crf is None and masks.manifest["params"]["crf"]):
        method = "cluster_crf"
    if method.startswith("cluster") and "classes" in masks.manifest:
        method = method.replace("cluster", "annotated")
    return maps, _classes(store, record, method) if matched else clusters_of(masks)


def check_empty(out: Path, overwrite: bool) -> None:
    """ConfigError where a folder holds something that was not to be overwritten."""
    if not overwrite and out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty", next="name a new folder, or add --overwrite")


def clusters_of(masks: Artifact) -> Groups:
    """The groups of a masks artifact, or the classes that a person named."""
    k, named = masks.manifest["clusters"], masks.manifest.get("classes")
    if named:
        return Groups([row["name"] for row in named], ignore_value(k), colors=[row["color"] for row in named])
    return Groups(_numbered(k), ignore_value(k))


def _numbered(k: int) -> list[str]:
    return [f"group {number}" for number in range(k)]


def _classes(store: Store, record: dict[str, Any], method: str) -> Groups:
    """The classes that a method's clusters were matched to."""
    scores = read_scores(run_artifact(store, record, "scores"))
    score = scores and getattr(scores, method)
    if not scores or not score:
        raise ConfigError("--matched: this run has no labels to match clusters to", next="leave --matched out")
    nothing = ignore_value(len(scores.classes))
    matching = np.asarray(score.matching)
    of_cluster = np.full(65536, nothing, mask_dtype(len(scores.classes)))
    of_cluster[: len(matching)] = np.where(matching < 0, nothing, matching)
    return Groups(list(scores.classes), nothing, of_cluster)


def write_label_maps(maps: ByImage[np.ndarray], groups: Groups, out: Path, progress: Progress | None) -> dict[str, Any]:
    """Write every label map as a PNG: palette indices, or 16-bit grey beyond 255 groups; and the legend of them."""
    k = len(groups.names)
    own = np.asarray([list(bytes.fromhex(color[1:])) for color in groups.colors or ()], np.uint8)
    first = own if groups.colors else palette(k)
    colours = np.concatenate([first, np.zeros((256 - k, 3), np.uint8)]) if k <= 255 else None
    pixels, skipped = np.zeros(65536, np.int64), []
    names = [maps.images.name(row) for row in maps.rows]
    with watched(progress) as shown:
        for done, (row, (split, id), relative) in enumerate(zip(maps.rows, names, _file_names(names), strict=True), 1):
            path = out / split / relative if len(maps.splits) > 1 else out / relative
            if ".." in relative.parts or relative.is_absolute():
                raise ConfigError(f"{id}: not a path below the split", next="rename the image")
            if not path.parent.resolve().is_relative_to(out.resolve()):
                raise ConfigError(f"{path.parent} leads out of {out}", next="give a folder without links in it")
            ids = maps.read(row)
            if ids.size:
                ids = ids if groups.of_cluster is None else groups.of_cluster[ids]
                pixels += np.bincount(ids.ravel(), minlength=len(pixels))
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, _png(ids, colours))
            else:
                skipped.append(id)
            shown("export", done, len(names), "label maps")
    if len(skipped) < len(names):
        shares = pixels / max(1, pixels[:k].sum())
        entries = [
            {"id": number, "name": name, "color": _css(colours, number), "share": round(float(shares[number]), 6)}
            for number, name in enumerate(groups.names)
        ]
        for entry, node in zip(entries, groups.nodes or (), strict=False):
            entry |= {"node": node["node"], "parent": node["parent"]}
        legend = {"groups": entries, "nothing": groups.nothing}
        _write(out / "legend.json", json.dumps(legend, indent=1, ensure_ascii=False).encode())
        _write(out / "legend.html", _html(entries).encode())
    return {"written": len(names) - len(skipped), "out": str(out), "skipped": skipped}


def _png(ids: np.ndarray, colours: np.ndarray | None) -> bytes:
    picture, sink = Image.fromarray(ids), io.BytesIO()
    if colours is not None:
        picture.putpalette(colours.tobytes())
    picture.save(sink, "PNG")
    return sink.getvalue()


def _css(colours: np.ndarray | None, number: int) -> str | None:
    return None if colours is None else "#" + bytes(colours[number]).hex()


def _html(entries: list[dict[str, Any]]) -> str:
    """The legend for people. Names are escaped."""
    rows = "\n".join(
        f'<tr><td style="background:{entry["color"]};width:2em"></td><td>{entry["id"]}</td>'
        f"<td>{escape(entry['name'])}</td><td>{100 * entry['share']:.1f} %</td></tr>"
        for entry in entries
    )
    return f'<!doctype html><meta charset="utf-8"><title>Legend</title>\n<table>\n{rows}\n</table>\n'


def _write(path: Path, data: bytes) -> None:
    """Write a file at once or not at all. A link is replaced; what it names is left alone."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _file_names(names: list[tuple[str, str]]) -> list[PurePosixPath]:
    """Where the label map of each image, (split, id), goes below its split, no two the same: the image's path with the
    suffix .png.

    Where that is also another's, a folder, or longer than a file system allows: the image's whole name and .png
    (a.jpg and a.png beside each other); where that is too, the name cut short and a digest of it.
    """

    def digested(id: str) -> str:
        head, slash, name = id.rpartition("/")
        return f"{head}{slash}{name.encode()[:200].decode(errors='ignore')}-{sha256(id.encode()).hexdigest()[:12]}"

    folders = {(split, str(parent)) for split, id in names for parent in PurePosixPath(id).parents}
    files = [(split, stem(id) + ".png") for split, id in names]
    for other in (str, digested):
        counts = Counter(files)
        taken = [
            counts[file] > 1 or file in folders or len(file[1].rpartition("/")[2].encode()) > 255 for file in files
        ]
        files = [
            (split, other(id) + ".png") if bad else file
            for (split, id), file, bad in zip(names, files, taken, strict=True)
        ]
    return [PurePosixPath(file) for _, file in files]
