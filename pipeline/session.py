"""From a config to artifacts: which nodes it means, what would run, and running it.

The same `Session.ensure` serves Python, the command line and the Prefect flows.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Node, Outcome, Progress, Stage, ensure, silent, why
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.executors import Executor, open_executor
from pipeline.core.params import hashed, resolve, settings
from pipeline.core.runs import open_run
from pipeline.core.store import Store, open_store, redact
from pipeline.datasets import folder
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
    """The first reason, in short."""
    changes: list[str]
    """All that differs from the nearest artifact, which `nearest` names."""
    nearest: str | None
    items: int | None
    """Items of the nearest earlier artifact, as a hint of the cost; None where nothing is known."""
    seconds: float | None
    """Seconds that it took."""
    bytes: int | None


def nodes(
    config: PipelineConfig, store: Store, *, progress: Progress = silent, pins: dict[str, str] | None = None
) -> list[Node]:
    """Every artifact that a config means, inputs first. Reads the dataset's content (digests are remembered).

    `pins` name artifacts to take as they are, {stage: fingerprint}: new images through an existing head, say. Stages
    that would lack an input are left out.
    """
    root, layout = config.dataset.root, config.dataset.layout
    pins = pins or {}
    images = folder.scan(root, "images", store, lambda done, total: progress("dataset", done, total, "images"), layout)
    for note in folder.notes(root, layout):
        log.warning("%s", note)
    content = {"dataset": folder.content_digest(images)}
    without: tuple[str, ...] = ()
    if not pins and folder.has_labels(root, layout):
        maps = folder.scan(
            root, "labels", store, lambda done, total: progress("labels", done, total, "label maps"), layout
        )
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


def lacks_k(values: dict[str, Any]) -> bool:
    """Whether params want a number of clusters that the config does not give."""
    return any(lacks_k(v) if isinstance(v, dict) else name == "k" and v is None for name, v in values.items())


def plan(config: PipelineConfig, *, progress: Progress = silent) -> list[PlanRow]:
    """What `run` would do with a config: per stage reuse or run, and why. Writes nothing but the scan cache."""
    store = open_store(config.store)
    store.mark()
    rows = []
    running: set[str] = set()
    for node in nodes(config, store, progress=progress):
        artifact = node.artifact(store)
        if artifact.exists:
            rows.append(_row(node, "reuse", "its manifest is in the store", [], artifact))
            continue
        changes, nearest = why(node, store)
        waits = [role for role in node.inputs if role in running]
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        reason = f"{changes[0]}{more}" if changes else "its manifest was removed"
        if nearest is not None and waits and reason.startswith("input "):
            reason = f"{waits[0]} runs"
        running.add(node.stage.name)
        rows.append(_row(node, "run", reason, changes, nearest))
    return rows


def _row(node: Node, action: str, reason: str, changes: list[str], known: Artifact | None) -> PlanRow:
    facts = known.manifest if known else {}
    cost = (facts.get("items"), facts.get("seconds"), facts.get("bytes"))
    name = known.fingerprint if known else None
    return PlanRow(node.stage.name, node.fingerprint, action, reason, changes, name, *cost)


@dataclass
class Session:
    """A run under way: its nodes, one executor, and the record that was written before the first stage."""

    id: str
    config: PipelineConfig
    store: Store
    nodes: list[Node]
    executor: Executor
    progress: Progress

    def ensure(self, node: Node) -> Outcome:
        """Make one node's artifact exist."""
        return ensure(
            node,
            self.store,
            roots={"dataset": self.config.dataset.root, "labels": self.config.dataset.root},
            # Dask's options may hold a password, and a job goes to every worker.
            execution=self.config.execution.model_copy(update={"dask_address": None, "dask_options": {}}),
            executor=self.executor,
            progress=self.progress,
        )


@contextmanager
def session(
    config: PipelineConfig,
    *,
    stage: str | None = None,
    progress: Progress = silent,
    pins: dict[str, str] | None = None,
    until: str | None = None,
) -> Iterator[Session]:
    """Open a run: plan it, write `runs/<id>.json`, open the executor.

    `stage` names a single stage to run, whose inputs must exist; `until` a stage that is wanted with what it needs.
    """
    store = open_store(config.store)
    store.mark()
    planned = nodes(config, store, progress=progress, pins=pins)
    by_name = {node.stage.name: node for node in planned}
    wanted = planned
    for name in (stage, until):
        if name is not None and name not in by_name:
            known = ", ".join(by_name)
            raise ConfigError(f"--stage {name}: this run has the stages {known}", next=f"--stage {list(by_name)[-1]}")
    if until is not None:
        needed = {until}
        for node in reversed(planned):  # inputs stand before what reads them
            needed |= set(node.inputs) if node.stage.name in needed else set()
        wanted = planned = [node for node in planned if node.stage.name in needed]
    if stage is not None:
        for role, name in by_name[stage].inputs.items():
            if role != "content" and not Artifact(store, role, name).exists:
                raise ConfigError(
                    f"--stage {stage}: its input {role} does not exist yet",
                    next=f"the same command with --stage {role}",
                )
        wanted = [by_name[stage]]
    stages = {**(pins or {}), **{node.stage.name: node.fingerprint for node in planned}}
    run_id = open_run(store, _recorded(config), stages, pinned=sorted(pins or {}))
    with open_executor(config.execution) as executor:
        yield Session(run_id, config, store, wanted, executor, progress)


def _recorded(config: PipelineConfig) -> dict[str, Any]:
    """The config as a run's record keeps it: what a config may set, without whatever may hold a password."""
    data = config.model_dump(mode="json", exclude={"store": True, "execution": {"dask_address", "dask_options"}})
    for stage in STAGES:
        data[stage.name] = settings(getattr(config, stage.name))
    data["dataset"]["root"] = redact(config.dataset.root)
    return data


def run(
    config: PipelineConfig, *, stage: str | None = None, until: str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Run all stages of a config, or one, or those up to one; what exists is reused, what was cut short goes on.

    Returns {"run", "stages": [{"stage", "fingerprint", "status", "seconds", "parts_run", "parts_total",
    "parts_repeated"}], "protocol", "scores", "report"}. Raises ConfigError or StageError; an exception's `stage`
    attribute names the stage that raised it.
    """
    with session(config, stage=stage, until=until, progress=progress) as opened:
        outcomes = []
        for node in opened.nodes:
            try:
                outcomes.append(opened.ensure(node))
            except Exception as error:
                error.stage = node.stage.name  # type: ignore[attr-defined]
                raise
        return summary(opened, outcomes)


def summary(opened: Session, outcomes: list[Outcome]) -> dict[str, Any]:
    """The object that `run --json` prints. StageError where an artifact of the run was deleted while it ran."""
    found = {outcome.stage: Artifact(opened.store, outcome.stage, outcome.fingerprint) for outcome in outcomes}
    for stage, artifact in found.items():
        if not artifact.exists:
            raise StageError(f"{stage} {artifact.fingerprint} was deleted during the run", next="run it again")
    values: dict[str, Any] = dict.fromkeys(scores.METHODS)
    protocol = None
    if "scores" in found:
        content = found["scores"].read_json("scores.json")
        protocol = content["protocol"]
        for method, value in content["scores"].items():
            values[method] = {key: value[key] for key in ("accuracy", "miou")} if value else None
    path = found["report"].path("report.html") if "report" in found else None
    stages = [asdict(outcome) for outcome in outcomes]
    return {"run": opened.id, "stages": stages, "protocol": protocol, "scores": values, "report": path}
