"""What a patch is compared by: the one place where descriptors of pixels are made from cached tokens."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from pipeline.artifacts.clusters import Clusters, read_clusters
from pipeline.artifacts.head import open_head
from pipeline.artifacts.planes import Views
from pipeline.core.artifact import Artifact
from pipeline.numerics.kmeans import normalise

Place = tuple[int, int, int]
"""A pixel: (row of the table of images, y, x)."""


class PointDescriptors(Protocol):
    """What gives the descriptors of pixels."""

    clusters: Clusters

    def at_points(self, places: Iterable[Place], sizes: Iterable[tuple[int, int]]) -> np.ndarray: ...


class Descriptors:
    """Descriptors of a run's images, of the kind that its prototypes are. Nothing passes through a backbone."""

    def __init__(self, features: Artifact, head: Artifact, clusters: Artifact, device: str = "auto") -> None:
        self.views = Views(features)
        self.head = open_head(head, device)
        self.clusters = read_clusters(clusters)

    def plane(self, row: int) -> np.ndarray | None:
        """(rows, columns, D) float32, unit vectors: those of an image's patches; None where it could not be decoded."""
        found = self.views.plane(row, lambda tokens: self.clusters.seen(self.head(tokens)))
        return None if found is None else normalise(found)

    def at_points(self, places: Iterable[Place], sizes: Iterable[tuple[int, int]]) -> np.ndarray:
        """(n, D) float32 unit vectors of the patches that hold some pixels, NaN where the image could not be decoded.
        `sizes` are (height, width) of the image of each."""
        wanted = list(zip(places, sizes, strict=True))
        found = np.full((len(wanted), self.clusters.vectors.shape[1]), np.nan, np.float32)
        by_image: dict[int, list[int]] = {}
        for number, ((row, _, _), _) in enumerate(wanted):
            by_image.setdefault(row, []).append(number)
        for row, numbers in by_image.items():
            plane = self.plane(row)
            if plane is None:
                continue
            for number in numbers:
                (_, y, x), (height, width) = wanted[number]
                found[number] = plane[y * len(plane) // height, x * plane.shape[1] // width]
        return found
