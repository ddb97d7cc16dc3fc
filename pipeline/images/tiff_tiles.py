"""TIFF by windows: tiles and strips of pages, any depth and number of channels, and the coarser levels of an image."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from pipeline.images.files import File
from pipeline.images.pixels import DecodeError
from pipeline.images.raster import Raster
from pipeline.images.source import Level, PixelSize

CACHE = 2**26
"""Bytes of decoded tiles that an open image keeps: neighbouring windows share them."""
PAGES = 32
"""Pages that are looked at for coarser levels."""


def whole_because(page: Any) -> str:
    """Why a page cannot be read by windows; empty where it can."""
    if orientation(page) != 1:
        return "it is stored turned: vips autorot first"
    if page.dtype is None or page.bitspersample % 8 or page.dtype.kind not in "uif":
        return f"its values have {page.bitspersample} bits: convert them to 8 or 16 bits first"
    if page.imagedepth != 1 or not (page.photometric in (0, 1, 2) or (page.photometric == 6 and page.compression == 7)):
        return "it is neither grey nor RGB: vips colourspace … srgb first"
    stored = page.samplesperpixel if page.planarconfig == 1 else 1
    if not is_raw(page) and math.prod(shape(page)) * stored * page.dtype.itemsize > CACHE:
        return "its strips or tiles are too large"
    return ""


def orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def is_raw(page: Any) -> bool:
    """Whether a page is one run of pixels, of which any rows can be read."""
    return bool(page.is_contiguous and page.predictor == 1 and page.fillorder == 1)


def shape(page: Any) -> tuple[int, int]:
    """(height, width) of a page's tiles or strips."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def is_reduced(page: Any) -> bool:
    """Whether a page says that it is a smaller copy or a mask of another one (NewSubfileType 1 and 4)."""
    tag = page.tags.get(254)
    return tag is not None and bool(int(tag.value) & 5)


def coarser(opened: Any, first: Any, alone: bool) -> Iterator[Any]:
    """The pages that hold one in less detail, finest first: of its SubIFDs, or, where it is `alone` in its file, of the
    pages that follow."""
    below = first.pages if first.subifds else ()
    last = first
    for page in (*below, *(islice(opened.pages, 1, PAGES) if alone else ())):
        page = page.aspage()
        same = all(
            getattr(page, name) == getattr(first, name)
            for name in ("samplesperpixel", "photometric", "planarconfig", "dtype")
        )
        # Of the same shape: sides are rounded anew from level to level.
        slope = first.imagelength / first.imagewidth
        alike = abs(page.imagelength - page.imagewidth * slope) <= 1 + slope
        smaller = page.imagelength * page.imagewidth < last.imagelength * last.imagewidth and page.imagewidth > 1
        if same and alike and smaller and not whole_because(page):
            last = page
            yield page


def masks(opened: Any) -> dict[tuple[int, int], Any]:
    """GDAL's internal masks, where pixels have content, by (height, width): pages of their own, one a level."""
    found: dict[tuple[int, int], Any] = {}
    for page in islice(opened.pages, 1, PAGES):
        page = page.aspage()
        tag = page.tags.get(254)
        if tag is not None and int(tag.value) & 4 and page.samplesperpixel == 1 and page.bitspersample in (1, 8):
            found.setdefault((page.imagelength, page.imagewidth), page)
    return found


def check_end(page: Any, size: int) -> None:
    """DecodeError where the pixels of a page end beyond its file."""
    if not len(page.dataoffsets) or int(np.add(page.dataoffsets, page.databytecounts).max()) > size:
        raise DecodeError(f"cut short: the pixels are missing or end beyond its {size} bytes")


def nodata(page: Any) -> float | None:
    """The value that GDAL's tag calls nodata."""
    tag = page.tags.get(42113)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def is_sparse(page: Any) -> bool:
    """Whether a page says which of its pixels have content: by a nodata value, or by alpha where it lies on Earth."""
    return nodata(page) is not None or alpha(page) is not None


def alpha(page: Any) -> int | None:
    """The channel of a georeferenced page that is 0 where there is nothing."""
    if page.tags.get(33550) is None and page.tags.get(34264) is None:
        return None
    first = page.samplesperpixel - len(page.extrasamples)
    return next((first + n for n, kind in enumerate(page.extrasamples) if int(kind) in (1, 2)), None)


class _Tiles:
    """How one page is stored: equal rectangles, each of its own bytes in the file. A strip is as wide as the page."""

    def __init__(self, file: File, page: Any, offset: int | None, order: str) -> None:
        """offset: where the page's pixels begin in the file, if not where it says so itself (ImageJ's stacks)."""
        self.file, self.page = file, page
        self.dtype = page.dtype.newbyteorder(order)
        self.planes = 1 if page.planarconfig == 1 else page.samplesperpixel
        self.stored = page.samplesperpixel if page.planarconfig == 1 else 1
        self.raw = is_raw(page)
        if self.raw:
            line = page.imagewidth * self.stored * self.dtype.itemsize
            self.height, self.width = max(1, 2**20 // line), page.imagewidth
        else:
            self.height, self.width = shape(page)
        self.rows, self.columns = -(-page.imagelength // self.height), -(-page.imagewidth // self.width)
        self.bytes = self.height * self.width * self.stored * self.dtype.itemsize
        self.start = page.dataoffsets[0] if offset is None else offset
        if offset is None:
            check_end(page, file.size)
        complete = (
            self.start + page.nbytes <= file.size
            if self.raw
            else len(page.dataoffsets) >= self.planes * self.rows * self.columns
        )
        if not complete:
            raise DecodeError(f"cut short: {file.size} bytes cannot be {page.imagelength} × {page.imagewidth} pixels")
        # While the file is open: tifffile reads these from it.
        self.decode, self.tables = page.decode, {}
        if page.compression in (6, 7):
            self.tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}

    def read(self, plane: int, row: int, column: int) -> np.ndarray:
        """The samples of one tile, (height, width, stored), cut off where the page ends."""
        page, top = self.page, row * self.height
        height = min(self.height, page.imagelength - top)
        width = min(self.width, page.imagewidth - column * self.width)
        if self.raw:
            line = page.imagewidth * self.stored * self.dtype.itemsize
            data = self.file.read(self.start + (plane * page.imagelength + top) * line, height * line)
            return np.frombuffer(data, self.dtype).reshape(height, width, self.stored)
        number = (plane * self.rows + row) * self.columns + column
        offset, length = page.dataoffsets[number], page.databytecounts[number]
        if not length:  # a sparse file leaves out tiles that hold nothing
            return np.full((height, width, self.stored), page.nodata, page.dtype)
        segment, _, _ = self.decode(self.file.read(offset, length), number, _fullsize=False, **self.tables)
        return segment[0, :height, :width]


class TiffRaster(Raster):
    """One image of a TIFF: pages that hold its channels, and smaller copies of them, tile by tile."""

    rule = "depth"

    def __init__(
        self,
        file: File,
        levels: Sequence[Sequence[Any]],
        channels: tuple[str, ...],
        order: str,
        offsets: Sequence[int] | None = None,
        pixel_size: PixelSize | None = None,
        masks: dict[tuple[int, int], Any] | None = None,
    ) -> None:
        """levels: the pages of each level, finest first. order: of bytes. offsets: where the pages' pixels begin.
        masks: of a level, by its size."""
        first = levels[0][0]
        height, width = first.imagelength, first.imagewidth
        self.name, self.channels, self.pixel_size = file.name, channels, pixel_size
        self.dtype, self.nodata = first.dtype, nodata(first)
        # A band that GDAL calls alpha because it was the fourth has a name; and nodata goes before alpha, as there.
        self._alpha = (
            channels.index("A") if self.nodata is None and alpha(first) is not None and "A" in channels else None
        )
        self.levels = tuple(
            Level(
                pages[0].imagelength,
                pages[0].imagewidth,
                min(height / pages[0].imagelength, width / pages[0].imagewidth),
            )
            for pages in levels
        )
        self._tiles = [
            [_Tiles(file, page, offsets[n] if offsets else None, order) for n, page in enumerate(pages)]
            for pages in levels
        ]
        pages = [(masks or {}).get(level[:2]) for level in self.levels]
        self._masks = [page and _Tiles(file, page, None, order) for page in pages]
        self._inverted = first.photometric == 0  # white is zero
        largest = max(tiles.bytes for pages in self._tiles for tiles in pages)
        self._read = lru_cache(max(1, CACHE // largest))(_Tiles.read)

    @property
    def sparse(self) -> bool:
        return super().sparse or self._alpha is not None or any(self._masks)

    def valid(self, level: int, y: int, x: int, samples: np.ndarray) -> np.ndarray:
        found = super().valid(level, y, x, samples)
        if tiles := self._masks[level]:
            mask = np.empty((*found.shape, 1), np.uint8)
            self._fill(mask, tiles, 0, [(0, 0)], y, x)
            found &= mask[..., 0] > 0
        if self._alpha is not None:
            height, width = found.shape
            found &= self.samples(level, y, x, height, width, (self._alpha,))[..., 0] > 0
        return found

    def samples(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        out = np.empty((height, width, len(channels)), self.dtype)
        pages = self._tiles[level]
        each = len(self.channels) // len(pages)
        for page in sorted({channel // each for channel in channels}):
            wanted = [(at, channel % each) for at, channel in enumerate(channels) if channel // each == page]
            tiles = pages[page]
            if tiles.planes == 1:
                self._fill(out, tiles, 0, wanted, y, x)
            else:
                for at, plane in wanted:
                    self._fill(out, tiles, plane, [(at, 0)], y, x)
        if not self._inverted:
            return out
        return np.iinfo(self.dtype).max - out if self.dtype.kind == "u" else -out

    def _fill(self, out: np.ndarray, tiles: _Tiles, plane: int, wanted: list[tuple[int, int]], y: int, x: int) -> None:
        """Put channels of a page, (where in `out`, which), into the rectangle of the page whose corner is (y, x)."""
        height, width = out.shape[:2]
        at, which = (list(numbers) for numbers in zip(*wanted, strict=True))
        run = slice(at[0], at[-1] + 1) if at == list(range(at[0], at[-1] + 1)) else at
        pick = slice(which[0], which[-1] + 1) if which == list(range(which[0], which[-1] + 1)) else which
        for row in range(y // tiles.height, (y + height - 1) // tiles.height + 1):
            for column in range(x // tiles.width, (x + width - 1) // tiles.width + 1):
                top, left = row * tiles.height, column * tiles.width
                # Of the tile, and the same of the rectangle.
                ty, tx = slice(max(0, y - top), y + height - top), slice(max(0, x - left), x + width - left)
                oy, ox = max(0, top - y), max(0, left - x)
                part = self._read(tiles, plane, row, column)[ty, tx, pick]
                out[oy : oy + part.shape[0], ox : ox + part.shape[1], run] = part
