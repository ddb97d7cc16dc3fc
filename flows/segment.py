"""The flow that runs every stage of a config."""

# No `from __future__ import annotations` here: a served run then fails with "… is not fully defined".
from typing import Any

from prefect import State, flow

from flows.parameters import Config, run_name


@flow(name="segment", flow_run_name=run_name, persist_result=False)
def segment(config: Config) -> dict[str, Any] | State:
    """Segment a folder of images: every stage of a config, each reused where its artifact exists.

    A run that was stopped goes on where it stopped when the same config is run again.

    Args:
        config: What `stegoflow config my.yaml` prints. Paths are those of the machine that the worker runs on.
    """
    from flows.tasks import run_stages  # seconds of imports, which deploying does without

    return run_stages(config)
