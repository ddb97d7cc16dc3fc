"""New images through the head and clusters of an existing run."""

from pathlib import Path
from typing import Any

from pipeline.config import apply, validate
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError
from pipeline.core.runs import find_run, run_artifact
from pipeline.core.store import Store
from pipeline.exporting import write_label_maps
from pipeline.session import session


def segment(
    store: Store, run: str, images: str, out: Path, *, crf: bool = True, progress: Progress = silent
) -> dict[str, Any]:
    """Label maps of new images by the head and clusters of a run. Features and masks are cached like any others."""
    record = find_run(store, run)
    pins = {stage: run_artifact(store, record, stage).fingerprint for stage in ("head", "clusters")}
    # What the record of a store, perhaps someone else's, says about Dask would be imported and called here.
    execution = {name: value for name, value in record["config"]["execution"].items() if not name.startswith("dask_")}
    data = {**record["config"], "execution": execution, "store": store.url}
    data["dataset"] = {"root": images}
    apply(data, f"masks.crf={str(crf).lower()}")
    config = validate(data, f"run {record['run']}")
    trained_on = run_artifact(store, record, "features")
    with session(config, pins=pins, until="masks", progress=progress) as opened:
        planned = {node.stage.name: node for node in opened.nodes}
        weights = planned["features"].params.model_dump()["weights_sha256"]
        if weights != trained_on.manifest["params"]["weights_sha256"]:
            raise ConfigError(
                "the weights found now are not those that the run was made with",
                next=f"put back the weights of features {trained_on.fingerprint[:12]}",
            )
        for node in opened.nodes:
            opened.ensure(node)
    return write_label_maps(planned["masks"].artifact(store), out, split=None, crf=crf, table=None, progress=progress)
