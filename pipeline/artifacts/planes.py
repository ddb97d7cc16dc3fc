"""The plane of an image: what its views say, merged onto the image."""

from bisect import bisect_right
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import Tokens, view_pieces
from pipeline.core.artifact import Artifact
from pipeline.numerics.views import Window, merge, uncovered


class Views:
    """The views of each image and their features, merged onto the image on demand."""

    def __init__(self, features: Artifact) -> None:
        self.tokens = Tokens(features)
        self.pieces = view_pieces(features)
        self.firsts: list[int] = self.pieces.index["image"].to_pylist()

    def of(self, image: int) -> pa.Table:
        """The views that an image is predicted from."""
        number = bisect_right(self.firsts, image) - 1
        table, rows, images = _by_image(self.pieces.artifact, number)
        return table.take(rows[slice(*np.searchsorted(images, [image, image + 1]))])

    def boxes(self, image: int) -> list[Window]:
        """The windows that an image is predicted from; none where it has no content."""
        found = self.of(image).select(["y0", "x0", "height", "width"]).to_pylist()
        return list(dict.fromkeys(Window(**box) for box in found))

    def uncovered(self, image: int, height: int, width: int) -> np.ndarray:
        """Where no view of an image was, once it is resized: bool (height, width)."""
        views = self.of(image)
        tall, wide = (views[key][0].as_py() for key in ("image_height", "image_width"))
        fy, fx = height / max(1, tall), width / max(1, wide)
        boxes = [Window(b.y0 * fy, b.x0 * fx, b.height * fy, b.width * fx) for b in self.boxes(image)]
        return uncovered(boxes, height, width)

    def plane(self, image: int, encode: Any) -> np.ndarray | None:
        """What `encode` makes of an image's tokens (view, row, column, channel), mirrored views averaged with the
        plain ones, merged: (rows, columns, D) float32. None where the image could not be decoded, or has no views."""
        if not self.boxes(image):
            return None
        views = self.of(image).to_pylist()
        values = self.tokens.read(np.asarray([view["view"] for view in views]))
        if not np.isfinite(values[:, 0, 0, 0]).all():
            return None
        encoded = encode(values)
        boxes: dict[Window, list[np.ndarray]] = {}
        for view, code in zip(views, encoded, strict=True):
            box = Window(view["y0"], view["x0"], view["height"], view["width"])
            boxes.setdefault(box, []).append(code[:, ::-1] if view["mirrored"] else code)
        means = np.stack([np.mean(codes, axis=0) for codes in boxes.values()])
        return merge(means, list(boxes), views[0]["image_height"], views[0]["image_width"])


@lru_cache(maxsize=2)
def _by_image(features: Artifact, number: int) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """A piece of the table of views, the rows of those that images are predicted from, sorted by image, and their
    images."""
    windows = ["image_height", "image_width", "y0", "x0", "height", "width"]
    table = view_pieces(features).piece(number).select(["view", "image", *windows, "mirrored", "training"])
    image, training = np.asarray(table["image"]), np.asarray(table["training"])
    # A training image cut in crops also has whole views; those are its prediction.
    rows = np.flatnonzero(~training | ~np.isin(image, image[~training & ~np.asarray(table["mirrored"])]))
    rows = rows[np.argsort(image[rows], kind="stable")]
    return table, rows, image[rows]
