"""OME-Zarr 0.4: a label image of its own, `NAME.zarr`, which napari opens beside the image and which may be moved to
`IMAGE.zarr/labels/NAME`.

Version 0.4 (Zarr format 2), because some readers read no other. Levels are those of the image, by nearest.
Scores are an image `NAME.scores.zarr`, one channel a class.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer
from pipeline.writers.legend import class_entries, node_facts
from pipeline.writers.levels import TILE, level_sizes, tiles

VERSION = "0.4"
UNITS = {"µm": "micrometer", "nm": "nanometer", "mm": "millimeter", "m": "meter"}


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    with out.new(f"{image.name}.zarr") as part:
        _write(part, legend, image, ids)
    if image.scores is not None:
        with out.new(f"{image.name}.scores.zarr") as part:
            _write_scores(part, legend, image, ids.shape)


def _write(part: Path, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    group, sizes = _group(part), level_sizes(image, *ids.shape)
    for number, size in enumerate(sizes):
        array = _array(group, str(number), size, (TILE, TILE), legend.dtype)
        for rows, columns, pixels in tiles(group["0"] if number else ids, size):
            array[rows, columns] = pixels
    values = [(entry["id"], entry) for entry in class_entries(legend)]
    colours = [{"label-value": id, "rgba": [*legend.colours[id].tolist(), 255]} for id, _ in values]
    colours.append({"label-value": legend.nothing, "rgba": [0, 0, 0, 0]})
    properties = [{"label-value": id, "name": entry["name"], **node_facts(entry)} for id, entry in values]
    properties.append({"label-value": legend.nothing, "name": "no class"})
    group.attrs.update(
        {
            "multiscales": [_multiscales(image, sizes, channels=False)],
            "image-label": {"version": VERSION, "colors": colours, "properties": properties},
            "stegoflow": legend.provenance,
        }
    )


def _write_scores(part: Path, legend: Legend, image: ImageFacts, shape: tuple[int, ...]) -> None:
    assert image.scores is not None
    group = _group(part)
    array = _array(group, "0", (len(legend.names), *shape), (1, TILE, TILE), np.uint8)
    for number, score in enumerate(image.scores()):
        array[number] = score
    window = {"start": 0, "end": 255, "min": 0, "max": 255}
    channels = [
        {"label": name, "color": legend.css(number)[1:].upper(), "window": window, "active": number < 3}
        for number, name in enumerate(legend.names)
    ]
    multiscales = _multiscales(image, [(shape[0], shape[1])], channels=True)
    group.attrs.update({"multiscales": [multiscales], "omero": {"version": VERSION, "channels": channels}})


def _group(part: Path) -> Any:
    import zarr

    return zarr.create_group(str(part), zarr_format=2)


def _array(group: Any, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> Any:
    from numcodecs import Blosc

    inside = tuple(min(chunk, size) for chunk, size in zip(chunks, shape, strict=True))
    separated = {"name": "v2", "separator": "/"}
    packed = Blosc("zstd", 5, Blosc.NOSHUFFLE)
    return group.create_array(
        name, shape=shape, chunks=inside, dtype=dtype, compressors=packed, chunk_key_encoding=separated
    )


def _multiscales(image: ImageFacts, sizes: list[tuple[int, int]], *, channels: bool) -> dict[str, Any]:
    pixel = image.pixel_size
    unit = {"unit": UNITS[pixel.unit]} if pixel and pixel.unit in UNITS else {}
    steps = (pixel.y, pixel.x) if pixel and unit else (1.0, 1.0)
    datasets = []
    for number, size in enumerate(sizes):
        scale = [step * full / side for step, full, side in zip(steps, sizes[0], size, strict=True)]
        scale = [1.0, *scale] if channels else scale
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    axes: list[dict[str, Any]] = [{"name": "c", "type": "channel"}] if channels else []
    axes += [{"name": name, "type": "space", **unit} for name in "yx"]
    name = image.name.rpartition("/")[2]
    return {"version": VERSION, "name": name, "axes": axes, "datasets": datasets, "type": "nearest"}


WRITER = Writer(one, suffix=".scores.zarr")
