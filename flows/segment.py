"""The flow that runs every stage of a config."""

# No `from __future__ import annotations` here: a served run then fails with "… is not fully defined".
from typing import Any

from prefect import State, flow


@flow(name="segment", persist_result=False)
def segment(config: str, set: list[str] = [], store: str | None = None) -> dict[str, Any] | State:  # noqa: B006
    """Segment a folder of images: every stage of a config, each reused where its artifact exists.

    A run that was stopped goes on where it stopped when the same parameters are run again.

    Args:
        config: Path of a YAML file, relative to the folder that the worker was started in, such as my.yaml.
        set: Changes to the file, as on the command line: "clusters.k=20", "dataset.root=/data/street".
        store: Where artifacts live, instead of the file's `store`: a folder, or a URL such as s3://bucket/prefix.
    """
    from flows.tasks import run_stages  # seconds of imports, which deploying does without

    return run_stages(config, set, store)
