"""OME-TIFF: ids with a colour table, pixel size, names as a map annotation; levels in SubIFDs.

Scores are a file of their own, `NAME.scores.ome.tif`, one channel a class.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.terminal import visible
from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer
from pipeline.writers.levels import TILE, level_sizes, tiles


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    with out.new(f"{image.name}.ome.tif") as part:
        _write(part, legend, image, ids)
    if image.scores is not None:
        with out.new(f"{image.name}.scores.ome.tif") as part:
            _write_scores(part, legend, image, ids.shape)


def _write(part: Path, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    import tifffile

    sizes = level_sizes(image, *ids.shape)
    values = {str(number): visible(name) for number, name in enumerate(legend.names)}
    facts = {f"stegoflow {key}": str(value) for key, value in legend.provenance.items()}
    described = {**_description(image, "YX"), "MapAnnotation": {**values, **facts}}
    with tifffile.TiffWriter(part, bigtiff=True, ome=True) as file:
        for number, size in enumerate(sizes):
            file.write(
                _padded(ids, size, legend.dtype),
                shape=size,
                dtype=legend.dtype,
                subifds=len(sizes) - 1 if not number else None,
                subfiletype=1 if number else 0,
                metadata=described if not number else None,
                **_stored(legend),
            )


def _write_scores(part: Path, legend: Legend, image: ImageFacts, shape: tuple[int, ...]) -> None:
    import tifffile

    assert image.scores is not None
    described = {**_description(image, "CYX"), "Channel": {"Name": [visible(name) for name in legend.names]}}
    with tifffile.TiffWriter(part, bigtiff=True, ome=True) as file:
        every = (np.pad(tile, _missing(tile)) for score in image.scores() for _, _, tile in tiles(score, score.shape))
        file.write(
            every,
            shape=(len(legend.names), *shape),
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression="deflate",
            photometric="minisblack",
            metadata=described,
        )


def _stored(legend: Legend) -> dict[str, Any]:
    """How the pixels of a label map are stored: up to 255 classes with their colours, 16 bits as grey."""
    common = {"tile": (TILE, TILE), "compression": "deflate", "software": "stegoflow"}
    if legend.nothing > 255:
        return {**common, "photometric": "minisblack"}
    table = np.zeros((3, 256), np.uint16)
    table[:, : len(legend.colours)] = legend.colours.T.astype(np.uint16) * 257
    return {**common, "photometric": "palette", "colormap": table}


def _description(image: ImageFacts, axes: str) -> dict[str, Any]:
    pixel = image.pixel_size
    sizes: dict[str, Any] = {}
    if pixel and pixel.unit in ("µm", "nm", "mm", "m"):
        sizes = {"PhysicalSizeX": pixel.x, "PhysicalSizeY": pixel.y}
        sizes |= {"PhysicalSizeXUnit": pixel.unit, "PhysicalSizeYUnit": pixel.unit}
    return {"axes": axes, "Name": visible(image.name.rpartition("/")[2]), **sizes}


def _padded(ids: LabelMap, size: tuple[int, int], dtype: type[np.unsignedinteger]) -> Iterator[np.ndarray]:
    """The tiles of a level; those at its right and lower edge are filled up."""
    for _, _, tile in tiles(ids, size):
        yield np.pad(tile.astype(dtype), _missing(tile), mode="edge")


def _missing(tile: np.ndarray) -> list[tuple[int, int]]:
    return [(0, TILE - side) for side in tile.shape]


WRITER = Writer(one, suffix=".scores.ome.tif")
