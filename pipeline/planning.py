"""From a config to the artifacts that it means, and what a run of it would do."""

import json
import logging
from collections.abc import Container
from dataclasses import dataclass

from pipeline.artifacts.annotation_versions import NONE, find, pinned
from pipeline.config import PipelineConfig
from pipeline.core.artifact import Artifact
from pipeline.core.changes import why
from pipeline.core.engine import Node, Progress, Root, Stage, silent
from pipeline.core.errors import ConfigError, render
from pipeline.core.extras import require_all
from pipeline.core.fingerprint import digest
from pipeline.core.params import Params, resolve, suggestions
from pipeline.core.store import Store, open_store
from pipeline.datasets import folder
from pipeline.datasets.scale import configured
from pipeline.forecast import Corpus, cost, survey, unit
from pipeline.images import walking
from pipeline.stages import (
    baseline,
    classes,
    clusters,
    dataset,
    features,
    head,
    labels,
    masks,
    neighbours,
    probe,
    reading,
    report,
    scores,
    suggestion,
)

log = logging.getLogger("stegoflow")


STAGES: tuple[Stage, ...] = tuple(
    module.STAGE
    for module in (
        *(dataset, labels, reading, features, suggestion, neighbours, head),
        *(clusters, classes, probe, baseline, masks, scores, report),
    )
)
"""Every stage, in an order that runs inputs first.

To add one: docs/extending.md."""


@dataclass(frozen=True)
class PlanRow:
    """One stage of a plan."""

    stage: str
    fingerprint: str
    action: str
    """`run` or `reuse`."""
    why: str
    """The first reason, in short; for a corpus that is not there, where the rate is from."""
    changes: list[str]
    """All that differs from the nearest artifact, which `nearest` names."""
    nearest: str | None
    items: int | None
    """Items that the artifact has or will have; None for a stage that the forecast knows nothing of."""
    seconds: float
    """Expected; 0 where the artifact is reused."""
    bytes: int
    """Expected; 0 where the artifact is reused."""
    measured: bool
    """Whether the expectation comes from an artifact of the store, not from rates that are built in."""
    bound: str = ""
    """What `items` is where it is not exact: `at most` (views without content are left out), `about`, or both."""
    unit: str = ""
    """What the items are: images, views, steps …; empty for a stage that the forecast knows nothing of."""


def nodes(
    config: PipelineConfig,
    store: Store,
    *,
    until: str | None = None,
    pins: dict[str, str] | None = None,
    progress: Progress = silent,
    listings: dict[str, folder.Listing] | None = None,
) -> list[Node]:
    """Every artifact that a config means, inputs first. Reads the content of the dataset (digests are remembered).

    `until` names a stage that is wanted with what it reads, and nothing else. `pins` name artifacts to take as they
    are, {stage: fingerprint}: new images through an existing head, say. Left out are stages that lack an input or a
    root, and those that suggest values where the config gives all of them. `listings` gets what was listed, by kind.
    """
    pins = pins or {}
    walking.has_folder(config.dataset.root, "images")  # refuses a root that is no folder, before weights are looked for
    params = {stage.name: resolve(getattr(config, stage.name), config) for stage in STAGES if stage.name not in pins}
    if "reading" in params and not params["reading"].asked:  # type: ignore[attr-defined]
        del params["reading"]
    reads = _reads({name: suggestions(section, config) for name, section in params.items()}, until)
    stages = [
        stage for stage in STAGES if stage.name in reads and (not stage.optional or available(params[stage.name]))
    ]
    found = find_roots(config, store, {_name(root) for stage in stages for root in stage.roots}, progress, listings)
    names = dict(pins)
    made: list[Node] = []
    for stage in stages:
        inputs = {name: names[name] for name in reads[stage.name] if name in names}
        if stage is classes.STAGE and "clusters" in inputs:
            found |= find_annotation(config.classes.annotation, Artifact(store, "clusters", inputs["clusters"]))
        roots = {_name(root): found[_name(root)] for root in stage.roots if _name(root) in found}
        if _complete(stage.inputs, inputs) and _complete(stage.roots, roots):
            made.append(Node(stage, params[stage.name], inputs, roots))
            names[stage.name] = made[-1].fingerprint
    return made


def available(params: Params) -> bool:
    """Whether all packages that the params ask for are installed; warns of the first that is not."""
    try:
        require_all(params.packages())
    except ConfigError as error:
        log.warning("%s: the run goes on without. To have it: %s", error.message, render(error.next))
        return False
    return True


def _reads(suggestible: dict[str, dict[str, bool]], until: str | None) -> dict[str, list[str]]:
    """{stage: the stages that it reads} of the stages that a run makes, as far as its roots go.

    `suggestible` holds every stage that is not pinned, and for each the stages that may suggest one of its values and
    whether that value is missing. A stage that suggests values is made for those that lack one, and is read by them;
    a stage that has it among its inputs, such as the report, reads it where it is made.
    """
    suggesting = {name for found in suggestible.values() for name in found}
    asked = {name for found in suggestible.values() for name, missing in found.items() if missing}
    wanted = {until} if until else set(suggestible) - suggesting
    reads: dict[str, list[str]] = {}
    for stage in reversed(STAGES):
        if stage.name in wanted and stage.name in suggestible:
            inputs = [_name(role) for role in stage.inputs]
            read = [name for name in inputs if name not in suggesting or name in asked]
            reads[stage.name] = read + [name for name, missing in suggestible[stage.name].items() if missing]
            wanted |= set(reads[stage.name])
    return reads


def find_roots(
    config: PipelineConfig,
    store: Store,
    wanted: set[str],
    progress: Progress,
    listings: dict[str, folder.Listing] | None = None,
) -> dict[str, Root]:
    """The roots of a dataset that are wanted and there: `images`, `labels`, and `training_labels`, those label maps
    that belong to the training splits."""
    root, layout = config.dataset.root, config.dataset.layout

    def scan(kind: str, unit: str, look: bool = False) -> folder.Listing:
        found = folder.scan(root, kind, store, lambda done, total: progress("listing", done, total, unit), layout, look)
        if listings is not None:
            listings[kind] = found
        return found

    scaled = bool(config.features.views.scale and config.dataset.pixel_size)
    images = scan("images", "images", scaled)
    for note in images.notes:
        if config.dataset.channels and note.endswith(folder.FIRST_THREE):
            continue
        log.warning("%s", note)
    splits = set(images.splits)
    folder.predicted_splits(splits, config.masks.splits)  # refuses a split that is not there
    found = {"images": Root(root, images.digest())}
    if scaled:
        found |= find_pixel_sizes(config, images)
    if wanted & {"labels", "training_labels"} and folder.has_labels(root, layout):
        maps = scan("labels", "label maps")
        description = folder.read_description(root, layout)
        trained_on = set(folder.training_splits(splits)) & set(maps.splits)
        for name, chosen in (("labels", set(maps.splits)), ("training_labels", trained_on)):
            if chosen:
                found[name] = Root(root, maps.digest(description, chosen))
    return found


def find_pixel_sizes(config: PipelineConfig, images: folder.Listing) -> dict[str, Root]:
    """The root `pixel_sizes`: what `dataset.pixel_size` says of these images, where it says anything. It decides the
    windows of views that have a scale of their own."""
    (said,) = config.dataset.model_dump(mode="json", include={"pixel_size"}).values()
    known = configured(said)
    sizes = [[item.path, size] for items in images.each() for item in items if (size := known(item.path))]
    return {"pixel_sizes": Root(json.dumps(said), digest(sizes))} if sizes else {}


def find_annotation(ref: str, clusters: Artifact) -> dict[str, Root]:
    """The root `annotation`, where a config wants one. It lies in a file, or is a numbered version in the store: which
    one `newest` is, is decided here."""
    if ref == NONE:
        return {}
    ref = pinned(ref, clusters)
    return {"annotation": Root(ref, find(ref, clusters).digest)}


def _complete(roles: tuple[str, ...], found: Container[str]) -> bool:
    """Whether all inputs or roots that a stage must have were found."""
    return all(role in found for role in roles if not role.endswith("?"))


def _name(role: str) -> str:
    """The name of an input or root, written with a `?` where it may be absent."""
    return role.removesuffix("?")


class Plan(list[PlanRow]):
    """The rows of a plan, which a Python session shows as lines."""

    def __repr__(self) -> str:
        lines = [f"{row.stage:<11} {row.action:<5}  {row.seconds or 0:7.0f} s  {row.why}" for row in self]
        return "\n".join(lines)


def plan(config: PipelineConfig, *, views: float | None = None, progress: Progress = silent) -> Plan:
    """What `run` would do with a config: per stage reuse or run, why, and what it is expected to take.

    With `views`, what a run would take on a corpus of so many views of which `dataset.root` is a sample: nothing of it
    exists. Writes nothing but the scan cache.
    """
    store = open_store(config.store)
    store.mark()
    listings: dict[str, folder.Listing] = {}
    made = nodes(config, store, progress=progress, listings=listings)
    corpus: Corpus | None = None
    workers = 1 if config.execution.executor == "serial" else config.execution.worker_count()
    rows = Plan()
    running: set[str] = set()
    for node in made:
        artifact = node.artifact(store)
        exists = artifact.exists
        if exists and views is None:
            facts = artifact.manifest
            have = PlanRow(
                node.stage.name, node.fingerprint, "reuse", "in the store", [], artifact.fingerprint,
                facts.get("items"), 0.0, 0, True, unit=unit(node.stage.name, node.params),
            )  # fmt: skip
            rows.append(have)
            continue
        changes, nearest = ([], artifact) if exists else why(node, store)
        if corpus is None:
            corpus = survey(config, store, listings)
            corpus = corpus if views is None else corpus.scaled(views)
        expected = cost(node.stage.name, node.params, corpus, nearest, changes, workers)
        reason = _reason(node, changes, nearest, running)
        if views is not None:
            reason = "rate of the nearest artifact" if expected.measured else "built-in rate"
        running.add(node.stage.name)
        name = nearest.fingerprint if nearest else None
        bound = corpus.bound if node.stage.name == "features" else ""
        named = unit(node.stage.name, node.params)
        rows.append(PlanRow(node.stage.name, node.fingerprint, "run", reason, changes, name, *expected, bound, named))
    return rows


def _reason(node: Node, changes: list[str], nearest: Artifact | None, running: set[str]) -> str:
    """Why a node must run, in short; `running` are the stages that will have run before it."""
    waits = [role for role in node.inputs if role in running]
    more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    reason = f"{changes[0]}{more}" if changes else "its manifest was removed"
    return f"{waits[0]} runs" if nearest is not None and waits and reason.startswith("input ") else reason
