"""The baseline's label maps: k-means on tokens. They are computed from the cache when they are read."""

from collections.abc import Sequence

import numpy as np

from pipeline.artifacts.clusters import FILE, read_clusters
from pipeline.artifacts.images import ByImage, Images
from pipeline.artifacts.masks import ignore_value, mask_dtype
from pipeline.artifacts.planes import Views
from pipeline.core.artifact import Artifact
from pipeline.numerics.views import upsample, winner


class Baseline:
    """K-means on tokens, applied to one image after the other."""

    def __init__(self, baseline: Artifact, features: Artifact) -> None:
        self.clusters = read_clusters(baseline)
        self.center = baseline.held(FILE, Artifact.read_tensors)["center"]
        self.views = Views(features)

    def label_map(self, image: int, height: int, width: int) -> np.ndarray | None:
        """Its clusters (height, width) int64 in a row of the table of images, as `scores` takes them: cosines are
        upsampled bilinearly. −1 where no view was (nodata, slide glass), None where the image could not be decoded."""
        tokens = self.views.plane(image, lambda values: values.astype(np.float32))
        if tokens is None:
            return None
        logits = self.clusters.cut().best((tokens - self.center) @ self.clusters.vectors.T)
        found = winner(upsample(logits, height, width))
        found[self.views.uncovered(image, height, width)] = -1
        return found


def baseline_maps(baseline: Baseline, images: Images, rows: Sequence[int]) -> ByImage[np.ndarray]:
    """The baseline's label map of some images, (height, width) uint8 or uint16; `ignore_value` everywhere for an image
    that could not be decoded. `rows` are those of the table of images, ascending."""
    k = baseline.clusters.k

    def read(row: int) -> np.ndarray:
        size = images.size(row)
        found = baseline.label_map(row, *size)
        return np.full(size, ignore_value(k), mask_dtype(k)) if found is None else found.astype(mask_dtype(k))

    return ByImage(images, rows, read)
