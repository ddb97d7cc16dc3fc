"""A label map on the grid of its image: as it is, warped by its CRS, or resized; always the nearest pixel."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.core.extras import require
from pipeline.images import geo, tiff
from pipeline.images.files import File
from pipeline.images.source import Source

ASPECT = 0.01
"""How far, as a share, a label map that is resized may be from the shape of its image."""


def on_grid(label: Any, file: File, image: Callable[[], Source], size: tuple[int, int], ignore: int) -> Any:
    """A label map (what `formats.open_label` gives of a file) on the grid of its image of `size` = (height, width):
    what gives ids when it is sliced. None where nothing says how it lies on the image.

    A GeoTIFF of an image with a CRS is warped to the image's grid, with `ignore` where it does not reach. Without CRS
    one of another size is resized where its sides are to each other as those of the image. ConfigError where rasterio
    is needed and missing.
    """
    if tiff.is_placed(file):
        source = image()
        if source.locate is not None:
            require("rasterio", f"{file.name}, a label map with a CRS,")
            here, there = geo.locate(file), source.georeference
            if geo.on_earth(here) and geo.on_earth(there):
                same = label.shape == size and geo.same_grid(here, there, size)
                return label if same else geo.Warped(file, there, size, ignore)
    if label.shape == size:
        return label
    down, across = (one / other for one, other in zip(label.shape, size, strict=True))
    return Resized(label, size) if abs(across / down - 1) <= ASPECT else None


class Resized:
    """A label map at another size."""

    def __init__(self, label: Any, shape: tuple[int, int]) -> None:
        self._label, self.shape = label, shape

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (
            (2 * np.arange(side)[at] + 1) * old // (2 * side)
            for at, side, old in zip(window, self.shape, self._label.shape, strict=True)
        )
        if not rows.size or not columns.size:
            return np.zeros((rows.size, columns.size), np.int32)
        part = self._label[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return part[np.ix_(rows - rows[0], columns - columns[0])]
