"""Any cut of a run's tree: its groups, and label maps from cached tokens. Nothing is trained or clustered again."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.artifacts.clusters import read_clusters
from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store
from pipeline.images.pixels import DecodeError
from pipeline.numerics.tree import parents, shares
from pipeline.stages.masks import MasksParams, Predictor


def groups(store: Store, record: dict[str, Any], n: int | None = None) -> list[dict[str, Any]]:
    """The groups of a run's cut into n, K by default, in the order of their values in label maps.

    `id` is a node of the tree, stable for the artifact; `share` of the training tokens that were sampled, 0..1;
    `parent` the node that it becomes part of, None for the whole.
    """
    found = read_clusters(run_artifact(store, record, "clusters"))
    share, above = shares(found.tree), parents(found.tree)
    return [
        {"id": node, "share": float(share[node]), "parent": int(above[node]) if above[node] >= 0 else None}
        for node in found.cut(n).nodes.tolist()
    ]


def label_maps(
    store: Store, record: dict[str, Any], n: int | None = None, splits: Sequence[str] = ()
) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """Images of some splits, by default those that the run's masks have, with their label maps under the cut into n
    groups, upsampled as the run's masks without CRF are: rows of the images table, (height, width) uint8 or uint16.

    A pixel's value is its group's position in `groups`; the type's largest value marks an image that could not be
    decoded, None one whose size is not known either. ConfigError for a split that does not exist and for an n that the
    tree does not have.
    """
    masks = run_artifact(store, record, "masks")
    inputs = {role: Artifact(store, role, name) for role, name in masks.manifest["inputs"].items()}
    params = MasksParams.model_validate({**masks.manifest["params"], "crf": False})
    table = inputs["dataset"].read_table("images.parquet")
    known = table["split"].unique().to_pylist()
    for split in splits:
        if split not in known:
            raise ConfigError(f"--split {split}: there are {', '.join(known)}", next=f"--split {known[0]}")
    chosen = masks.read_json("images.json")
    if splits:
        chosen = np.flatnonzero(np.isin(np.asarray(table["split"].to_pylist()), splits)).tolist()
    predict = Predictor(inputs, record["config"]["dataset"]["root"], params, "auto", n)
    for index, image in zip(chosen, table.take(chosen).to_pylist(), strict=True):
        try:
            mask, _ = predict(index, image)
        except DecodeError:
            mask, _ = predict.unknown(image)
        yield image, mask
