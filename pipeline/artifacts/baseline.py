"""The baseline's label maps: k-means on tokens. They are computed from the cache when they are read."""

from collections.abc import Sequence

import numpy as np

from pipeline.artifacts.clusters import FILE, read_clusters
from pipeline.artifacts.images import ByImage, Images
from pipeline.artifacts.masks import ignore_value, mask_dtype
from pipeline.artifacts.planes import Views
from pipeline.core.artifact import Artifact
from pipeline.numerics.views import upsample, winner


def baseline_maps(baseline: Artifact, features: Artifact, images: Images, rows: Sequence[int]) -> ByImage[np.ndarray]:
    """The baseline's label map of some images, (height, width) uint8 or uint16; `ignore_value` everywhere for an image
    that could not be decoded. `rows` are those of the table of images, ascending."""
    found, center = read_clusters(baseline), baseline.held(FILE, Artifact.read_tensors)["center"]
    views, k, cut = Views(features), found.k, found.cut()

    def read(row: int) -> np.ndarray:
        size = images.size(row)
        plane = views.plane(row, lambda tokens: cut.best((tokens.astype(np.float32) - center) @ found.vectors.T))
        if plane is None:
            return np.full(size, ignore_value(k), mask_dtype(k))
        return winner(upsample(plane, *size)).astype(mask_dtype(k))

    return ByImage(images, rows, read)
