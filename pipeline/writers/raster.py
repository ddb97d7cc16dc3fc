"""PNGs of ids."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.writers.interface import LabelMap, strips, whole

LARGE = 2**24
"""Pixels up to which a PNG is made by Pillow, which packs better and holds all of it."""


def png(ids: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """A PNG of ids (height, width), uint8 or uint16, or of colours (height, width, 3) uint8.

    colours: (K, 3) uint8, the palette of uint8 ids; its other entries are black.
    """
    picture, sink = Image.fromarray(ids), io.BytesIO()
    if colours is not None:
        picture.putpalette(_palette(colours))
    picture.save(sink, "PNG")
    return sink.getvalue()


def write_png(path: Path, ids: LabelMap, colours: np.ndarray | None = None) -> None:
    """Write `png` of a label map; of a large one strip by strip."""
    height, width = ids.shape
    if height * width <= LARGE:
        path.write_bytes(png(whole(ids), colours))
        return
    size = np.dtype(ids.dtype).itemsize
    packer = zlib.compressobj(6)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        head = struct.pack(">IIBBBBB", width, height, 8 * size, 0 if colours is None else 3, 0, 0, 0)
        file.write(_chunk(b"IHDR", head))
        if colours is not None:
            file.write(_chunk(b"PLTE", _palette(colours)))
        for _, part in strips(ids):
            lines = np.zeros((len(part), 1 + size * width), np.uint8)  # each begins with 0: not filtered
            lines[:, 1:] = np.ascontiguousarray(part, f">u{size}").view(np.uint8)
            if packed := packer.compress(lines.tobytes()):
                file.write(_chunk(b"IDAT", packed))
        file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def _palette(colours: np.ndarray) -> bytes:
    return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)]).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
