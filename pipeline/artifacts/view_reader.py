"""The pixels of views."""

from typing import Any

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.reading import AS_STORED, Reading, reading
from pipeline.images.source import Source


def reading_of(features: Artifact) -> Reading:
    """How the images were read that features were made of."""
    params = features.manifest["params"]
    return reading(params.get("channels"), params.get("values"))


class ViewReader:
    """Reads views of the images under a root. The last image stays open: the views of one image follow each other."""

    def __init__(self, root: str, reading: Reading = AS_STORED) -> None:
        self.root, self.reading = root, reading
        self._path = ""
        self._source: Source | None = None

    def read(self, view: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        """The window of a row of the table of views, not mirrored: uint8 (height, width, 3) for `size` = (height,
        width). Raises DecodeError where the image cannot be decoded, and what `open_source` raises."""
        return self._open(view).read((view["y0"], view["x0"], view["height"], view["width"]), size)

    def content(self, view: dict[str, Any], rows: int, columns: int) -> np.ndarray:
        """Where the image of a view has content, on a grid over it: bool (rows, columns). An image that cannot be
        decoded has content everywhere: reading it says so."""
        try:
            source = self._open(view)
            return source.valid((0, 0, *source.size), (rows, columns))
        except DecodeError:
            return np.ones((rows, columns), bool)

    def _open(self, view: dict[str, Any]) -> Source:
        if self._source is None or self._path != view["path"]:
            self._source = None  # the old pixels go before the new ones come
            self._source = open_source(self.root, view["path"], view["sha256"], view["bytes"], self.reading)
            self._path = view["path"]
        return self._source
