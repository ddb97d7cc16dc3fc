"""Label maps of a masks artifact: how they are encoded, and reading them back."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from pipeline.core.artifact import Artifact


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
    """Every row of a masks artifact, part by part in the order of the images."""
    for name in sorted(artifact.markers()):
        yield from artifact.read_table(f"masks/{name}.parquet").to_pylist()
