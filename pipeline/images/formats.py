"""Bytes to pixels: pictures and label maps.

What a file is, its first bytes decide; its name appears in messages only (MATLAB files apart). Every rule below is a
pure function of the one file, so that an image has the same pixels in every corpus, process and order.

- **Values** are scaled to 8 bits as `pixels` says.
- **Alpha** is dropped, never composited: the stored colours are the data, a background would be invented. ICC profiles
  are ignored.
- **Channels** of a TIFF: one, or one and alpha, is grey; of three or more the first three are used (RGB + infrared:
  RGB), whether they are stored interleaved or as planes of one page. Of several pages, frames or depths the first is
  read; channels stored as *pages* are therefore reduced to the first one.
- **MATLAB files** (Potsdam's tiles) are known by their name, `.mat`: no folder of images lists them.
- **Orientation** (EXIF; for TIFF its own tag) is applied to images, never to labels.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.core.errors import ConfigError
from pipeline.core.extras import installed, require
from pipeline.datasets.benchmarks import potsdam3
from pipeline.images.pixels import DecodeError, channels, rgb, to_uint8, upright

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif")
"""Extensions, in lower case, that make a listed file an image. Compare with ``name.lower().endswith(SUFFIXES)``."""

MAX_PIXELS = 2**28
"""Larger images (268 megapixels, 16384 squared) are refused before their pixels are decoded: a few kilobytes may claim
any size. Cut larger scans into tiles. A TIFF may hold four times as many samples, over all its channels."""

_ORIENTATION = 274  # the tag's number in EXIF and in TIFF
_PNG = b"\x89PNG\r\n\x1a\n"
_MATLAB = ".mat"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_BUILT_IN = (1, 8, 32773, 32946, 34925)  # what tifffile decodes by itself: none, deflate, PackBits, deflate, LZMA
# The plugins themselves, not Image.open: that one tries every format it knows and has a size limit of its own.
_PLUGINS: dict[bytes, Callable[[Any], Any]] = {
    b"\xff\xd8\xff": jpeg_factory,
    _PNG: PngImageFile,
    b"GIF8": GifImageFile,
    b"BM": BmpImageFile,
    b"RIFF": WebPImageFile,
}

for _library in ("tifffile", "PIL"):  # else every odd tag of every file is printed where logging is not set up
    logging.getLogger(_library).addHandler(logging.NullHandler())


def decode(data: bytes, name: str) -> np.ndarray:
    """The image in `data` as a new uint8 array (H, W, 3), RGB, upright. Scaling and channels: see the module.

    Raises DecodeError (`name` is its first word) for bytes that are empty, damaged, cut short, too large or no image.
    """
    with _decoding(name, data):
        _require_codecs(data, name)
        if name.endswith(_MATLAB):
            pixels = potsdam3.decode_image(data)
        elif data.startswith(_TIFF):
            pixels = _decode_tiff(data)
        elif data.startswith(_PNG) and data[24:25] == b"\x10":  # Pillow would cut 16-bit colour to its high bytes
            from imagecodecs import png_decode

            _check(*_pillow(data).size[::-1])
            pixels = upright(rgb(to_uint8(channels(png_decode(data)))), _orientation(data))
        else:
            image = _pillow(data)
            _check(image.height, image.width)
            pixels = upright(_pillow_rgb(image), _orientation(data, image))
    return np.ascontiguousarray(pixels)


def size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of what `decode` returns, from the header alone: damage further on goes unnoticed.

    Raises DecodeError as `decode` does.
    """
    with _decoding(name, data):
        _require_codecs(data, name)
        if name.endswith(_MATLAB):
            height, width, orientation = *potsdam3.decode_image(data).shape[:2], 1
        elif data.startswith(_TIFF):
            import tifffile

            with tifffile.TiffFile(io.BytesIO(data)) as file:
                page = file.pages[0]
                height, width, orientation = page.imagelength, page.imagewidth, _tiff_orientation(page)
        else:
            image = _pillow(data)
            width, height, orientation = *image.size, _orientation(data, image)
        _check(height, width)
    return (width, height) if orientation >= 5 else (height, width)


def resize(
    image: np.ndarray, height: int, width: int, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """`image` uint8 (H, W, 3), or its window `box` = (y0, x0, h, w) in source pixels, as uint8 (height, width, 3).

    Bicubic, antialiased when it shrinks (Pillow). At the window's edges the filter reads the pixels beyond it, so that
    neighbouring windows fit together. Raises ValueError for a window that is empty or not inside the image.
    """
    window = None
    if box is not None:
        y0, x0, h, w = box
        window = (x0, y0, round(x0 + w, 6), round(y0 + h, 6))  # y0 + h may exceed H by a rounding error
        if h <= 0 or w <= 0:
            raise ValueError(f"box {box} is empty")
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=window))


def decode_label(data: bytes, name: str) -> np.ndarray:
    """The label map in `data` as int32 (H, W): the stored numbers of a single-channel PNG or integer TIFF.

    Palette files give their indices, not their colours. Nothing is scaled, and the orientation tag is ignored.
    Raises DecodeError as `decode` does, ConfigError for a readable file that holds no class ids.
    """
    with _decoding(name, data):
        _require_codecs(data, name)
        if name.endswith(_MATLAB):
            label = potsdam3.decode_label(data)
        elif data.startswith(_TIFF):
            label, _ = _read_tiff(data)
            label = label[..., 0] if label.shape[2] == 1 else label
        else:
            image = _pillow(data)
            if image.format != "PNG":
                raise _no_label(name, f"a label must be a PNG or a TIFF, not {image.format}, which alters numbers")
            _check(image.height, image.width)
            label = np.array(image)
            if image.mode == "L" and data[24] < 8:  # Pillow stretches 2 and 4 bits to 0..255
                label = label // (255 // (2 ** data[24] - 1))
    if label.ndim != 2:
        raise _no_label(name, f"a label must have one channel, this one has {label.shape[2]} (colours?)")
    if label.dtype.kind not in "bui":
        raise _no_label(name, f"a label must hold integers, this one holds {label.dtype}")
    limits = np.iinfo(np.int32)
    if label.max() > limits.max or label.min() < limits.min:
        raise _no_label(name, f"label values {label.min()} to {label.max()} are no class ids")
    return np.ascontiguousarray(label, dtype=np.int32)


def _no_label(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{name}: {reason}",
        next=f"save {name} as a single-channel PNG whose pixels are class ids (0, 1, 2, …; 255 where unlabelled)",
    )


@contextmanager
def _decoding(name: str, data: bytes) -> Iterator[None]:
    """Whatever a decoder raises becomes a DecodeError; what it only warns of is kept quiet."""
    if not data:
        raise DecodeError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            # Corrupt EXIF, malformed MPO, ... Filters are global: threads may at worst leave this one in place.
            warnings.filterwarnings("ignore", module="PIL")
            yield
    except (MemoryError, ConfigError):
        raise
    except DecodeError as error:
        raise DecodeError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, IndexError, their own, ...
        raise DecodeError(f"{name}: cannot be decoded: {error or type(error).__name__}") from error


def _require_codecs(data: bytes, name: str) -> None:
    """ConfigError where a file can be decoded with imagecodecs alone, and that is not installed."""
    if installed("imagecodecs"):
        return
    if data.startswith(_PNG) and data[24:25] == b"\x10":
        require("imagecodecs", f"{name}, a PNG of 16 bits,")
    elif data.startswith(_TIFF):
        import tifffile

        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            if page.compression not in _BUILT_IN or page.predictor not in (1, 2) or page.bitspersample % 8:
                require(
                    "imagecodecs",
                    f"{name}, a TIFF compressed by {getattr(page.compression, 'name', page.compression)},",
                )


def _check(height: int, width: int, samples: int = 0) -> None:
    if height < 1 or width < 1:
        raise DecodeError(f"has no pixels ({height} × {width})")
    if height * width > MAX_PIXELS or samples > 4 * MAX_PIXELS:
        raise DecodeError(f"{height} × {width} pixels are more than the {MAX_PIXELS / 1e6:.0f} megapixels allowed")


def _pillow(data: bytes) -> Image.Image:
    """The opened image, its pixels not yet decoded."""
    for magic, plugin in _PLUGINS.items():
        if data.startswith(magic):
            return plugin(io.BytesIO(data))
    raise DecodeError(f"not a JPEG, PNG, TIFF, WebP, BMP or GIF (it begins with {data[:16]!r})")


def _pillow_rgb(image: Image.Image) -> np.ndarray:
    image.load()
    image.info.pop("transparency", None)  # else convert() would act on it
    return np.array(image.convert("RGB"))


def _orientation(data: bytes, image: Image.Image | None = None) -> int:
    """EXIF orientation 1..8, or 1. A PNG's may follow its pixels, which Pillow would decode to reach it."""
    try:
        if data.startswith(_PNG):
            exif, at = Image.Exif(), len(_PNG)
            while at + 8 <= len(data):
                length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
                if kind == b"eXIf":
                    exif.load(data[at + 8 : at + 8 + length])
                at += length + 12
        else:
            assert image is not None
            exif = image.getexif()
        value = exif.get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _tiff_orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def _read_tiff(data: bytes) -> tuple[np.ndarray, Any]:
    """The first page's samples (H, W, C) as they are stored, and the page, whose file is closed."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        _check(page.imagelength, page.imagewidth, int(np.prod(page.shaped, dtype=np.float64)))
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if not ends or max(ends) > len(data):
            raise DecodeError(f"cut short: the pixels are missing or end beyond its {len(data)} bytes")
        samples = page.asarray(squeeze=False, maxworkers=1)  # (planes, depth, H, W, interleaved)
        return np.moveaxis(samples[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, -1), page


def _decode_tiff(data: bytes) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        _check(page.imagelength, page.imagewidth)
        jpeg_colour = page.photometric == 6 and page.compression == 7  # its YCbCr arrives as RGB
    if page.photometric not in (0, 1, 2, 3) and not jpeg_colour:  # CMYK, LAB, YCbCr: Pillow converts (and turns) them
        return _pillow_rgb(TiffImagePlugin.TiffImageFile(io.BytesIO(data)))
    samples, page = _read_tiff(data)
    if page.photometric == 3:  # palette of 16-bit colours; some writers fill in 8-bit ones
        colours = page.colormap.T if page.colormap.max() < 256 else page.colormap.T >> 8
        pixels = colours.astype(np.uint8)[samples[..., 0]]
    else:
        bits = page.bitspersample if 1 < page.bitspersample < 16 else 0
        pixels = rgb(to_uint8(channels(samples), bits))
        pixels = 255 - pixels if page.photometric == 0 else pixels  # 0: white is zero
    return upright(pixels, _tiff_orientation(page))
