"""From a config to the artifacts that it means, and what a run of it would do."""

import logging
from dataclasses import dataclass
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Node, Progress, Stage, silent, why
from pipeline.core.errors import ConfigError
from pipeline.core.extras import require_all
from pipeline.core.params import Params, hashed, resolve
from pipeline.core.store import Store, open_store
from pipeline.datasets import folder
from pipeline.forecast import Corpus, cost, survey
from pipeline.stages import (
    baseline,
    clusters,
    dataset,
    features,
    head,
    labels,
    masks,
    neighbours,
    probe,
    report,
    scores,
    suggestion,
)

log = logging.getLogger("stegoflow")


STAGES: tuple[Stage, ...] = tuple(
    module.STAGE
    for module in (
        *(dataset, labels, features, suggestion, neighbours, head),
        *(clusters, probe, baseline, masks, scores, report),
    )
)
"""Every stage, in an order that runs inputs first."""


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


def nodes(
    config: PipelineConfig, store: Store, *, progress: Progress = silent, pins: dict[str, str] | None = None
) -> list[Node]:
    """Every artifact that a config means, inputs first. Reads the dataset's content (digests are remembered).

    `pins` name artifacts to take as they are, {stage: fingerprint}: new images through an existing head, say. Stages
    that would lack an input are left out.
    """
    root, layout = config.dataset.root, config.dataset.layout
    pins = pins or {}
    images, notes = folder.scan(
        root, "images", store, lambda done, total: progress("listing", done, total, "images"), layout
    )
    for note in notes:
        log.warning("%s", note)
    content = {"dataset": folder.content_digest(images)}
    without: tuple[str, ...] = ()
    if not pins and folder.has_labels(root, layout):
        maps = folder.scan(
            root, "labels", store, lambda done, total: progress("listing", done, total, "label maps"), layout
        ).items
        content["labels"] = folder.content_digest(maps, folder.read_description(root, layout))
        trained_on = folder.training_splits({item.split for item in images})
        without = () if any(item.split in trained_on for item in maps) else ("probe",)
    if pins or config.clusters.k is not None:
        without += ("suggestion",)
    folder.predicted_splits({item.split for item in images}, config.masks.splits)
    found: dict[str, Any] = {
        "features": {
            "weights_sha256": features.weights_digest(config.features.backbone, config.features.weights),
        }
    }
    made: list[Node] = []
    names = dict(pins)
    for stage in STAGES:
        if stage.name in names or stage.name in without or (stage.needs_labels and "labels" not in content):
            continue
        params = resolve(getattr(config, stage.name), config, **found.get(stage.name, {}))
        if stage.optional and not available(params):
            continue
        inputs = {}
        for written in stage.inputs:
            name = written.rstrip("?")
            # A head that needs no K does not wait for one; the report shows it.
            if name == "suggestion" and stage.name != "report" and not lacks_k(hashed(params)):
                continue
            if name == "content":
                if stage.name in content:
                    inputs[name] = content[stage.name]
            elif name in names:
                inputs[name] = names[name]
        if any(not written.endswith("?") and written not in inputs for written in stage.inputs):
            continue
        node = Node(stage, params, inputs)
        made.append(node)
        names[stage.name] = node.fingerprint
    return made


def available(params: Params) -> bool:
    """Whether all packages that the params ask for are installed; warns of the first that is not."""
    try:
        require_all(params.packages())
    except ConfigError as error:
        log.warning("%s: the run goes on without. To have it: %s", error.message, error.next)
        return False
    return True


def lacks_k(values: dict[str, Any]) -> bool:
    """Whether params want a number of clusters that the config does not give."""
    return any(lacks_k(v) if isinstance(v, dict) else name == "k" and v is None for name, v in values.items())


def plan(config: PipelineConfig, *, views: float | None = None, progress: Progress = silent) -> list[PlanRow]:
    """What `run` would do with a config: per stage reuse or run, why, and what it is expected to take.

    With `views`, what a run would take on a corpus of so many views of which `dataset.root` is a sample: nothing of it
    exists. Writes nothing but the scan cache.
    """
    store = open_store(config.store)
    store.mark()
    made = nodes(config, store, progress=progress)
    corpus: Corpus | None = None
    workers = 1 if config.execution.executor == "serial" else config.execution.worker_count()
    rows = []
    running: set[str] = set()
    for node in made:
        artifact = node.artifact(store)
        exists = artifact.exists
        if exists and views is None:
            facts = artifact.manifest
            have = PlanRow(
                node.stage.name, node.fingerprint, "reuse", "in the store", [], artifact.fingerprint,
                facts.get("items"), 0.0, 0, True,
            )  # fmt: skip
            rows.append(have)
            continue
        changes, nearest = ([], artifact) if exists else why(node, store)
        if corpus is None:
            corpus = survey(config, store) if views is None else survey(config, store).scaled(views)
        expected = cost(node.stage.name, node.params, corpus, nearest, changes, workers)
        reason = _reason(node, changes, nearest, running)
        if views is not None:
            reason = "rate of the nearest artifact" if expected.measured else "built-in rate"
        running.add(node.stage.name)
        name = nearest.fingerprint if nearest else None
        rows.append(PlanRow(node.stage.name, node.fingerprint, "run", reason, changes, name, *expected))
    return rows


def _reason(node: Node, changes: list[str], nearest: Artifact | None, running: set[str]) -> str:
    """Why a node must run, in short; `running` are the stages that will have run before it."""
    waits = [role for role in node.inputs if role in running]
    more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    reason = f"{changes[0]}{more}" if changes else "its manifest was removed"
    return f"{waits[0]} runs" if nearest is not None and waits and reason.startswith("input ") else reason
