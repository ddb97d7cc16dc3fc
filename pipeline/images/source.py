"""A source: an image that can be read by windows, whatever its format.

A format makes one of two kinds. `Whole` decodes all pixels once and cuts windows from them. A subclass of `Windowed`
gives pixels of one rectangle of one level (`region`); which level a window is read from, how it is resized and what is
averaged beforehand is the same for all of them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipeline.images.pixels import DecodeError, decoding, resize

MAX_PIXELS = 2**28
"""Larger images (268 megapixels, 16384 squared) are not decoded whole: a few kilobytes may claim any size."""
BAND = 2**25
"""Bytes of a level that are held at a time where its pixels are averaged before they are resized."""


class Level(NamedTuple):
    """One resolution of an image."""

    height: int
    width: int
    factor: float
    """Pixels of level 0 per pixel of this one; 1 for level 0."""


class PixelSize(NamedTuple):
    """What one pixel of level 0 measures."""

    x: float
    y: float
    unit: str
    """`µm`; `m` or `°` on Earth, `arcsec` in the sky."""


@dataclass(frozen=True)
class Georeference:
    """Where an image lies on Earth (CRS and transform) or in the sky (WCS)."""

    crs: str | None = None
    """WKT."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """(a, b, c, d, e, f) of x = a · column + b · row + c, y = d · column + e · row + f; the corner of pixel (0, 0) is
    column 0, row 0. As `affine.Affine(*transform)`."""
    wcs: str | None = None
    """Cards of a FITS header, one a line: `Header.fromstring(wcs, sep="\\n")`."""


Rectangle = tuple[float, float, float, float]
"""(y0, x0, height, width) in pixels of level 0."""

Sized = tuple[dict[str, int], int, int]
"""One image of a file that holds several: its keys, such as {"z": 12}, its height and width."""


class Source(ABC):
    """An image, upright, as 8-bit RGB. Opening one reads its header alone."""

    name: str
    """Its path below the root, for messages."""
    levels: tuple[Level, ...]
    """The resolutions it is stored in, finest first. Level 0 is the image."""
    channels: tuple[str, ...] = ("R", "G", "B")
    """What is stored, by name (or number); the first three, or the first alone as grey, are what `read` gives."""
    pixel_size: PixelSize | None = None
    locate: Callable[[], Georeference | None] | None = None
    raster: Any = None
    """What is stored (`raster.Raster`), of a source that shows it."""
    sparse: bool = False
    """Whether `valid` may be false anywhere: an image with a nodata value, a slide."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.levels[0].height, self.levels[0].width

    @cached_property
    def georeference(self) -> Georeference | None:
        """Where it lies on Earth or in the sky; None where nothing says so, or what reads it is not installed."""
        if self.locate is None:
            return None
        with decoding(self.name):
            return self.locate()

    @abstractmethod
    def read(self, window: Rectangle, size: tuple[int, int]) -> np.ndarray:
        """A window, resized: uint8 (height, width, 3) for `size` = (height, width).

        Bicubic, antialiased where it shrinks (`pixels.resize`). Raises DecodeError where the pixels are damaged,
        ValueError for a window that is empty or not inside the image, and what `files.Stored.read` raises.
        """

    @abstractmethod
    def pixels(self) -> np.ndarray:
        """The whole image, uint8 (H, W, 3). DecodeError where it has more than `MAX_PIXELS`."""

    def valid(self, window: Rectangle, size: tuple[int, int]) -> np.ndarray:
        """Where a window has content (no nodata, no slide glass), by the nearest pixel: bool (height, width)."""
        return np.ones(size, bool)


class Whole(Source):
    """An image whose pixels are decoded all at once, at the first read."""

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        decode: Callable[[], np.ndarray],
        channels: tuple[str, ...],
        pixel_size: PixelSize | None = None,
        locate: Callable[[], Georeference | None] | None = None,
        valid: Callable[[], np.ndarray] | None = None,
    ) -> None:
        """valid: where the image has content, bool (H, W); None: everywhere."""
        self.name, self.channels, self.pixel_size, self.locate = name, channels, pixel_size, locate
        self.levels = (Level(*size, 1.0),)
        self.sparse = valid is not None
        self._decode, self._find_valid = decode, valid

    @cached_property
    def _image(self) -> Image.Image:
        with decoding(self.name):
            return Image.fromarray(np.ascontiguousarray(self._decode()))

    @cached_property
    def _valid(self) -> np.ndarray:
        assert self._find_valid is not None
        with decoding(self.name):
            return self._find_valid()

    def read(self, window: Rectangle, size: tuple[int, int]) -> np.ndarray:
        return resize(self._image, *size, window)

    def pixels(self) -> np.ndarray:
        return np.array(self._image)

    def valid(self, window: Rectangle, size: tuple[int, int]) -> np.ndarray:
        if not self.sparse:
            return super().valid(window, size)
        y, x = nearest(window, size, self.size)
        return self._valid[np.ix_(y, x)]


class Windowed(Source):
    """An image that gives any rectangle of any level without the rest."""

    @abstractmethod
    def region(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """The pixels of a rectangle that lies inside a level: uint8 (height, width, 3)."""

    def read(self, window: Rectangle, size: tuple[int, int]) -> np.ndarray:
        height, width = self.size
        y0, x0, h, w = window
        if not (y0 >= 0 and x0 >= 0 and h > 0 and w > 0 and y0 + h <= height + 1e-6 and x0 + w <= width + 1e-6):
            raise ValueError(f"box {window} is empty or not inside {height} × {width} pixels")
        number = self.level_for(window, size)
        level = self.levels[number]
        fy, fx = height / level.height, width / level.width
        box = y0 / fy, x0 / fx, h / fy, w / fx
        # Where 6 or more pixels of it in a row still make one of the output, k of them are averaged first (at least 3
        # are left: Pillow calls such a `reducing_gap` close to none).
        ky, kx = (max(1, int(length / out // 3)) for length, out in zip(box[2:], size, strict=True))
        top, bottom = _reach(box[0], box[2], size[0], level.height, ky)
        left, right = _reach(box[1], box[3], size[1], level.width, kx)
        with decoding(self.name):
            image = self._averaged(number, top, left, bottom - top, right - left, ky, kx)
        y, x = (box[0] - top) / ky, (box[1] - left) / kx
        tall, wide = min(box[2] / ky, image.shape[0] - y), min(box[3] / kx, image.shape[1] - x)
        return resize(image, *size, (y, x, tall, wide))

    def level_for(self, window: Rectangle, size: tuple[int, int]) -> int:
        """The coarsest level that still has a pixel per pixel of the output."""
        wanted = min(window[2] / size[0], window[3] / size[1])
        return max(i for i, level in enumerate(self.levels) if i == 0 or level.factor <= wanted * (1 + 1e-3))

    def pixels(self) -> np.ndarray:
        height, width = self.size
        with decoding(self.name):
            check_size(self.name, height, width)
            return self.region(0, 0, 0, height, width)

    def _averaged(self, level: int, y: int, x: int, height: int, width: int, ky: int, kx: int) -> np.ndarray:
        """A rectangle of a level, of which every ky × kx pixels are averaged to one. Read in bands of `BAND` bytes."""
        if ky == kx == 1:
            return self.region(level, y, x, height, width)
        rows = max(1, BAND // (3 * width * ky)) * ky
        bands = []
        for top in range(0, height, rows):
            band = self.region(level, y + top, x, min(rows, height - top), width)
            bands.append(np.asarray(Image.fromarray(band).reduce((kx, ky))))
        return np.concatenate(bands)


def _reach(start: float, length: float, out: int, limit: int, k: int) -> tuple[int, int]:
    """The pixels (first, last + 1) of a level that the filter reads for `out` pixels: the window and, on each side, two
    pixels of the output (or of the level, where it is enlarged). Multiples of `k`, so that neighbouring windows average
    the same pixels; at most `limit`."""
    margin = 2 * max(length / out, k) + 1
    first, last = max(0, math.floor((start - margin) / k) * k), math.ceil((start + length + margin) / k) * k
    return first, min(limit, last)


def nearest(window: Rectangle, size: tuple[int, int], of: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns of an image (height, width) that lie nearest to the pixels of a resized window."""
    found = []
    for start, length, out, limit in zip(window[:2], window[2:], size, of, strict=True):
        at = np.floor(start + (np.arange(out) + 0.5) * length / out)
        found.append(np.clip(at, 0, limit - 1).astype(np.int64))
    return found[0], found[1]


def check_size(name: str, height: int, width: int, samples: int = 0, why: str = "") -> None:
    """DecodeError for an image without pixels, and for one that has to be decoded whole and is too large for that.

    samples: of all its channels, which may be four times `MAX_PIXELS`. why: it has to be decoded whole.
    """
    if height < 1 or width < 1:
        raise DecodeError(f"has no pixels ({height} × {width})")
    if height * width > MAX_PIXELS or samples > 4 * MAX_PIXELS:
        stem = name.rpartition("/")[2].rpartition(".")[0]
        raise DecodeError(
            f"{height} × {width} pixels are more than the {MAX_PIXELS / 1e6:.0f} megapixels that are decoded whole"
            f"{why and f' ({why})'}; {CONVERT.format(name=name.rpartition('/')[2], stem=stem)}"
        )


CONVERT = "convert it to a tiled TIFF, which is read by windows: vips tiffsave {name} {stem}.tif --tile --pyramid"
