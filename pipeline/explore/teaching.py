"""Classes while they are taught: what an annotation says of patches that are on the screen."""

import threading
from collections.abc import Iterable
from functools import partial

import numpy as np

from pipeline.artifacts import descriptors
from pipeline.artifacts.annotation import Annotation, check
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.search import Found, Place
from pipeline.explore.corpus import Corpus, Kept
from pipeline.numerics.kmeans import normalise
from pipeline.numerics.tree import members
from pipeline.stages.classes import find_classes

LOOKED = 48
"""Images that are looked through for the next patch."""
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
        (row, y, x), (height, width) = place, size
        codes = self.corpus.codes(row)
        if codes is None:
            return np.full(self.clusters.vectors.shape[1], np.nan, np.float32)
        return normalise(codes[y * len(codes) // height, x * codes.shape[1] // width])


class Teaching:
    """Classifiers of annotations, as the stage `classes` makes them."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._descriptors = KeptDescriptors(corpus)
        self._fitted: Kept[Classes] = Kept(4)
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

    def propose(self, annotation: Annotation) -> Found | None:
        """The patch whose class would teach most: of `LOOKED` images the one that is nearly undecided and least like
        the points that there are (margin and spread; arXiv 2104.06394). Where nothing is said, a typical patch of the
        largest group. `score` is by how much its class leads. None where no image could be decoded."""
        if not annotation.groups and not annotation.points:
            tree = self.corpus.clusters.tree
            node = int(self.corpus.clusters.cut().nodes[0])
            return next(iter(self.corpus.indexing.index.table.typical(members(tree, node), 1)), None)
        classes, cut = self.classes(annotation), self.classes(annotation).cut
        said = {(one.split, one.image) for one in annotation.points}
        found: list[tuple[Found, np.ndarray]] = []
        for row in self._looked(len(annotation.points)):
            codes = self.corpus.codes(row)
            if codes is None or self.corpus.images.name(row) in said:
                continue
            codes = normalise(codes)
            y, x, lead = undecided(codes, cut.best(codes @ classes.vectors.T))
            found.append((Found(Place(row, y, x), lead), codes[y, x]))
        if not found:
            return None
        found.sort(key=lambda one: one[0].score)
        best = found[: max(1, len(found) // 3)]
        places = self._places(annotation)
        known = self._descriptors.at_points(places, [self.corpus.images.size(row) for row, _, _ in places])
        if not len(known):
            return best[0][0]
        alike = [float(np.nanmax(known @ code, initial=-1)) for _, code in best]
        return best[int(np.argmin(alike))][0]

    def _looked(self, turn: int) -> list[int]:
        """Rows of some images, others at every turn."""
        step = max(1, self.corpus.count // LOOKED)
        return list(range(turn % step, self.corpus.count, step))[:LOOKED]

    def _places(self, annotation: Annotation) -> list[tuple[int, int, int]]:
        images = self.corpus.images
        rows = [images.find(one.split, one.image, images.splits[one.split]) for one in annotation.points]
        return [(row, one.y, one.x) for row, one in zip(rows, annotation.points, strict=True) if row is not None]


def undecided(codes: np.ndarray, values: np.ndarray) -> tuple[int, int, float]:
    """(y, x, lead) of the patch whose best class leads by least, among the half of patches (rows, columns, ·) that are
    most like those around them: a patch on a border is of two classes for good reason.

    codes: unit vectors; values: the value of each class."""
    rows, columns = codes.shape[:2]
    around = np.zeros((rows, columns))
    for dy, dx in ((0, 1), (1, 0)):
        cosine = (codes[dy:, dx:] * codes[: rows - dy, : columns - dx]).sum(-1)
        around[dy:, dx:] += cosine
        around[: rows - dy, : columns - dx] += cosine
    best = np.partition(values, -2, axis=-1)[..., -2:] if values.shape[-1] > 1 else np.stack([values[..., 0]] * 2, -1)
    lead = np.where(around >= np.median(around), best[..., 1] - best[..., 0], np.inf)
    y, x = np.unravel_index(int(lead.argmin()), lead.shape)
    return int(y), int(x), float(lead[y, x])
