"""New images through the head and clusters of an existing run."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from pipeline.artifacts.images import Images
from pipeline.artifacts.masks import label_maps
from pipeline.core.errors import ConfigError
from pipeline.core.runs import find_run, run_artifact
from pipeline.core.store import Store, local_folder, open_existing
from pipeline.exporting import legend_of
from pipeline.progress import watched
from pipeline.session import ensure_all, recorded_config, session
from pipeline.writers import check
from pipeline.writers.folder import check_empty
from pipeline.writing import Exported, Writing, write


def segment(
    store: str | Path | Store,
    run: str,
    images: str | Path,
    out: str | Path,
    *,
    crf: bool | None = None,
    **writing: Unpack[Writing],
) -> dict[str, Any]:
    """Write label maps of new images below `out`, by the head and clusters of a run. Nothing is trained; features and
    masks are cached like any others.

    Args:
        store: Folder or URL.
        run: A run's id, the beginning of one, its name, or `latest`.
        images: Folder or URL of images.
        out: A new or empty folder.
        crf: With the dense CRF or without; None: as the run has it.
        writing: The fields of `exporting.Writing`: format, overwrite, progress.

    Returns {"run", "format", "written", "out", "skipped"}, as `export` does.
    """
    opened = open_existing(store)
    record = find_run(opened, run, "clusters")
    if format := writing.get("format"):
        check(format)
    check_empty(Path(out), writing.get("overwrite", False))
    place = local_folder(str(images))
    if place is not None and not place.is_dir():
        raise ConfigError(f"{images} is not a folder of images", next="name a folder of images")
    wanted = [stage for stage in ("reading", "head", "clusters", "classes") if stage in record["stages"]]
    pins = {stage: run_artifact(opened, record, stage).fingerprint for stage in wanted}
    trained_on = run_artifact(opened, record, "features")
    views = {**trained_on.manifest["params"]["views"], "size": trained_on.manifest["view"]}
    config = recorded_config(
        opened,
        record,
        dataset={"root": str(images), "layout": "folder"},
        features={"views": views, "max_failed_fraction": 1.0},
        masks={} if crf is None else {"crf": crf},
    )
    with (
        watched(writing.get("progress")) as shown,
        session(config, pins=pins, until="masks", progress=shown) as planned,
    ):
        made = {node.stage.name: node.artifact(opened) for node in planned.nodes}
        weights = next(node for node in planned.nodes if node.stage.name == "features").params.model_dump()
        if weights["weights_sha256"] != trained_on.manifest["params"]["weights_sha256"]:
            raise ConfigError(
                "the weights found now are not those that the run was made with",
                next=f"put back the weights of features {trained_on.fingerprint[:12]}",
            )
        ensure_all(planned)
    masks = made["masks"]
    known = legend_of(opened, record)
    legend = replace(known, provenance={**known.provenance, "fingerprint": masks.fingerprint})
    exported = Exported(label_maps(masks, Images(made["dataset"])), legend, str(images))
    return {"run": record["run"], **write(exported, Path(out), **writing)}
