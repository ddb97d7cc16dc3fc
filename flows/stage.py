"""The flow that runs one stage of a config, whose inputs exist already."""

# No `from __future__ import annotations` here: a served run then fails with "… is not fully defined".
from typing import Any, Literal

from prefect import State, flow

from flows.parameters import Config, run_name

StageName = Literal[
    "dataset",
    "labels",
    "reading",
    "features",
    "suggestion",
    "neighbours",
    "head",
    "clusters",
    "classes",
    "probe",
    "baseline",
    "masks",
    "scores",
    "report",
]
"""The stages of pipeline.planning.STAGES, spelled out: the UI makes a menu of them."""


@flow(name="stage", flow_run_name=run_name, persist_result=False)
def stage(stage: StageName, config: Config) -> dict[str, Any] | State:
    """Run one stage of a config. Its inputs must exist: run the stages before it first.

    Args:
        stage: The stage to run.
        config: What `stegoflow config my.yaml` prints. Paths are those of the machine that the worker runs on.
    """
    from flows.tasks import run_stages  # seconds of imports, which deploying does without

    return run_stages(config, stage)
