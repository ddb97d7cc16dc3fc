"""What both flows do: one Prefect task per stage, in the flow's process, around the same `ensure` as everywhere else.

Prefect caches nothing here: whether a stage runs is decided by the manifests in the store alone. A stage whose artifact
exists ends in a state named `Reused`. An error that a user can mend ends the run as a sentence, not as a traceback.
"""

import logging
import time
from dataclasses import asdict
from typing import Any
from uuid import UUID

from prefect import State, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.artifacts import publish
from flows.parameters import described
from flows.running import Log, end_with_worker, refuse_more_tries, tag, turn_at
from pipeline.api import finish
from pipeline.config import PipelineConfig, validate
from pipeline.core.artifact import shown
from pipeline.core.engine import Node, Outcome
from pipeline.core.errors import StegoflowError
from pipeline.core.store import open_store, redact
from pipeline.session import Session, session
from pipeline.terminal import render_error

SHOWN_AFTER = 2.0
"""Seconds after which a stage's work gets a progress bar in the UI."""
UPDATED_EVERY = 1.0
"""Seconds between two updates of it, at least."""
LOGGED_EVERY = 10.0
"""Seconds between two log lines, at least."""


def run_stages(config: Any, stage: str | None = None) -> dict[str, Any] | State:
    """Run all stages of a config's data, or one, as tasks of the flow run that this is called in.

    Returns what `stegoflow run --json` prints, or a failed state whose message says what is wrong and what to do next.
    """
    logging.getLogger("prefect.flow_runs").addFilter(_is_news)
    log = get_run_logger()
    end_with_worker(log)
    try:
        refuse_more_tries()
        checked = validate(config)
        store = open_store(checked.store)
        with turn_at(store.shown, log):
            log.info("looking at the images in %s and at what exists in %s", redact(checked.dataset.root), store.shown)
            return _run(checked, stage, log)
    except StegoflowError as error:
        log.error(render_error(error))
        return Failed(message=render_error(error))


def _run(config: PipelineConfig, stage: str | None, log: Log) -> dict[str, Any] | State:
    facts = {"id": str(flow_run.id), "name": str(flow_run.name)}
    with session(config, stage=stage, progress=ProgressBars(), flow_run=facts) as opened:
        log.info("run %s: %d stages", opened.id, len(opened.nodes))
        tag({**described(config.model_dump()), "run": opened.id}, log)
        outcomes = []
        for node in opened.nodes:
            state = ensure(opened, node)
            if not state.is_completed():
                return Failed(message=f"{node.stage.name}: {state.message}")
            outcomes.append(Outcome(**state.result()))
        done = finish(opened, outcomes)
        publish(done)
        return done.summary()


def _is_news(record: logging.LogRecord) -> bool:
    """Not the traceback through Prefect itself with which it logs once more that a flow returned a failed state."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


def ensure(opened: Session, node: Node) -> State[dict[str, Any]]:
    """Make a node's artifact exist as a task run named after its stage: its final state, which holds the outcome."""
    name = node.stage.name

    @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    def run_stage() -> State[dict[str, Any]]:
        # A task without parameters: Prefect would walk through a session, and record it.
        try:
            outcome = opened.ensure(node)
        except StegoflowError as error:
            return Failed(message=render_error(error))
        made = f"artifact {shown(outcome.fingerprint)}"
        if outcome.status == "reused":
            return Completed(name="Reused", message=f"{made} exists", data=asdict(outcome))
        parts = f", {outcome.parts_run} of {outcome.parts_total} parts" if outcome.parts_total else ""
        return Completed(message=f"{made} in {outcome.seconds} s{parts}", data=asdict(outcome))

    return run_stage(return_state=True)  # type: ignore[return-value]  # a returned state is the task run's state


class ProgressBars:
    """The progress callback of a flow run: a progress artifact for whatever takes longer, and a log line at times."""

    def __init__(self) -> None:
        self.bar: tuple[str, str] | None = None
        self.artifact: UUID | None = None
        self.started = self.updated = self.logged = 0.0

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if self.bar != (stage, unit):
            self.bar, self.artifact = (stage, unit), None
            self.started = self.updated = self.logged = now
        if done >= total and self.artifact is None:
            return
        text = f"{stage}: {done:,} of {total:,} {unit}"
        logger = get_run_logger()
        if now - self.logged >= LOGGED_EVERY and done < total:
            self.logged = now
            logger.info(text)
        if now - self.started >= SHOWN_AFTER and (done >= total or now - self.updated >= UPDATED_EVERY):
            self.updated = now
            self._show(100 * done / max(1, total), text, logger)

    def _show(self, percent: float, text: str, logger: Log) -> None:
        try:
            if self.artifact is None:
                self.artifact = create_progress_artifact(percent, description=text)  # type: ignore[assignment]
            else:
                update_progress_artifact(self.artifact, percent, description=text)
        except Exception as error:  # a server that is down for a moment must not end hours of work
            logger.warning("the progress of %s is not shown: %s", text, error)
