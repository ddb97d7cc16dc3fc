"""Any cut of a run's tree: its groups, and label maps from cached tokens. Nothing is trained or clustered again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.artifacts.classes import Classes
from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.descriptors import Descriptors
from pipeline.artifacts.gallery import training_images, typical
from pipeline.artifacts.images import ByImage, Images, Ranges
from pipeline.artifacts.mask_tiles import Rectangle, Tiled, grid, predicted_rows, tile_at
from pipeline.artifacts.masks import mask_dtype
from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store
from pipeline.images.pixels import DecodeError
from pipeline.numerics.tree import parents, shares
from pipeline.stages.masks import MasksParams, Predictor


def groups(store: Store, record: dict[str, Any], n: int | None = None) -> list[dict[str, Any]]:
    """The groups of a run's cut into n, K by default, in the order of their values in label maps.

    `node` is one of the tree, stable for the artifact; `share` of the training tokens that were sampled, 0..1;
    `parent` the node that it becomes part of, None for the whole.
    """
    found = read_clusters(run_artifact(store, record, "clusters"))
    share, above = shares(found.tree), parents(found.tree)
    return [
        {"node": node, "share": float(share[node]), "parent": int(above[node]) if above[node] >= 0 else None}
        for node in found.cut(n).nodes.tolist()
    ]


def examples(store: Store, record: dict[str, Any], n: int | None = None, most: int = 4) -> list[dict[str, Any]]:
    """`groups` with what they look like: [{"id" (the node), "share", "parent", "examples"}…], in the same order.

    `examples` are the patches most like each group, `most` of them at most and one of an image: {"split", "image", "y",
    "x"}, the pixel in the middle of the patch.
    """
    inputs = {stage: run_artifact(store, record, stage) for stage in ("dataset", "features", "head", "clusters")}
    images = Images(inputs.pop("dataset"))
    descriptors = Descriptors(**inputs, device="auto")

    def place(row: int, y: float, x: float) -> dict[str, Any]:
        (split, id), (height, width) = images.name(row), images.size(row)
        return {"split": split, "image": id, "y": int(y * height), "x": int(x * width)}

    found = typical(descriptors, training_images(descriptors), descriptors.clusters.cut(n), most)
    return [
        {"id": group.pop("node"), **group, "examples": [place(*at) for at in best]}
        for group, best in zip(groups(store, record, n), found, strict=True)
    ]


def cut_maps(store: Store, record: dict[str, Any], n: int, splits: Sequence[str] = ()) -> ByImage[np.ndarray]:
    """The label map of each image of some splits, by default those that the run's masks have, under the cut into n
    groups: (height, width) uint8 or uint16, computed when it is read, upsampled as the run's masks without CRF are.

    A pixel's value is its group's position in `groups`; the type's largest value marks an image that could not be
    decoded; one whose size is not known either has (0, 0). ConfigError for a split that does not exist and for an n
    that the tree does not have.
    """
    predict, images, masks = predictor(store, record, n)
    return ByImage(images, chosen_rows(masks, images, splits), lambda row: read_map(predict, images, row))


def predictor(
    store: Store, record: dict[str, Any], n: int | None = None, classes: Classes | None = None
) -> tuple[Predictor, Images, Artifact]:
    """What makes label maps of a run's images without CRF, otherwise as its masks are made: of n groups, K by default,
    or of classes, whatever the run's own masks hold; with its images and its masks."""
    masks = run_artifact(store, record, "masks")
    inputs = {role: Artifact(store, role, name) for role, name in masks.manifest["inputs"].items() if role != "classes"}
    params = MasksParams.model_validate({**masks.manifest["params"], "crf": False})
    predict = Predictor(inputs, record["config"]["dataset"]["root"], params, "auto", n, classes)
    return predict, Images(inputs["dataset"]), masks


def chosen_rows(masks: Artifact, images: Images, splits: Sequence[str]) -> Ranges:
    """The rows of the table of images that are of some splits, by default those that have masks."""
    known = list(images.splits)
    for split in splits:
        if split not in known:
            raise ConfigError(f"--split {split}: there are {', '.join(known)}", next=f"--split {known[0]}")
    if not splits:
        return predicted_rows(masks)
    return Ranges(*(images.splits[split] for split in known if split in splits))


def read_map(predict: Predictor, images: Images, row: int) -> Any:
    """The label map of an image without CRF; (0, 0) where its size is not known. That of a large image is `Tiled`, and
    computed tile by tile."""
    image = images.row(row)
    height, width = image["height"], image["width"]

    def read(kept: Rectangle | None = None) -> np.ndarray | None:
        try:
            return predict(row, image, kept)[0]
        except DecodeError:
            return predict.unknown(image, kept)[0]

    if grid(height, width) != (1, 1):
        return Tiled((height, width), mask_dtype(predict.count), lambda number: read(tile_at(height, width, number)))  # type: ignore[arg-type,return-value]
    mask = read()
    return np.zeros((0, 0), mask_dtype(predict.count)) if mask is None else mask
