"""What groups are worth to a person: cuts whose groups are named, and borders. Labels of training images name the
groups, those of the predicted images score them.

One label map per image serves all cuts: that of the finest cut that is scored, as `pipeline.cuts` computes it. Coarser
cuts are made from it by the tree. Where masks are guided, the map of a coarser cut that is computed afresh differs from
it in a few pixels at borders, since the largest of the filtered cosines is not the filtered largest cosine. Groups are
named by tokens: each training token, at the group of its nearest prototype, counts with the classes of its patch.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from pipeline.artifacts.descriptors import Descriptors
from pipeline.artifacts.gallery import training_images
from pipeline.artifacts.images import Images
from pipeline.artifacts.labels import LabelMaps
from pipeline.artifacts.masks import label_maps
from pipeline.cuts import cut_maps
from pipeline.numerics.kmeans import nearest
from pipeline.numerics.metrics import confusion, scores
from pipeline.numerics.tree import Cut, Tree, cut
from pipeline.numerics.views import Window, area_fractions
from pipeline.results import Run

CUTS = (10, 25, 50, 100, 200)
"""Numbers of groups; those that a tree has are scored."""
TRAINING = 100
"""Training images whose labels name groups, at most; evenly spaced."""
BAND = 5.0
"""Pixels at each side of a border that the boundary mIoU is taken of."""

Pixels = Callable[[int], np.ndarray]
"""The label map (height, width) of a row of the table of images."""


# Arrays ---------------------------------------------------------------------------------------------------------------


def coarser(counts: np.ndarray, fine: Cut, coarse: Cut) -> np.ndarray:
    """Counts (n, class) or (n + 1, class) of a cut into n groups, as those of a coarser cut of the same tree."""
    groups, below = len(coarse.nodes), np.arange(len(counts))
    below[fine.group] = coarse.group
    below[len(fine.nodes) :] = groups  # pixels without a group
    out = np.zeros((groups + len(counts) - len(fine.nodes), counts.shape[1]), counts.dtype)
    np.add.at(out, below, counts)
    return out


def majority(counts: np.ndarray) -> np.ndarray:
    """The class (n,) int64 that most of a group is, from counts (n, class); −1 for a group that nothing is known of."""
    return np.where(counts.any(1), counts.argmax(1), -1)


def named(train: np.ndarray, val: np.ndarray) -> float | None:
    """mIoU in percent of counts `val` (n + 1, class), each group named by the majority of `train` (n, class)."""
    return scores(val, majority(train))["miou"]


def named_cuts(tree: Tree, fine: Cut, train: np.ndarray, val: np.ndarray) -> dict[str, float | None]:
    """`named` for each of `CUTS` that is no finer than `fine`, by the number of groups."""
    cuts = {n: cut(tree, n) for n in CUTS if n <= len(fine.nodes)}
    return {str(n): named(coarser(train, fine, c), coarser(val, fine, c)) for n, c in cuts.items()}


def share(curve: Mapping[str, float | None], floor: float | None, limit: float | None) -> float | None:
    """The mean of a curve of mIoU by number of groups, over the logarithm of that number (trapezoids), as percent of
    the way from `floor` to `limit`. None for fewer than two points, or where there is no way."""
    points = {int(n): value for n, value in curve.items() if value is not None}
    if len(points) < 2 or floor is None or limit is None or limit <= floor:
        return None
    at, values = np.log(list(points)), np.asarray(list(points.values()))
    mean = np.trapezoid(values, at) / (at[-1] - at[0])
    return float(100 * (mean - floor) / (limit - floor))


def near_border(label: np.ndarray, band: float = BAND) -> np.ndarray:
    """The pixels whose distance to a border of a label map (height, width) is at most `band` pixels: bool. Pixels to
    ignore have a border too."""
    edge = np.zeros(label.shape, bool)
    for axis in (0, 1):
        first, second = (np.moveaxis(one, axis, 0) for one in (label, edge))
        step = first[1:] != first[:-1]
        second[1:] |= step
        second[:-1] |= step
    return distance_transform_edt(~edge) < band if edge.any() else edge


# A run ----------------------------------------------------------------------------------------------------------------


class Labelled:
    """The labelled images of a run: `train`, those that name groups, and `val`, those that are scored. Labels are
    those of `labels`, a run of the same images, where the run itself went only as far as its masks."""

    def __init__(self, run: Run, labels: Run | None = None) -> None:
        self.images = Images(run.artifact("dataset"))
        self.maps = LabelMaps((labels or run).artifact("labels"), run.record["config"]["dataset"]["root"])
        self.classes = len(self.maps.names)
        stages = ("features", "head", "clusters")
        self.descriptors = Descriptors(**{stage: run.artifact(stage) for stage in stages}, device="auto")
        training = training_images(self.descriptors, TRAINING)
        self.train, self.val = (
            [row for row in rows if self.images.name(row) in self.maps] for rows in (training, run.masks.rows)
        )

    def label(self, row: int) -> np.ndarray:
        """The label map of one of them, (height, width) ints."""
        return self.maps.read(self.images.row(row))

    def counts(self, rows: Iterable[int], pixels: Pixels, n: int, keep: Callable | None = None) -> np.ndarray:
        """Pixels (n + 1, class) int64 of groups `pixels(row)` and classes; those that `keep(label)` says, where it is
        given. An image whose groups are not known has only pixels without one."""
        total = np.zeros((n + 1, self.classes), np.int64)
        for row in rows:
            label, found = self.label(row), pixels(row)
            found = found if found.shape == label.shape else np.full(label.shape, -1)
            inside = np.ones(label.shape, bool) if keep is None else keep(label)
            total += confusion(found[inside], label[inside], n, self.classes, self.maps.ignore)
        return total

    def training_counts(self, fine: Cut) -> np.ndarray:
        """Tokens (n, class) float64 of the training images by the group of their nearest prototype."""
        total = np.zeros((len(fine.nodes), self.classes))
        for row in self.train:
            plane = self.descriptors.plane(row)
            if plane is not None:
                rows, columns, depth = plane.shape
                group = fine.group[nearest(plane.reshape(-1, depth), self.descriptors.clusters.vectors)[0]]
                whole = Window(0, 0, *self.images.size(row))
                parts = area_fractions(self.label(row), whole, rows, columns, self.classes, self.maps.ignore)
                np.add.at(total, group, parts.reshape(-1, self.classes))
        return total


def curve(run: Run, data: Labelled) -> dict[str, float | None]:
    """`named_cuts` of a run that has masks; none where its tree is too coarse or no training image has labels."""
    tree = run.clusters.tree
    fine = cut(tree, max([n for n in CUTS if n <= len(tree.sizes)], default=1))
    if len(fine.nodes) < min(CUTS) or not data.train:
        return {}
    maps = cut_maps(run.store, run.record, len(fine.nodes))
    train = data.training_counts(fine)
    return named_cuts(tree, fine, train, data.counts(data.val, maps.read, len(fine.nodes)))


def worth(run: Run, data: Labelled, finer: Run) -> dict[str, Any]:
    """What a cell holds of named cuts and borders, in percent: `named` by the number of groups, of the run `finer`;
    `share` of the way from k-means on tokens to the linear probe on tokens; `boundary` of the masks without CRF,
    `boundary_baseline`. `finer` is the run itself, or one that differs from it in its prototypes alone."""
    known = run.scores
    named = curve(finer, data if finer is run else Labelled(finer, run))
    linear = known.linear_tokens and known.linear_tokens.miou
    masks, k = label_maps(run.artifact("masks"), data.images, crf=False), run.clusters.k

    def boundary(pixels: Pixels, matching: tuple[int, ...]) -> float | None:
        return scores(data.counts(data.val, pixels, k, near_border), np.asarray(matching))["miou"]

    return {
        "named": named,
        "share": share(named, known.baseline.miou, linear),
        "boundary": boundary(masks.read, known.cluster.matching),
        "boundary_baseline": boundary(run.baseline.read, known.baseline.matching),
    }
