"""What groups look like: the patches that are most like each, at most one of an image."""

import heapq

import numpy as np

from pipeline.artifacts.descriptors import Descriptors
from pipeline.artifacts.features import training_views
from pipeline.numerics.tree import Cut

MOST_IMAGES = 300
"""Training images, evenly spaced, in which patches are looked for."""


def training_images(descriptors: Descriptors, most: int = MOST_IMAGES) -> list[int]:
    """Rows of the table of images: those that clusters were fitted on, or `most` of them, evenly spaced."""
    features = descriptors.views.pieces
    rows = np.unique(np.asarray(features.take(training_views(features.artifact))["image"]))
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))].tolist()


def typical(descriptors: Descriptors, rows: list[int], cut: Cut, most: int) -> list[list[tuple[int, float, float]]]:
    """Of each group of a cut the `most` patches with the largest cosine to one of its prototypes, the first of an image
    among those that are its own, the best first: (row, y, x), y and x as shares of the image, 0..1."""
    found: list[list[tuple[float, int, float, float]]] = [[] for _ in cut.nodes]
    for row in rows:
        plane = descriptors.plane(row)
        if plane is None:
            continue
        height, width, _ = plane.shape
        cosines = (plane @ descriptors.clusters.vectors.T).reshape(height * width, -1)
        nearest = cosines.argmax(1)
        value, group = cosines[np.arange(len(nearest)), nearest], cut.group[nearest]
        order = np.lexsort((-value, group))
        first = order[np.unique(group[order], return_index=True)[1]]
        for at in first.tolist():
            y, x = divmod(at, width)
            entry = float(value[at]), -row, (y + 0.5) / height, (x + 0.5) / width
            keep = heapq.heappush if len(found[group[at]]) < most else heapq.heappushpop
            keep(found[group[at]], entry)
    return [[(-row, y, x) for _, row, y, x in sorted(best, reverse=True)] for best in found]
