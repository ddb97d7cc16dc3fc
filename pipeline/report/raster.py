"""Pictures of the report: shrunk, and as data URIs."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of the same shape whose longer side is at most `side`."""
    scale = min(1, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def jpeg(image: np.ndarray) -> str:
    """An image (H, W, 3) uint8 as a data URI."""
    return _embedded(Image.fromarray(np.ascontiguousarray(image, np.uint8)), "jpeg", quality=85)


def png(ids: np.ndarray, colours: np.ndarray) -> str:
    """A map of ids (H, W) in their colours (n, 3) uint8 as a data URI; ids outside 0..n−1 are transparent."""
    n = len(colours)
    table = np.concatenate([np.insert(colours, 3, 255, axis=1), np.zeros((1, 4), np.uint8)])
    ids = np.where((ids >= 0) & (ids < n), ids, n)
    used = np.flatnonzero(np.bincount(ids.ravel(), minlength=n + 1))
    if len(used) > 256:  # more than a palette holds
        return _embedded(Image.fromarray(table[ids]), "png")
    index = np.zeros(n + 1, np.uint8)
    index[used] = np.arange(len(used))
    image = Image.fromarray(index[ids])
    image.putpalette(table[used, :3].tobytes())
    return _embedded(image, "png", transparency=table[used, 3].tobytes())


def _embedded(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
