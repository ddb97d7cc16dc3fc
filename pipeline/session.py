"""From a config to artifacts: which nodes it means, what would run, and running it.

The same `Session.ensure` serves Python, the command line and the Prefect flows.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pipeline.config import PipelineConfig, validate
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Node, Outcome, Progress, ensure, silent
from pipeline.core.errors import ConfigError
from pipeline.core.executors import Executor, open_executor
from pipeline.core.extras import require_all
from pipeline.core.logs import RUN
from pipeline.core.params import settings
from pipeline.core.runs import begin_run
from pipeline.core.store import Store, open_store, redact
from pipeline.planning import STAGES, nodes

log = logging.getLogger("stegoflow")


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
    flow_run: dict[str, str] | None = None,
) -> Iterator[Session]:
    """Open a run: plan it, write `runs/<id>.json`, open the executor.

    `stage` names a single stage to run, whose inputs must exist; `until` a stage that is wanted with what it needs;
    `flow_run`, {"id", "name"}, is the one of Prefect's that this run is in.
    """
    store = open_store(config.store)
    store.mark()
    planned = nodes(config, store, until=until, pins=pins, progress=progress)
    by_name = {node.stage.name: node for node in planned}
    wanted = planned
    for name in (stage, until):
        if name is not None and name not in by_name:
            known = ", ".join(by_name)
            meant = get_close_matches(name, by_name, 1) or list(by_name)[-1:]
            raise ConfigError(f"--stage {name}: this run has the stages {known}", next=f"--stage {meant[0]}")
    if stage is not None:
        for role, name in by_name[stage].inputs.items():
            if not Artifact(store, role, name).exists:
                raise ConfigError(
                    f"--stage {stage}: its input {role} does not exist yet",
                    next=f"the same command with --stage {role}",
                )
        wanted = [by_name[stage]]
    for node in wanted:
        if not node.artifact(store).exists:
            require_all(node.params.packages())
    stages = {**(pins or {}), **{node.stage.name: node.fingerprint for node in planned}}
    run_id = begin_run(store, _recorded(config, planned), stages, pinned=sorted(pins or {}), flow_run=flow_run)
    RUN.set(run_id)
    log.info("%s in %s", ", ".join(node.stage.name for node in wanted), store.shown)
    with open_executor(config.execution) as executor:
        yield Session(run_id, config, store, wanted, executor, progress)


def _recorded(config: PipelineConfig, planned: list[Node]) -> dict[str, Any]:
    """The config as a run's record keeps it: what a config may set, without whatever may hold a password. An
    annotation that was `newest` is the version that was it when the run was planned."""
    data = config.model_dump(mode="json", exclude={"store": True, "execution": {"dask_address", "dask_options"}})
    for stage in STAGES:
        data[stage.name] = settings(getattr(config, stage.name))
    data["dataset"]["root"] = redact(config.dataset.root)
    for node in planned:
        if "annotation" in node.roots:
            data["classes"]["annotation"] = node.roots["annotation"].location
    return data


def recorded_config(store: Store, record: dict[str, Any], **sections: dict[str, Any]) -> PipelineConfig:
    """The config that a run's record keeps; fields of `sections` are put over it."""
    # What the record of a store, perhaps someone else's, says about Dask would be imported and called.
    execution = {name: value for name, value in record["config"]["execution"].items() if not name.startswith("dask_")}
    data = {**record["config"], "execution": execution, "store": store.url}
    for name, fields in sections.items():
        data[name] = {**data[name], **fields}
    return validate(data, f"run {record['run']}")


def ensure_all(opened: Session) -> list[Outcome]:
    """Make every artifact of a session exist. An exception's `stage` attribute names the stage that raised it."""
    outcomes = []
    for node in opened.nodes:
        try:
            outcomes.append(opened.ensure(node))
        except Exception as error:
            error.stage = node.stage.name  # type: ignore[attr-defined]
            raise
    return outcomes
