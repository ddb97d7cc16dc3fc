"""Scores of a run against labels, and what the things that are scored are called."""

from dataclasses import dataclass, field

import numpy as np

from pipeline.core.artifact import Artifact

NAMES = {
    "cluster": "clusters",
    "cluster_crf": "clusters + CRF",
    "linear": "linear probe on codes (trained with labels)",
    "linear_tokens": "linear probe on tokens (trained with labels)",
    "baseline": "k-means on tokens (baseline)",
}
"""What is scored, in the order of scores.json, and its name for people."""


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


@dataclass(frozen=True)
class Scores:
    """What was scored, and how; None for a method that the run does not have."""

    protocol: str
    """`full` or `stego`: which pixels count."""
    images: int
    """Labelled images that were scored."""
    classes: tuple[str, ...]
    cluster: Score | None
    cluster_crf: Score | None
    linear: Score | None
    linear_tokens: Score | None
    baseline: Score | None

    @property
    def result(self) -> Score | None:
        """Of the run's label maps: with the CRF where it has one."""
        return self.cluster_crf or self.cluster


def read_scores(artifact: Artifact) -> Scores | None:
    """The scores of a scores artifact; None where no image has a label."""
    found = artifact.read_json("scores.json")
    if not found["images"]:
        return None
    scores = {}
    for name in NAMES:
        value = found["scores"][name]
        scores[name] = value and Score(
            value["accuracy"],
            value["miou"],
            tuple(value["iou"]),
            tuple(found["matching"][name]),
            np.asarray(found["confusion"][name], np.int64),
        )
    return Scores(found["protocol"], found["images"], tuple(found["classes"]), **scores)
