"""Classes: what groups and points mean to a person, as vectors that codes are compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.artifacts.annotation import Annotation
from pipeline.core.artifact import Artifact
from pipeline.numerics.tree import Cut

FILE = "classes.safetensors"


@dataclass(frozen=True)
class Classes:
    """A classifier over the classes of an annotation: a code has the class of the vector with the largest product."""

    vectors: np.ndarray
    """(V, D) float32, several to a class; cosines to prototypes where only groups were named."""
    member: np.ndarray
    """(V,) int64: the class of each, −1 for none."""
    names: list[str]
    """Of all classes, those without evidence among them; a class's number in label maps is its position."""
    colors: list[str]
    """`#rrggbb`."""

    @property
    def cut(self) -> Cut:
        """The vectors as groups that a label map can be made of; `label` says what the groups mean."""
        found, group = np.unique(self.member, return_inverse=True)
        return Cut(found, group)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """(…, classes) float32: the largest product of unit vectors (…, D) with a vector of each class; −inf for one
        that has none."""
        found, cut = np.full((*codes.shape[:-1], len(self.names)), -np.inf, np.float32), self.cut
        known = cut.nodes >= 0
        found[..., cut.nodes[known]] = cut.best(codes @ self.vectors.T)[..., known]
        return found

    def label(self, ids: np.ndarray, nothing: int) -> np.ndarray:
        """Positions in `cut` as numbers of classes; `nothing` where no class is meant."""
        found = self.cut.nodes
        return np.where(found < 0, nothing, found)[ids]


def write_classes(out: Artifact, vectors: np.ndarray, member: np.ndarray, annotation: Annotation) -> dict[str, Any]:
    """Write a classifier and the annotation that it was made of; facts for the manifest: `classes`, a row for each
    (`name`, `color`, `groups` and `points` that name it, `evidence`: whether it can win), and how many there are."""
    out.write_tensors(FILE, {"vectors": vectors.astype(np.float32), "member": member.astype(np.int64)})
    out.write_json("annotation.json", annotation.plain)
    named, clicked = list(annotation.groups.values()), [one.class_ for one in annotation.points]
    rows = [
        {
            "name": name,
            "color": color,
            "groups": named.count(name),
            "points": clicked.count(name),
            "evidence": bool((member == number).any()),
        }
        for number, (name, color) in enumerate(zip(annotation.names, annotation.colors, strict=True))
    ]
    return {"items": len(rows), "classes": rows, "groups": len(named), "points": len(clicked)}


def read_classes(artifact: Artifact) -> Classes:
    """What `write_classes` wrote."""
    found, rows = artifact.held(FILE, Artifact.read_tensors), artifact.manifest["classes"]
    return Classes(found["vectors"], found["member"], [row["name"] for row in rows], [row["color"] for row in rows])


def read_annotation(artifact: Artifact) -> Annotation:
    """The annotation that a classifier was made of."""
    return Annotation.model_validate(artifact.read_json("annotation.json"))
