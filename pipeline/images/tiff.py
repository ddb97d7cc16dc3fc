"""TIFF: a small one is decoded whole, a large one of tiles or strips is read by windows, from the best of its levels.

- **Channels**: one, or one and alpha, is grey; of three or more the first three are used (RGB + infrared: RGB), whether
  they are stored interleaved or as planes of one page. Of several pages or depths the first is read; channels stored as
  *pages* are therefore reduced to the first one. Pages (or SubIFDs) that are smaller copies of it are its levels.
- **Orientation**: its own tag is applied to images, never to labels.
- **By windows** go images of more than `WINDOWED` pixels that hold 8-bit grey or RGB, upright. Others are decoded
  whole: how values of more bits become 8 bits depends on all of them (`pixels.to_uint8`).
"""

import io
import logging
import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from pipeline.core.extras import require
from pipeline.images.files import File
from pipeline.images.pillow import ORIENTATION, rgb_pixels
from pipeline.images.pixels import DecodeError, channels, rgb, to_uint8, upright
from pipeline.images.source import Level, PixelSize, Source, Whole, Windowed, check_size

WINDOWED = 2**24
"""Pixels (16.8 megapixels) up to which a TIFF is decoded whole: faster, and its coarser levels have no say."""
CACHE = 2**26
"""Bytes of decoded tiles that an open image keeps: neighbouring windows share them."""
PAGES = 32
"""Pages that are looked at for coarser levels."""
BUILT_IN = (1, 8, 32773, 32946, 34925)
"""The compressions that tifffile decodes by itself: none, deflate, PackBits, deflate, LZMA."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else every odd tag of every file is printed


def open_image(file: File) -> Source:
    """A TIFF or BigTIFF of any kind."""
    import tifffile

    with tifffile.TiffFile(file.stream()) as opened:
        page = opened.pages[0]
        _require_codecs(file.name, page)
        height, width, orientation = page.imagelength, page.imagewidth, _orientation(page)
        names = _channels(page)
        why = _whole_because(page)
        if height * width > WINDOWED and not why:
            return _Tiled(file, [page, *_coarser(opened, page)], names)
        check_size(file.name, height, width, int(np.prod(page.shaped, dtype=np.float64)), why)
        size = (width, height) if orientation >= 5 else (height, width)
        return Whole(file.name, size, lambda: _decode(file), names, _pixel_size(page))


def decode_label(file: File) -> np.ndarray:
    """The stored numbers of the first page, (H, W) or (H, W, C)."""
    label, _ = _samples(file)
    return label[..., 0] if label.shape[2] == 1 else label


def _samples(file: File) -> tuple[np.ndarray, Any]:
    """The first page's samples (H, W, C) as they are stored, and the page, whose file is closed."""
    import tifffile

    data = file.content()
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages[0]
        _require_codecs(file.name, page)
        check_size(file.name, page.imagelength, page.imagewidth, int(np.prod(page.shaped, dtype=np.float64)))
        _check_end(page, len(data))
        samples = page.asarray(squeeze=False, maxworkers=1)  # (planes, depth, H, W, interleaved)
        return np.moveaxis(samples[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, -1), page


def _decode(file: File) -> np.ndarray:
    import tifffile

    data = file.content()
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages[0]
        jpeg_colour = page.photometric == 6 and page.compression == 7  # its YCbCr arrives as RGB
    if page.photometric not in (0, 1, 2, 3) and not jpeg_colour:  # CMYK, LAB, YCbCr: Pillow converts (and turns) them
        from PIL.TiffImagePlugin import TiffImageFile

        return rgb_pixels(TiffImageFile(io.BytesIO(data)))
    samples, page = _samples(file)
    if page.photometric == 3:  # palette of 16-bit colours; some writers fill in 8-bit ones
        colours = page.colormap.T if page.colormap.max() < 256 else page.colormap.T >> 8
        pixels = colours.astype(np.uint8)[samples[..., 0]]
    else:
        bits = page.bitspersample if 1 < page.bitspersample < 16 else 0
        pixels = rgb(to_uint8(channels(samples), bits))
        pixels = 255 - pixels if page.photometric == 0 else pixels  # 0: white is zero
    return upright(pixels, _orientation(page))


def _require_codecs(name: str, page: Any) -> None:
    """ConfigError where a page can be decoded with imagecodecs alone, and that is not installed."""
    if page.compression not in BUILT_IN or page.predictor not in (1, 2) or page.bitspersample % 8:
        kind = getattr(page.compression, "name", page.compression)
        require("imagecodecs", f"{name}, a TIFF compressed by {kind},")


def _orientation(page: Any) -> int:
    tag = page.tags.get(ORIENTATION)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def _check_end(page: Any, size: int) -> None:
    if not len(page.dataoffsets) or int(np.add(page.dataoffsets, page.databytecounts).max()) > size:
        raise DecodeError(f"cut short: the pixels are missing or end beyond its {size} bytes")


def _pixel_size(page: Any) -> PixelSize | None:
    """From the tags of resolution, where they have a unit. 72 and 96 dots per inch are what programs write who know
    none."""
    micrometres = {2: 25400.0, 3: 10000.0}.get(int(page.resolutionunit))
    x, y = page.resolution
    if micrometres is None or x <= 0 or y <= 0 or (micrometres == 25400 and {x, y} <= {72, 96}):
        return None
    return PixelSize(micrometres / x, micrometres / y, "µm")


def _channels(page: Any) -> tuple[str, ...]:
    count = page.samplesperpixel
    names = ("R", "G", "B") if page.photometric in (2, 6) and count >= 3 else ()
    return (*names, *(str(number) for number in range(len(names) + 1, count + 1)))


# By windows ----------------------------------------------------------------------------------------------------------


def _whole_because(page: Any) -> str:
    """Why a page cannot be read by windows; empty where it can."""
    if _orientation(page) != 1:
        return "it is stored turned: vips autorot first"
    if page.dtype != np.uint8 or page.bitspersample != 8:
        return f"its values are {page.dtype}: scale them to 8 bits first"
    if page.imagedepth != 1 or not (page.photometric in (0, 1, 2) or (page.photometric == 6 and page.compression == 7)):
        return "it is neither grey nor RGB: vips colourspace … srgb first"
    stored = page.samplesperpixel if page.planarconfig == 1 else 1
    if not _is_raw(page) and math.prod(_shape(page)) * stored > CACHE:
        return "its strips or tiles are too large"
    return ""


def _coarser(opened: Any, first: Any) -> Iterator[Any]:
    """The pages that hold the first one in less detail, finest first: of its SubIFDs, or of the pages that follow."""
    below = first.pages if first.subifds else ()
    last = first
    for page in (*below, *islice(opened.pages, 1, PAGES)):
        page = page.aspage()
        same = all(
            getattr(page, name) == getattr(first, name) for name in ("samplesperpixel", "photometric", "planarconfig")
        )
        # Of the same shape: sides are rounded anew from level to level.
        slope = first.imagelength / first.imagewidth
        alike = abs(page.imagelength - page.imagewidth * slope) <= 1 + slope
        smaller = page.imagelength * page.imagewidth < last.imagelength * last.imagewidth and page.imagewidth > 1
        if same and alike and smaller and not _whole_because(page):
            last = page
            yield page


class _Tiles:
    """How one page is stored: equal rectangles, each of its own bytes in the file. A strip is as wide as the page."""

    def __init__(self, file: File, page: Any) -> None:
        self.file, self.page = file, page
        interleaved = page.planarconfig == 1
        wanted = 3 if page.samplesperpixel >= 3 else 1
        self.planes = 1 if interleaved else wanted
        self.stored = page.samplesperpixel if interleaved else 1
        self.kept = wanted if interleaved else 1
        self.raw = _is_raw(page)
        if self.raw:
            self.height, self.width = max(1, 2**20 // (page.imagewidth * self.stored)), page.imagewidth
        else:
            self.height, self.width = _shape(page)
        self.rows, self.columns = -(-page.imagelength // self.height), -(-page.imagewidth // self.width)
        self.bytes = self.height * self.width * self.stored
        _check_end(page, file.size)
        complete = (
            page.dataoffsets[0] + page.nbytes <= file.size
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
        """The pixels of one tile, uint8 (height, width, kept), cut off where the page ends."""
        page, top = self.page, row * self.height
        height = min(self.height, page.imagelength - top)
        width = min(self.width, page.imagewidth - column * self.width)
        if self.raw:
            line = page.imagewidth * self.stored
            data = self.file.read(page.dataoffsets[0] + (plane * page.imagelength + top) * line, height * line)
            tile = np.frombuffer(data, np.uint8).reshape(height, width, self.stored)
        else:
            number = (plane * self.rows + row) * self.columns + column
            offset, length = page.dataoffsets[number], page.databytecounts[number]
            if not length:  # a sparse file leaves out tiles that hold nothing
                return np.full((height, width, self.kept), page.nodata, np.uint8)
            segment, _, _ = self.decode(self.file.read(offset, length), number, _fullsize=False, **self.tables)
            tile = segment[0, :height, :width]
        return tile[..., : self.kept]


def _is_raw(page: Any) -> bool:
    """Whether a page is one run of pixels, of which any rows can be read."""
    return bool(page.is_contiguous and page.predictor == 1 and page.fillorder == 1)


def _shape(page: Any) -> tuple[int, int]:
    """(height, width) of a page's tiles or strips."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


class _Tiled(Windowed):
    """The first page and the smaller copies of it, tile by tile."""

    def __init__(self, file: File, pages: list[Any], channels: tuple[str, ...]) -> None:
        height, width = pages[0].imagelength, pages[0].imagewidth
        self.name, self.channels, self.pixel_size = file.name, channels, _pixel_size(pages[0])
        self.levels = tuple(
            Level(page.imagelength, page.imagewidth, min(height / page.imagelength, width / page.imagewidth))
            for page in pages
        )
        self._tiles = [_Tiles(file, page) for page in pages]
        self._inverted = pages[0].photometric == 0  # white is zero
        kept = CACHE // max(tiles.bytes for tiles in self._tiles)
        self._read = lru_cache(max(1, kept))(_Tiles.read)

    def region(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        tiles = self._tiles[level]
        out = np.empty((height, width, tiles.planes * tiles.kept), np.uint8)
        for row in range(y // tiles.height, (y + height - 1) // tiles.height + 1):
            for column in range(x // tiles.width, (x + width - 1) // tiles.width + 1):
                top, left = row * tiles.height, column * tiles.width
                # Of the tile, and the same of the rectangle.
                ty, tx = slice(max(0, y - top), y + height - top), slice(max(0, x - left), x + width - left)
                oy, ox = max(0, top - y), max(0, left - x)
                for plane in range(tiles.planes):
                    part = self._read(tiles, plane, row, column)[ty, tx]
                    at = slice(plane * tiles.kept, (plane + 1) * tiles.kept)
                    out[oy : oy + part.shape[0], ox : ox + part.shape[1], at] = part
        return rgb(255 - out if self._inverted else out)
