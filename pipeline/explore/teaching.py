"""Classes while they are taught: what an annotation says of patches that are on the screen."""

import threading
from collections.abc import Iterable
from functools import partial

import numpy as np

from pipeline.artifacts.annotation import Annotation, check
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.descriptors import Place
from pipeline.artifacts.search import Found
from pipeline.explore.corpus import Corpus, Kept
from pipeline.numerics.kmeans import normalise
from pipeline.stages.classes import find_classes

NONE = 65535
"""What a map holds where there is no class."""


class KeptDescriptors:
    """`Descriptors` of the images that are looked at, which keeps those of points."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus, self.clusters = corpus, corpus.clusters
        self._points: Kept[np.ndarray] = Kept(20_000)

    def at_points(self, places: Iterable[Place], sizes: Iterable[tuple[int, int]]) -> np.ndarray:
        """As `Descriptors.at_points`."""
        each = [
            self._points.get((place, size), partial(self._vector, place, size))
            for place, size in zip(places, sizes, strict=True)
        ]
        return np.stack(each) if each else np.zeros((0, self.clusters.vectors.shape[1]), np.float32)

    def _vector(self, place: Place, size: tuple[int, int]) -> np.ndarray:
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
        """The patch whose class would teach most; None where nothing is known yet."""
        raise NotImplementedError
