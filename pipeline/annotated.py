"""Label maps of what a person said, from cached tokens: before a run with that annotation is made."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.artifacts.annotation import Annotation, check
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.descriptors import Descriptors
from pipeline.artifacts.images import ByImage, Images
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store
from pipeline.cuts import chosen_rows, predictor, read_map
from pipeline.stages.classes import find_classes


def classes_of(store: Store, record: dict[str, Any], annotation: Annotation) -> Classes:
    """The classes of an annotation, as the stage `classes` makes them. ConfigError where it does not fit the run,
    StageError where it says nothing."""
    clusters = run_artifact(store, record, "clusters")
    images = Images(run_artifact(store, record, "dataset"))
    descriptors = Descriptors(run_artifact(store, record, "features"), run_artifact(store, record, "head"), clusters)
    check(annotation, descriptors.clusters.tree, images, clusters.fingerprint)
    return Classes(*find_classes(annotation, images, descriptors), annotation.names, annotation.colors)


def class_maps(
    store: Store, record: dict[str, Any], classes: Classes, splits: Sequence[str] = ()
) -> ByImage[np.ndarray]:
    """The label map of each image of some splits, by default those that the run's masks have: positions in the classes'
    names, (height, width) uint8 or uint16, computed when it is read; the type's largest value where there is no class.
    ConfigError for a split that does not exist."""
    predict, images, masks = predictor(store, record, classes=classes)
    return ByImage(images, chosen_rows(masks, images, splits), lambda row: read_map(predict, images, row))
