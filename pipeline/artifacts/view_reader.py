"""The pixels of views."""

from typing import Any

import numpy as np

from pipeline.images.formats import open_source
from pipeline.images.source import Source


class ViewReader:
    """Reads views of the images under a root. The last image stays open: the views of one image follow each other."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._path = ""
        self._source: Source | None = None

    def read(self, view: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        """The window of a row of the table of views, not mirrored: uint8 (height, width, 3) for `size` = (height,
        width). Raises DecodeError where the image cannot be decoded, and what `open_source` raises."""
        if self._source is None or self._path != view["path"]:
            self._source = None  # the old pixels go before the new ones come
            self._source = open_source(self.root, view["path"], view["sha256"], view["bytes"])
            self._path = view["path"]
        return self._source.read((view["y0"], view["x0"], view["height"], view["width"]), size)
