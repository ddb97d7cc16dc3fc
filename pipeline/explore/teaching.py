"""Classes while they are taught: what an annotation says of patches that are on the screen."""

import threading
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from pipeline.artifacts import descriptors
from pipeline.artifacts.annotation import Annotation, check
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.search import Found, Place
from pipeline.explore.corpus import Corpus, Kept
from pipeline.explore.packing import thinned
from pipeline.numerics.kmeans import normalise
from pipeline.numerics.proposals import doubt, propose
from pipeline.numerics.tree import members
from pipeline.stages.classes import find_classes
from pipeline.stages.classes import seen as points_of

LOOKED = 48
"""Images that are looked through for the next patch, and for the shares of classes."""
NONE = 65535
"""What a map holds where there is no class."""


class KeptDescriptors:
    """`Descriptors` of the images that are looked at, which keeps those of points."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus, self.clusters = corpus, corpus.clusters
        self._points: Kept[np.ndarray] = Kept(20_000)

    def at_points(self, places: Iterable[descriptors.Place], sizes: Iterable[tuple[int, int]]) -> np.ndarray:
        """As `Descriptors.at_points`."""
        each = [
            self._points.get((place, size), partial(self._vector, place, size))
            for place, size in zip(places, sizes, strict=True)
        ]
        return np.stack(each) if each else np.zeros((0, self.clusters.vectors.shape[1]), np.float32)

    def _vector(self, place: descriptors.Place, size: tuple[int, int]) -> np.ndarray:
        code = self.corpus.code(*place, size)
        return np.full(self.clusters.vectors.shape[1], np.nan, np.float32) if code is None else normalise(code)


class Teaching:
    """Classifiers of annotations, as the stage `classes` makes them."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._descriptors = KeptDescriptors(corpus)
        self._fitted: Kept[Classes] = Kept(4)
        self._shown: Counter[int] = Counter()
        self._asked: set[Place] = set()
        """Patches that were proposed. None is proposed twice: a person may not be able to say what it is."""
        self._lock = threading.Lock()

    def classes(self, annotation: Annotation) -> Classes:
        """The classifier of an annotation. ConfigError where it does not fit the run, StageError where it says
        nothing."""
        with self._lock:  # two requests for one annotation fit it once
            return self._fitted.get(annotation.digest, lambda: self._fit(annotation))

    def _fit(self, annotation: Annotation) -> Classes:
        images = self.corpus.images
        check(annotation, self.corpus.clusters.tree, images)
        found = find_classes(annotation, images, self._descriptors)
        return Classes(*found, annotation.names, annotation.colors)

    def patches(self, classes: Classes, row: int) -> np.ndarray:
        """(rows, columns) uint16: the class of every patch of an image, `NONE` for none."""
        codes = self.corpus.codes(row)
        if codes is None:
            return np.zeros((0, 0), np.uint16)
        winner = (codes @ classes.vectors.T).argmax(-1)
        return np.where(classes.member < 0, NONE, classes.member)[winner].astype(np.uint16)

    def pixels(self, classes: Classes, row: int) -> np.ndarray:
        """(height, width) uint16: the class of every pixel of the small image, upsampled as masks are."""
        cut = classes.cut
        return classes.label(self.corpus.upsampled(row, classes.vectors, cut), NONE).astype(np.uint16)

    def tile(self, classes: Classes, row: int, tile: tuple[int, int, int]) -> np.ndarray:
        """`pixels` of a piece of an image, `Corpus.tile_map`."""
        return classes.label(self.corpus.tile_map(row, tile, classes.vectors, classes.cut), NONE).astype(np.uint16)

    def shares(self, annotation: Annotation) -> dict[str, Any]:
        """The share of patches that each class has, in order, and in how many images that was found: {"shares",
        "images"}. The images are evenly spaced."""
        classes, count = self.classes(annotation), len(annotation.names)
        each = [self.patches(classes, row).ravel() for row in self._looked(0)]
        found = np.concatenate([np.zeros(0, np.uint16), *each])
        shares = np.bincount(found[found != NONE], minlength=count) / max(1, len(found))
        return {"shares": np.round(shares, 5).tolist(), "images": sum(len(one) > 0 for one in each)}

    def propose(self, annotation: Annotation) -> Found | None:
        """Where to look next: in one of `LOOKED` images, drawn by how much is in doubt in it, the patch that is most.
        Where nothing is said, a typical patch of the largest group. `score` is how doubtful it is. None where no image
        could be decoded."""
        if not annotation.groups and not annotation.points:
            tree = self.corpus.clusters.tree
            node = int(self.corpus.clusters.cut().nodes[0])
            return next(iter(self.corpus.indexing.index.table.typical(members(tree, node), 1)), None)
        classes, found = self.classes(annotation), {}
        for row in self._looked(len(annotation.points) + sum(self._shown.values())):
            codes = self.corpus.codes(row)
            if codes is not None:
                found[row] = (codes := normalise(codes), doubt(classes.values(codes)))
        if not found:
            return None
        rows, doubts = list(found), [values.ravel() for _, values in found.values()]
        image = np.repeat(np.arange(len(rows)), [len(values) for values in doubts])
        cell = np.concatenate([self.corpus.nearest(row).ravel() for row in rows]).astype(np.int64)
        seen, points = self._seen(annotation, rows)
        (chosen,) = propose(np.concatenate(doubts), image, cell, seen, points, 1, sum(self._shown.values()))
        row = rows[int(chosen)]
        self._shown[row] += 1
        asked = [(place.y, place.x) for place in self._asked if place.image == row]
        place, score = most_doubtful(row, *found[row], asked)
        self._asked.add(place)
        shape = self.corpus.indexing.shape(row)
        at = int(thinned(*shape)[1][place.y, place.x])
        return Found(Place(row, *divmod(at, shape[1])), score)

    def _looked(self, turn: int) -> list[int]:
        """Rows of some images, others at every turn."""
        step = max(1, self.corpus.count // LOOKED)
        return list(range(turn % step, self.corpus.count, step))[:LOOKED]

    def _seen(self, annotation: Annotation, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """How often each of some images was proposed or clicked, and how many points lie in each prototype."""
        images, clicked = self.corpus.images, Counter((one.split, one.image) for one in annotation.points)
        seen = np.array([self._shown[row] + clicked[images.name(row)] for row in rows])
        vectors, _ = points_of(annotation, images, self._descriptors)
        nearest = (vectors @ self.corpus.clusters.vectors.T).argmax(1)
        return seen, np.bincount(nearest, minlength=len(self.corpus.clusters.vectors))


def most_doubtful(
    row: int, codes: np.ndarray, doubts: np.ndarray, asked: Iterable[tuple[int, int]] = ()
) -> tuple[Place, float]:
    """The patch of an image that is most in doubt, among the half of patches (rows, columns, D) most like those around
    them: a patch on a border is of two classes for good reason. codes: unit vectors; asked: (y, x) of patches that
    somebody was asked about already."""
    rows, columns = doubts.shape
    around = np.zeros((rows, columns))
    for dy, dx in ((0, 1), (1, 0)):
        cosine = (codes[dy:, dx:] * codes[: rows - dy, : columns - dx]).sum(-1)
        around[dy:, dx:] += cosine
        around[: rows - dy, : columns - dx] += cosine
    inner = np.where(around >= np.median(around), doubts, -1)
    for place in asked:
        inner[place] = -2
    y, x = np.unravel_index(int(inner.argmax()), inner.shape)
    return Place(row, int(y), int(x)), float(doubts[y, x])
