"""Image files made in memory, for the tests of `pipeline.images.formats`."""

import io
import struct
import zlib

import numpy as np
import tifffile
from imagecodecs import png_encode
from PIL import Image

from pipeline.images.files import Memory
from pipeline.images.formats import decode, open_image

PNG = b"\x89PNG\r\n\x1a\n"
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
RAMP = np.arange(35, dtype=np.uint16).reshape(5, 7)


def encode(image, format, **options) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, format, **options)
    return buffer.getvalue()


def tiff(image, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def png16(image) -> bytes:
    """uint16 (H, W) or (H, W, 2..4): with 16 bits per channel, which Pillow writes for grey only."""
    return bytes(png_encode(image))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) as the header says."""
    return open_image(Memory(name, data)).size


def check(data: bytes, expected: np.ndarray, tolerance: int = 0) -> None:
    pixels = decode(data, "a")
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels.flags["WRITEABLE"]
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert pixels.shape == expected.shape
    assert size(data, "a") == pixels.shape[:2]
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance
