"""What a person said of one run's groups, said of another run's: other clusters, another head, another seed."""

from typing import Any, NamedTuple

import numpy as np

from pipeline import annotations
from pipeline.artifacts.annotation import Annotation, naming
from pipeline.artifacts.descriptors import Descriptors
from pipeline.artifacts.gallery import training_images
from pipeline.artifacts.images import Images
from pipeline.core.errors import ConfigError
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store
from pipeline.numerics.carry import carry

MOST_IMAGES = 200
"""Images whose patches are compared."""


class Carried(NamedTuple):
    """What `carried` found."""

    annotation: Annotation
    kept: dict[str, float]
    """Of each class with named groups, the share of their patches that have it again, 0..1."""
    lost: int
    """Points that could not be kept: their image is not there, or has another size."""


class _Side:
    """One of the two runs."""

    def __init__(self, store: Store, record: dict[str, Any]) -> None:
        self.images = Images(run_artifact(store, record, "dataset"))
        features, head, clusters = (run_artifact(store, record, stage) for stage in ("features", "head", "clusters"))
        self.descriptors = Descriptors(features, head, clusters)
        self.clusters = self.descriptors.clusters

    def nearest(self, row: int) -> np.ndarray | None:
        """(rows, columns) int64: the nearest prototype of each patch; None where the image could not be decoded."""
        plane = self.descriptors.plane(row)
        return None if plane is None else (plane @ self.clusters.vectors.T).argmax(-1)

    def row(self, split: str, id: str) -> int | None:
        """The row of an image, None where the run does not have it."""
        return self.images.find(split, id, self.images.splits[split]) if split in self.images.splits else None


def carried(store: Store, record: dict[str, Any], other: dict[str, Any]) -> Carried:
    """The newest annotation of the run `other`, said of the groups of a run of the same images (`record`).

    Each prototype has the name that most of its patches had; points are kept as they are. ConfigError where nothing was
    said of `other`, or the two have no image in common."""
    _, said = annotations.newest(store, other) or (0, Annotation())
    if not said.groups and not said.points:
        raise ConfigError(f"nothing was said of the groups of run {other['run']}", next="name another run")
    old, new = _Side(store, other), _Side(store, record)
    counts = _compare(old, new, said)
    if not counts.any():
        raise ConfigError(f"runs {record['run']} and {other['run']} have no image in common", next="name another run")
    groups = carry(new.clusters.tree, counts)
    points = tuple(point for point in said.points if _same(old, new, point.split, point.image))
    made = Annotation(
        classes=said.classes,
        groups={node: said.names[number] for node, number in groups.items()},
        points=points,
        clusters=record["stages"]["clusters"],
    )
    return Carried(made, _kept(new, groups, counts, said), len(said.points) - len(points))


def _same(old: _Side, new: _Side, split: str, id: str) -> bool:
    """Whether both runs have an image, of the same size."""
    before, now = old.row(split, id), new.row(split, id)
    return before is not None and now is not None and old.images.size(before) == new.images.size(now)


def _compare(old: _Side, new: _Side, said: Annotation) -> np.ndarray:
    """(P, classes + 1) int64: patches of each prototype of `new` by the class that they have in `old`, none last."""
    count = len(said.classes)
    number = {name: position for position, name in enumerate(said.names)}
    nodes = naming(old.clusters.tree, said.groups)[: len(old.clusters.vectors)].tolist()
    named = np.array([number[said.groups[node]] if node >= 0 else count for node in nodes])
    counts = np.zeros((len(new.clusters.vectors), count + 1), np.int64)
    for row in training_images(new.descriptors, MOST_IMAGES):
        before = old.row(*new.images.name(row))
        now, then = new.nearest(row), None if before is None else old.nearest(before)
        if now is not None and then is not None:
            np.add.at(counts, (now.ravel(), named[_resized(then, now.shape)].ravel()), 1)
    return counts


def _resized(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A plane on a grid of other rows and columns: the nearest value."""
    rows, columns = ((2 * np.arange(n) + 1) * have // (2 * n) for n, have in zip(shape, plane.shape, strict=True))
    return plane[np.ix_(rows, columns)]


def _kept(new: _Side, groups: dict[int, int], counts: np.ndarray, said: Annotation) -> dict[str, float]:
    """Of each class with named groups, the share of its patches that have it again."""
    now = np.array([groups.get(node, -1) for node in naming(new.clusters.tree, groups)[: len(counts)].tolist()])
    used = set(said.groups.values())
    return {
        name: float(counts[now == number, number].sum() / max(1, counts[:, number].sum()))
        for number, name in enumerate(said.names)
        if name in used
    }
