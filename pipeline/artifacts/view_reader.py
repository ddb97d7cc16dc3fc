"""The pixels of views."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.views import ViewParams
from pipeline.core.artifact import Artifact
from pipeline.datasets.scale import configured, pixels_per
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.reading import AS_STORED, Reading, readings
from pipeline.images.source import PixelSize, Source
from pipeline.numerics.views import NATIVE


def reading_of(features: Artifact) -> Reading:
    """How the images were read that features were made of; of several triples of channels the first."""
    params, found = features.manifest["params"], features.manifest["inputs"].get("reading")
    corpus = Artifact(features.store, "reading", found) if found else None
    return corpus_reading(params.get("channels"), params.get("values"), corpus)


def corpus_reading(channels: Any, values: Any, corpus: Artifact | None) -> Reading:
    """The first of `corpus_readings`: what people see."""
    return corpus_readings(channels, values, corpus)[0]


def corpus_readings(channels: Any, values: Any, corpus: Artifact | None) -> list[Reading]:
    """From `dataset.channels` and `dataset.values`, and what the stage `reading` found where these ask it: one for each
    triple of channels."""
    return readings(channels, values, corpus.read_json("reading.json") if corpus else None)


def view_steps(
    root: str,
    images: pa.Table,
    views: ViewParams,
    sizes: Any = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[float, float]] | None:
    """Of each image, a row of the table of images, the pixels (down, across) that make one of its views; None where
    views have no scale of their own.

    sizes: `dataset.pixel_size`, as plain data; of what it does not say the image's header is read. ConfigError where
    neither says what a pixel measures.
    """
    if views.scale is None:
        return None
    (field, metres), known = views.scale, configured(sizes)

    def step(image: dict[str, Any]) -> tuple[float, float]:
        size: PixelSize | None = known(image["path"])
        if size is None:
            try:
                size = open_source(root, image["path"], image["sha256"], image["size"]).pixel_size
            except DecodeError:  # encoding its views says so
                return NATIVE
        return pixels_per(metres, size, image["path"], field)

    found = []
    with ThreadPoolExecutor(4) as pool:
        for one in pool.map(step, images.select(["path", "sha256", "size"]).to_pylist()):
            found.append(one)
            progress(len(found), len(images))
    return found


class ViewReader:
    """Reads views of the images under a root. The last image stays open: the views of one image follow each other."""

    def __init__(self, root: str, reading: Reading = AS_STORED) -> None:
        self.root, self.reading = root, reading
        self._path = ""
        self._source: Source | None = None

    def read(self, view: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        """The window of a row of the table of views, not mirrored: uint8 (height, width, 3) for `size` = (height,
        width). Raises DecodeError where the image cannot be decoded, and what `open_source` raises."""
        return self._of(view).read((view["y0"], view["x0"], view["height"], view["width"]), size)

    def content(self, view: dict[str, Any], rows: int, columns: int) -> np.ndarray:
        """Where the image of a view has content, on a grid over it: bool (rows, columns). An image that cannot be
        decoded has content everywhere: reading it says so."""
        try:
            source = self._of(view)
            return source.valid((0, 0, *source.size), (rows, columns))
        except DecodeError:
            return np.ones((rows, columns), bool)

    def source(self, path: str, sha256: str, size: int) -> Source:
        """A listed image; raises what `open_source` raises."""
        if self._source is None or self._path != path:
            self._source = None  # the old pixels go before the new ones come
            self._source = open_source(self.root, path, sha256, size, self.reading)
            self._path = path
        return self._source

    def _of(self, view: dict[str, Any]) -> Source:
        return self.source(view["path"], view["sha256"], view["bytes"])
