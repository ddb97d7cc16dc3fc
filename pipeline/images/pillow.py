"""JPEG, PNG, WebP, BMP and GIF: decoded whole by Pillow, PNG of 16 bits by imagecodecs.

- **Alpha** is dropped, never composited: the stored colours are the data, a background would be invented. ICC profiles
  are ignored.
- Of several frames the first is read.
- **Orientation** (EXIF) is applied to images, never to labels.
"""

import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from pipeline.core.extras import require
from pipeline.images.files import File
from pipeline.images.pixels import channels, rgb, to_uint8, upright
from pipeline.images.raster import Array, show
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Source, Whole, check_size

ORIENTATION = 274
"""The tag's number in EXIF and in TIFF."""
PNG = b"\x89PNG\r\n\x1a\n"

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else every odd tag is printed where logging is not set up


def open_image(plugin: Callable[[Any], Image.Image], file: File, reading: Reading = AS_STORED) -> Source:
    """An image that one of Pillow's plugins reads.

    The plugin itself, not Image.open: that one tries every format it knows and has a size limit of its own.
    """
    image = plugin(file.stream())
    decode = lambda: rgb_pixels(plugin(io.BytesIO(file.content())))  # noqa: E731
    return _whole(file, image, _orientation(image.getexif), decode, reading)


def open_png(file: File, reading: Reading = AS_STORED) -> Source:
    """A PNG of any depth."""

    def decode() -> np.ndarray:
        data = file.content()
        if data[24] < 16:
            return rgb_pixels(PngImageFile(io.BytesIO(data)))
        from imagecodecs import png_decode  # Pillow would cut 16-bit colour to its high bytes

        samples = channels(png_decode(data))
        return samples if reading.values else rgb(to_uint8(samples))

    image = PngImageFile(file.stream())
    if file.read(24, 1) == b"\x10":
        require("imagecodecs", f"{file.name}, a PNG of 16 bits,")
    return _whole(file, image, _orientation(lambda: _png_exif(file)), decode, reading)


def decode_png_label(file: File) -> np.ndarray:
    """The stored numbers of a PNG, (H, W) or (H, W, C). Palette files give their indices."""
    data = file.content()
    image = PngImageFile(io.BytesIO(data))
    check_size(file.name, image.height, image.width)
    label = np.array(image)
    if image.mode == "L" and data[24] < 8:  # Pillow stretches 2 and 4 bits to 0..255
        label = label // (255 // (2 ** data[24] - 1))
    return label


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of an opened image, uint8 (H, W, 3)."""
    image.load()
    image.info.pop("transparency", None)  # else convert() would act on it
    return np.array(image.convert("RGB"))


def _whole(
    file: File, image: Image.Image, orientation: int, decode: Callable[[], np.ndarray], reading: Reading
) -> Source:
    check_size(file.name, image.height, image.width)
    size = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
    pixels = lambda: upright(decode(), orientation)  # noqa: E731
    if reading == AS_STORED:
        return Whole(file.name, size, pixels, image.getbands())
    deep = bool(reading.values) and file.read(0, 25)[24:] == b"\x10" and isinstance(image, PngImageFile)
    names = ("R", "G", "B") if not deep or len(image.getbands()) >= 3 else ("1",)
    return show(Array(file.name, size, pixels, names, np.dtype(np.uint16 if deep else np.uint8)), reading, True)


def _orientation(exif: Callable[[], Image.Exif]) -> int:
    """EXIF orientation 1..8, or 1."""
    try:
        value = exif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _png_exif(file: File) -> Image.Exif:
    """The EXIF data of a PNG: they may follow its pixels, which Pillow would decode to reach them."""
    exif, at = Image.Exif(), len(PNG)
    while at + 8 <= file.size:
        head = file.read(at, 8)
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            exif.load(file.read(at + 8, length))
        at += length + 12
    return exif
