"""Label maps of a masks artifact: how they are encoded, and reading them back."""

import io
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from pipeline.artifacts.images import ByImage, Images
from pipeline.artifacts.mask_tiles import Tiled, items_of, predicted_rows
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Part
from pipeline.core.errors import ConfigError, Set


def mask_dtype(clusters: int) -> type[np.unsignedinteger]:
    """uint8 for up to 255 clusters, else uint16."""
    return np.uint8 if clusters <= 255 else np.uint16


def ignore_value(clusters: int) -> int:
    """The mask value of pixels that have no cluster."""
    return int(np.iinfo(mask_dtype(clusters)).max)


def encode_png(mask: np.ndarray | None) -> bytes | None:
    """PNG bytes of a label map (uint8 or uint16)."""
    if mask is None:
        return None
    sink = io.BytesIO()
    Image.fromarray(mask).save(sink, "PNG")
    return sink.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """The label map of `encode_png`."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:  # noqa: TID251 (one format, named)
        return np.asarray(image).astype(np.uint16 if image.mode.startswith("I") else np.uint8)


def read_masks(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Every row of a masks artifact, part by part in the order of the images; of a large one a row for each tile."""
    for name in sorted(artifact.markers()):
        yield from artifact.read_table(f"masks/{name}.parquet").to_pylist()


def mask_rows(artifact: Artifact, start: int, stop: int) -> list[dict[str, Any]]:
    """The rows start..stop−1 of finished masks, in the order of the images, of large ones tile by tile."""
    part, total = artifact.manifest["part"], items_of(artifact).total
    rows = []
    for begin in range(start // part * part, stop, part):
        name = Part(begin, min(begin + part, total)).name
        rows += _part(artifact, name)[max(0, start - begin) : stop - begin]
    return rows


def stored_map(masks: Artifact, position: int, column: str = "mask") -> tuple[dict[str, Any], Any]:
    """Of the image at a position of `images.json` the facts (split, id, path, height, width) and the label map: an
    array, for a large image `Tiled`; None where there is none."""
    rows = items_of(masks).rows(position)
    (first,) = mask_rows(masks, rows.start, rows.start + 1)
    facts = {key: first[key] for key in ("split", "id", "path", "height", "width")}
    if first[column] is None:
        return facts, None
    if len(rows) == 1:
        return facts, decode_png(first[column])

    def tile(number: int) -> np.ndarray:
        (row,) = mask_rows(masks, rows.start + number, rows.start + number + 1)
        return decode_png(row[column])

    return facts, Tiled((facts["height"], facts["width"]), mask_dtype(masks.manifest["clusters"]), tile)


def label_maps(masks: Artifact, images: Images, *, crf: bool | None = None) -> ByImage[np.ndarray]:
    """The label map of each predicted image, (height, width) uint8 or uint16; (0, 0) for an image of unknown size. That
    of a large image is `Tiled`, which reads a window when it is sliced.

    With the CRF (`crf`), without it, or (None) with it where the run has it. ConfigError where the run has none.
    """
    there = masks.manifest["params"]["crf"]
    if crf and not there:
        raise ConfigError(
            "this run was made with masks.crf=false", next=("run its config with ", Set("masks.crf", True))
        )
    column = "mask_crf" if crf or (crf is None and there) else "mask"
    rows = predicted_rows(masks)

    def read(row: int) -> np.ndarray:
        facts, found = stored_map(masks, bisect_left(rows, row), column)
        if (facts["split"], facts["id"]) != images.name(row):
            raise masks.damaged(f"masks {masks.fingerprint} hold {facts['id']} in the place of {images.name(row)[1]}")
        return np.zeros((0, 0), mask_dtype(masks.manifest["clusters"])) if found is None else found

    return ByImage(images, rows, read)


@lru_cache(maxsize=2)  # neighbouring images are read one after the other
def _part(masks: Artifact, name: str) -> list[dict[str, Any]]:
    return masks.read_table(f"masks/{name}.parquet").to_pylist()
