"""The baseline's label maps: k-means on tokens. They are computed from the cache when they are read."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.artifacts.clusters import FILE, read_clusters
from pipeline.artifacts.images import ByImage, Images
from pipeline.artifacts.mask_tiles import Rectangle, Tiled, grid, tile_at
from pipeline.artifacts.masks import ignore_value, mask_dtype
from pipeline.artifacts.planes import Views
from pipeline.core.artifact import Artifact
from pipeline.numerics.views import ALL, Window, uncovered, upsample, winner


class Baseline:
    """K-means on tokens, applied to one image after the other."""

    def __init__(self, baseline: Artifact, features: Artifact) -> None:
        self.clusters = read_clusters(baseline)
        self.center = baseline.held(FILE, Artifact.read_tensors)["center"]
        self.views = Views(features)

    def label_map(self, image: int, height: int, width: int) -> np.ndarray | None:
        """Its clusters (height, width) int64 in a row of the table of images, as `scores` takes them: cosines are
        upsampled bilinearly. −1 where no view was (nodata, slide glass), None where the image could not be decoded."""
        found = self._winner(image, height, width, ALL)
        if found is not None:
            found[self.views.uncovered(image, height, width)] = -1
        return found

    def tile(self, image: int, height: int, width: int, pixels: Rectangle) -> np.ndarray | None:
        """Some pixels of it, at the size of the image."""
        found = self._winner(image, height, width, pixels)
        if found is not None:
            top, left = pixels[0].start, pixels[1].start
            boxes = [Window(b.y0 - top, b.x0 - left, *b[2:]) for b in self.views.boxes_near(image, pixels)]
            found[uncovered(boxes, *found.shape)] = -1
        return found

    def _winner(self, image: int, height: int, width: int, pixels: Rectangle) -> np.ndarray | None:
        tokens = self.views.seen_from(image, pixels, lambda values: values.astype(np.float32))
        if tokens is None:
            return None
        logits = self.clusters.cut().best((tokens.values - self.center) @ self.clusters.vectors.T)
        return winner(upsample(tokens._replace(values=logits), height, width, pixels))


def baseline_maps(baseline: Baseline, images: Images, rows: Sequence[int]) -> ByImage[np.ndarray]:
    """The baseline's label map of some images, (height, width) uint8 or uint16; `ignore_value` everywhere for an image
    that could not be decoded. `rows` are those of the table of images, ascending."""
    k = baseline.clusters.k

    def read(row: int) -> Any:
        size = images.size(row)
        if grid(*size) == (1, 1):
            return typed(baseline.label_map(row, *size), size)

        def tile(number: int) -> np.ndarray:
            at = tile_at(*size, number)
            return typed(baseline.tile(row, *size, at), (at[0].stop - at[0].start, at[1].stop - at[1].start))

        return Tiled(size, mask_dtype(k), tile)

    def typed(found: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
        return np.full(size, ignore_value(k), mask_dtype(k)) if found is None else found.astype(mask_dtype(k))

    return ByImage(images, rows, read)
