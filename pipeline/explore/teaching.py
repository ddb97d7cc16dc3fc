"""Classes while they are taught: what an annotation says of patches that are on the screen."""

import threading

import numpy as np

from pipeline.artifacts.annotation import Annotation, Point, named_by
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.search import Found
from pipeline.core.errors import ConfigError
from pipeline.explore.corpus import Corpus, Kept
from pipeline.numerics.classify import NOTHING, fit
from pipeline.numerics.kmeans import normalise

NONE = 65535
"""What a map holds where there is no class."""


class Teaching:
    """Classifiers of annotations, as the stage `classes` makes them."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._points: Kept[np.ndarray] = Kept(20_000)
        self._fitted: Kept[Classes] = Kept(4)
        self._lock = threading.Lock()

    def classes(self, annotation: Annotation) -> Classes:
        """The classifier of an annotation. ConfigError where it names no group and holds no point."""
        with self._lock:  # two requests for one annotation fit it once
            return self._fitted.get(annotation.digest, lambda: self._fit(annotation))

    def _fit(self, annotation: Annotation) -> Classes:
        clusters = self.corpus.clusters
        number = {name: position for position, name in enumerate(annotation.names)}
        nodes = 2 * len(clusters.vectors) - 1
        if not all(0 <= node < nodes for node in annotation.groups):
            raise ConfigError("the annotation is of other groups", next="reload the page")
        names = named_by(clusters.tree, annotation.groups)[: len(clusters.vectors)]
        named = np.asarray([NOTHING if name is None else number[name] for name in names])
        found = np.stack([self._vector(one) for one in annotation.points] or [np.zeros(clusters.vectors.shape[1])])
        wanted = np.asarray([number[one.class_] for one in annotation.points], np.int64)
        seen = np.isfinite(found[: len(wanted), 0])
        vectors, member = fit(clusters.vectors, named, found[: len(wanted)][seen].astype(np.float32), wanted[seen])
        if not (member >= 0).any():
            raise ConfigError("no group has a name and there is no point", next="name a group or click a patch")
        return Classes(vectors, member, annotation.names, annotation.colors)

    def _vector(self, point: Point) -> np.ndarray:
        """(D,) the unit code of a point's patch; NaN where its image could not be decoded."""

        def make() -> np.ndarray:
            images = self.corpus.images
            known = point.split in images.splits
            row = images.find(point.split, point.image, images.splits[point.split]) if known else None
            if row is None:
                raise ConfigError(f"there is no image {point.split}/{point.image}", next="remove its points")
            codes = self.corpus.codes(row)
            height, width = images.size(row)
            if codes is None or not (0 <= point.y < height and 0 <= point.x < width):
                return np.full(self.corpus.clusters.vectors.shape[1], np.nan, np.float32)
            return normalise(codes[point.y * len(codes) // height, point.x * codes.shape[1] // width])

        return self._points.get(point.key, make)

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
