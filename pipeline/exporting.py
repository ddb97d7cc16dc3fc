"""What is exported of a run: label maps, what their ids mean, and in which form."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from pipeline.annotated import class_maps, classes_of
from pipeline.artifacts.annotation import Annotation
from pipeline.artifacts.annotation_versions import find, pinned
from pipeline.artifacts.baseline import Baseline, baseline_maps
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.images import ByImage, Images
from pipeline.artifacts.masks import ignore_value, label_maps, mask_dtype
from pipeline.artifacts.scores import read_scores
from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError
from pipeline.core.runs import find_run, run_artifact
from pipeline.core.store import Store, open_existing
from pipeline.cuts import cut_maps
from pipeline.cuts import groups as tree_groups
from pipeline.score_maps import score_maps
from pipeline.writers.folder import check_empty
from pipeline.writers.interface import Legend, Mapped
from pipeline.writing import Exported, Writing, write


class Choices(Writing, total=False):
    """What of a run is exported, and how."""

    splits: Sequence[str]
    """Only these splits; with several, each has a folder of its own."""
    crf: bool | None
    """With the dense CRF or without; None: with it where the run has it."""
    matched: bool
    """Class ids of the Hungarian match instead of cluster ids; unmatched clusters become 255 (65535 beyond 255)."""
    baseline: bool
    """The maps of the baseline, k-means on tokens."""
    annotation: str | None
    """What a person said: a file, `newest` or the number of a version; computed from cached tokens."""
    cut: int | None
    """The tree of clusters cut into so many groups, computed from cached tokens; `splits` may then be any."""
    scores: bool
    """The score of every class too, for formats that have room for it."""


def export(store: str | Path | Store, run: str, out: str | Path, **choices: Unpack[Choices]) -> dict[str, Any]:
    """Write a run's label maps below `out`, each under its image's path below the split, and a legend of them.

    An export that was cut short goes on where it stopped when it is asked for again.

    Args:
        store: Folder or URL.
        run: A run's id, the beginning of one, its name, or `latest`.
        out: A new or empty folder.
        choices: What is exported and how: the fields of `Choices`.

    Returns {"run", "format", "written", "out", "skipped"}: ids of images whose size is unknown have no map. ConfigError
    where what is asked for does not exist.
    """
    opened = open_existing(store)
    record = find_run(opened, run, "masks")
    check_empty(Path(out), choices.get("overwrite", False))
    return {"run": record["run"], **write(chosen(opened, record, **choices), Path(out), **_writing(choices))}


def _writing(choices: Choices) -> Writing:
    return {key: choices[key] for key in Writing.__annotations__ if key in choices}  # type: ignore[literal-required,return-value]


def chosen(store: Store, record: dict[str, Any], **choices: Unpack[Choices]) -> Exported:
    """What `export` writes."""
    splits, cut, scores = choices.get("splits", ()), choices.get("cut"), choices.get("scores", False)
    refined = choices.get("crf") or choices.get("matched") or choices.get("baseline")
    if cut is not None and refined:
        raise ConfigError("a cut has no CRF, no classes and no baseline", next="leave the others out")
    if scores and refined:
        raise ConfigError("--scores: groups without CRF alone have scores", next="leave the others out")
    root = record["config"]["dataset"]["root"]
    if said := choices.get("annotation"):
        if cut is not None or refined or scores:
            raise ConfigError("an annotation has no other cut, CRF, baseline or scores", next="leave the others out")
        clusters = run_artifact(store, record, "clusters")
        annotation = find(pinned(said, clusters), clusters)
        made = annotated(store, record, annotation, classes_of(store, record, annotation), splits)
    elif cut is not None:
        maps = cut_maps(store, record, cut, splits)
        made = Exported(maps, legend_of(store, record, cut), root, record["config"]["dataset"].get("pixel_size"))
    else:
        made = _stored(store, record, False if scores else choices.get("crf"), choices)
        if unknown := [split for split in splits if split not in made.maps.splits]:
            known = ", ".join(made.maps.splits)
            raise ConfigError(f"--split {unknown[0]}: masks exist for {known}", next=f"--split {made.maps.splits[0]}")
        made = replace(made, maps=made.maps.split(*splits)) if splits else made
    return replace(made, scores=score_maps(store, record, cut)) if scores else made


def annotated(
    store: Store, record: dict[str, Any], annotation: Annotation, classes: Classes, splits: Sequence[str]
) -> Exported:
    """The label maps of an annotation's classes, of some splits or those that the run has masks of."""
    colours = np.array([list(bytes.fromhex(color[1:])) for color in classes.colors], np.uint8)
    masks = run_artifact(store, record, "masks")
    provenance = {"run": record["run"], "fingerprint": masks.fingerprint, "annotation": annotation.digest}
    legend = Legend(
        classes.names, ignore_value(len(classes.names)), colours, provenance={**provenance, "of": "classes"}
    )
    dataset = record["config"]["dataset"]
    return Exported(class_maps(store, record, classes, splits), legend, dataset["root"], dataset.get("pixel_size"))


def legend_of(store: Store, record: dict[str, Any], cut: int | None = None) -> Legend:
    """What the ids in a run's label maps mean, or in those of another cut: names, colours, nodes of the tree."""
    masks = run_artifact(store, record, "masks")
    k = masks.manifest["clusters"] if cut is None else cut
    found = clusters_of(masks, k, record["run"])
    named = masks.manifest.get("classes") if cut is None else None
    if named:
        colours = np.array([list(bytes.fromhex(row["color"][1:])) for row in named], np.uint8)
        provenance = {**found.provenance, "annotation": record["stages"].get("classes"), "of": "classes"}
        return Legend([row["name"] for row in named], ignore_value(k), colours, provenance=provenance)
    if not Artifact(store, "clusters", record["stages"]["clusters"]).exists:
        return found
    nodes = [{key: node[key] for key in ("node", "parent")} for node in tree_groups(store, record, k)]
    return replace(found, nodes=nodes)


def clusters_of(masks: Artifact, k: int, run: str) -> Legend:
    """The legend of k groups that have no names."""
    names = [f"group {number}" for number in range(k)]
    provenance = {"run": run, "fingerprint": masks.fingerprint, "annotation": None, "of": f"{k} groups"}
    return Legend(names, ignore_value(k), provenance=provenance)


def _stored(store: Store, record: dict[str, Any], crf: bool | None, choices: Choices) -> Exported:
    """The label maps that a run has, or those of its baseline."""
    masks, images = run_artifact(store, record, "masks"), Images(run_artifact(store, record, "dataset"))
    root, baseline = record["config"]["dataset"]["root"], choices.get("baseline")
    if baseline and crf:
        raise ConfigError("the baseline has no CRF", next="leave one of baseline and crf out")
    maps, legend, method = label_maps(masks, images, crf=crf), legend_of(store, record), "cluster"
    if baseline:
        features = run_artifact(store, record, "features")
        found = Baseline(run_artifact(store, record, "baseline"), features)
        k = found.clusters.k
        maps, legend, method = baseline_maps(found, images, maps.rows), clusters_of(masks, k, record["run"]), "baseline"
    elif crf or (crf is None and masks.manifest["params"]["crf"]):
        method = "cluster_crf"
    legend = replace(legend, provenance={**legend.provenance, "of": method})
    made = Exported(maps, legend, root, record["config"]["dataset"].get("pixel_size"))
    return _matched(store, record, made) if choices.get("matched") else made


def _matched(store: Store, record: dict[str, Any], made: Exported) -> Exported:
    """The same with the classes that a method's clusters were matched to."""
    scores = read_scores(run_artifact(store, record, "scores"))
    score = scores and getattr(scores, made.legend.provenance["of"])
    if not scores or not score:
        raise ConfigError("--matched: this run has no labels to match clusters to", next="leave --matched out")
    names = list(scores.classes)
    nothing = ignore_value(len(names))
    matching = np.asarray(score.matching)
    table = np.full(65536, nothing, mask_dtype(len(names)))
    table[: len(matching)] = np.where(matching < 0, nothing, matching)
    maps = ByImage(made.maps.images, made.maps.rows, lambda row: Mapped(made.maps.read(row), table))
    provenance = {**made.legend.provenance, "of": f"{made.legend.provenance['of']}, matched to classes"}
    return replace(made, maps=maps, legend=Legend(names, nothing, provenance=provenance))  # type: ignore[arg-type]
