"""The flow that runs one stage of a config, whose inputs exist already."""

# No `from __future__ import annotations` here: a served run then fails with "… is not fully defined".
from typing import Any, Literal

from prefect import State, flow

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


@flow(name="stage", persist_result=False)
def stage(
    stage: StageName,
    config: str,
    set: list[str] = [],  # noqa: B006
    store: str | None = None,
) -> dict[str, Any] | State:
    """Run one stage of a config. Its inputs must exist: run the stages before it first.

    Args:
        stage: The stage to run.
        config: Path of a YAML file, relative to the folder that the worker was started in, such as my.yaml.
        set: Changes to the file, as on the command line: "clusters.k=20", "dataset.root=/data/street".
        store: Where artifacts live, instead of the file's `store`: a folder, or a URL such as s3://bucket/prefix.
    """
    from flows.tasks import run_stages  # seconds of imports, which deploying does without

    return run_stages(config, set, store, stage)
