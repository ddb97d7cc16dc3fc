"""classes: from prototypes, an annotation and cached tokens to a classifier over what a person named.

Artifact: `classes.safetensors` with `vectors` (V, D) float32 and `member` (V,) int64, the class of each, −1 for none: a
code has the class of the vector with the largest product. `annotation.json`: what it was made of. The manifest's
`classes` has a row for each class. Method: `pipeline.numerics.classify`.
"""

import logging
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from pipeline.artifacts.annotation import Annotation, check, naming
from pipeline.artifacts.annotation_versions import NONE, find
from pipeline.artifacts.classes import write_classes
from pipeline.artifacts.descriptors import Descriptors, PointDescriptors
from pipeline.artifacts.images import Images
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import Params, unhashed
from pipeline.numerics.classify import fit

log = logging.getLogger("stegoflow")


class ClassesParams(Params):
    annotation: str = unhashed(NONE)
    """What a person said of groups and patches: a YAML file (`stegoflow annotation RUN` prints one), `newest` or the
    number of a version that was stored for these clusters (`stegoflow annotate`), or `none`. Its content alone counts.
    """

    unnamed: Literal["nothing", "nearest"] = "nothing"
    """Of patches nearest to a group without a name: `nothing`, no class unless points claim them, or the class that is
    nearest."""

    @field_validator("annotation", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return NONE if value is None else str(value) if type(value) is int else value


def compute(job: Job, work: Work) -> dict[str, Any]:
    clusters, images = job.inputs["clusters"], Images(job.inputs["dataset"])
    root = job.roots["annotation"]
    annotation = find(root.location, clusters)
    if annotation.digest != root.digest:
        raise StageError(f"{root.location} has changed since this run was planned", next="run the same command again")
    descriptors = Descriptors(job.inputs["features"], job.inputs["head"], clusters, job.execution.device)
    check(annotation, descriptors.clusters.tree, images, clusters.fingerprint)
    found = find_classes(annotation, images, descriptors, unnamed=job.params.unnamed)
    facts = write_classes(job.out, *found, annotation)
    idle = [row["name"] for row in facts["classes"] if not row["evidence"]]
    if idle:
        log.warning("classes that no group and no point is of win nothing: %s", ", ".join(map(repr, idle)))
    return facts


def find_classes(
    annotation: Annotation, images: Images, descriptors: PointDescriptors, *, unnamed: str = "nothing"
) -> tuple[np.ndarray, np.ndarray]:
    """`vectors` and `member` of a checked annotation. StageError where it says nothing."""
    found = descriptors.clusters
    node = naming(found.tree, annotation.groups)[: len(found.vectors)]
    vectors, points = seen(annotation, images, descriptors)
    number = {name: position for position, name in enumerate(annotation.names)}
    used = (node >= 0) | (unnamed == "nothing")
    vectors, member = fit(
        found.vectors[used],
        np.asarray([-1 if at < 0 else number[annotation.groups[at]] for at in node[used].tolist()], np.int64),
        np.where(node < 0, np.arange(len(node)), node)[used],
        vectors,
        np.asarray([number[point] for point in points], np.int64),
    )
    if not (member >= 0).any():
        raise StageError("the annotation names no group and holds no point", next=Set("classes.annotation", NONE))
    return vectors, member


def seen(annotation: Annotation, images: Images, descriptors: PointDescriptors) -> tuple[np.ndarray, list[str]]:
    """Descriptors (n, D) of the points whose images could be decoded, and the class of each."""
    rows = [images.find(one.split, one.image, images.splits[one.split]) for one in annotation.points]
    places = [(row, one.y, one.x) for row, one in zip(rows, annotation.points, strict=True) if row is not None]
    found = descriptors.at_points(places, [images.size(row) for row, _, _ in places])
    known = np.isfinite(found[:, 0])
    if not known.all():
        log.warning("%d points are in images that could not be decoded, and say nothing", np.sum(~known))
    return found[known], [one.class_ for one, there in zip(annotation.points, known, strict=True) if there]


STAGE = Stage(
    "classes",
    version=2,
    encoding=1,
    inputs=("dataset", "features", "head", "clusters"),
    roots=("annotation",),
    params=ClassesParams,
    compute=compute,
)
