"""Scores of a run against labels, and what the things that are scored are called."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipeline.core.artifact import Artifact


class Name(NamedTuple):
    """What people call a method that is scored."""

    name: str
    note: str


NAMES = {
    "annotated": Name("classes", "as a person named groups and points"),
    "annotated_crf": Name("classes + CRF", "the same classes, refined on the pixels"),
    "cluster": Name("groups", "of the head's codes"),
    "cluster_crf": Name("groups + CRF", "the same groups, refined on the pixels"),
    "linear": Name("linear probe on codes", "trained with labels"),
    "linear_tokens": Name("linear probe on tokens", "trained with labels"),
    "baseline": Name("k-means on tokens", "the frozen backbone alone, upsampled bilinearly"),
}
"""What is scored, in the order of scores.json."""
ANNOTATED = ("annotated", "annotated_crf")
"""Those of a run with an annotation alone."""
PROTOCOLS = {
    "full": "every labelled pixel at the image's own size",
    "stego": "the centre 320 × 320 pixels of each image at a shorter side of 320",
}
"""What the protocols of `scores` score."""


@dataclass(frozen=True)
class Score:
    """How one method's label maps agree with the labels."""

    accuracy: float | None
    """Percent of the labelled pixels; None where there are none."""
    miou: float | None
    """Mean intersection over union of the classes, percent."""
    iou: tuple[float | None, ...] = field(repr=False)
    """Per class, percent; None for a class that is neither labelled nor predicted."""
    matching: tuple[int, ...] = field(repr=False)
    """The class of each cluster, −1 for none; of a probe, each class itself."""
    confusion: np.ndarray = field(repr=False, compare=False)
    """int64 (classes, classes + 1): rows are labels, columns matched predictions, the last those without a class."""


class Annotated(NamedTuple):
    """What a person gave to a run that is scored, and how its classes were compared with those of the labels."""

    groups: int
    """Groups that were named."""
    points: int
    held_out: int
    """Predicted images that hold points, and were not scored, by any method."""
    by_name: int
    """Classes that are compared with the label class of the same name; the others by a Hungarian match."""

    def __str__(self) -> str:
        held = f"; {self.held_out} images that hold points were not scored" if self.held_out else ""
        return (
            f"a person named {self.groups} groups and {self.points} points{held}; {self.by_name} classes are compared "
            "by name, the others by a Hungarian match"
        )


@dataclass(frozen=True)
class Scores:
    """What was scored, and how; None for a method that the run does not have."""

    protocol: str
    """`full` or `stego`: which pixels count."""
    images: int
    """Labelled images that were scored."""
    classes: tuple[str, ...]
    annotated: Score | None
    annotated_crf: Score | None
    cluster: Score | None
    cluster_crf: Score | None
    linear: Score | None
    linear_tokens: Score | None
    baseline: Score | None
    annotation: "Annotated | None" = None
    """What a person gave, where the run has an annotation."""

    @property
    def result(self) -> Score | None:
        """Of the run's label maps: with the CRF where it has one."""
        return self.annotated_crf or self.annotated or self.cluster_crf or self.cluster


def read_scores(artifact: Artifact) -> Scores | None:
    """The scores of a scores artifact; None where no image has a label."""
    found = artifact.read_json("scores.json")
    if not found["images"]:
        return None
    scores = {}
    for name in NAMES:
        value = found["scores"].get(name)
        scores[name] = value and Score(
            value["accuracy"],
            value["miou"],
            tuple(value["iou"]),
            tuple(found["matching"][name]),
            np.asarray(found["confusion"][name], np.int64),
        )
    given = Annotated(**found["annotation"]) if "annotation" in found else None
    return Scores(found["protocol"], found["images"], tuple(found["classes"]), **scores, annotation=given)
