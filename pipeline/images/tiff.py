"""TIFF: what is small is decoded whole, what is large is read by windows, from the best of its levels.

- **Channels**: one, or one and alpha, is grey; of three or more the first three are used (RGB + infrared: RGB), unless
  `dataset.channels` names others; they may be interleaved, planes of a page, or pages (ImageJ, OME).
- **Pages** that are smaller copies of the first (or SubIFDs) are its levels. Planes of a stack (z, t, or just pages)
  are images of their own, `tiff_stacks`.
- **Orientation**: its own tag is applied to images, never to labels.
- **By windows** go images of more than `WINDOWED` pixels that are grey or of any number of channels, upright. Others
  are decoded whole.
- **Values** of more than 8 bits are scaled by the depth that they use (`pixels`), unless `dataset.values` is set;
  GDAL's nodata is left out of it.
"""

import io
import logging
from functools import partial
from typing import Any

import numpy as np

from pipeline.core.extras import require
from pipeline.images import geo
from pipeline.images.files import File
from pipeline.images.pillow import rgb_pixels
from pipeline.images.pixels import DecodeError, channels, rgb, to_uint8, upright
from pipeline.images.raster import Array, show
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Source, Whole, check_size
from pipeline.images.tiff_stacks import Plane, Stack, channel_names, has_place, pixel_size, stack
from pipeline.images.tiff_tiles import TiffRaster, check_end, coarser, is_sparse, masks, orientation, whole_because

WINDOWED = 2**24
"""Pixels (16.8 megapixels) up to which a TIFF is decoded whole: faster, and its coarser levels have no say."""
FEW = 8
"""Channels up to which all of them are decoded, though three are seen."""
BUILT_IN = (1, 8, 32773, 32946, 34925)
"""The compressions that tifffile decodes by itself: none, deflate, PackBits, deflate, LZMA."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else every odd tag of every file is printed


def open_image(file: File, reading: Reading = AS_STORED, plane: dict[str, int] | None = None) -> Source:
    """A TIFF or BigTIFF of any kind, or of a stack one plane (the first, where none is named)."""
    import tifffile

    with tifffile.TiffFile(file.stream(), _multifile=False) as opened:
        found = stack(opened)
        chosen = _plane(found, plane)
        pages = [found.pages[number].aspage() for number in chosen.pages]
        page = pages[0]
        _require_codecs(file.name, page)
        names = channel_names(page, opened, len(pages), found.names)
        size, why, locate = pixel_size(page, opened), whole_because(page), None
        if has_place(page):
            locate = lambda: geo.locate(file)  # noqa: E731
        height, width = page.imagelength, page.imagewidth
        large = height * width > WINDOWED
        alone = len(found.planes) == 1
        content = masks(opened) if alone else {}
        by_parts = large or is_sparse(page) or (height, width) in content or page.samplesperpixel > FEW
        if not why and (by_parts or not alone or len(pages) > 1 or reading != AS_STORED):
            levels = [pages]
            if large and len(pages) == 1:
                levels += [[level] for level in coarser(opened, page, alone)]
            offsets = found.offsets and [found.offsets[number] for number in chosen.pages]
            raster = TiffRaster(file, levels, names, opened.byteorder, offsets, size, content)
            raster.locate = locate
            return show(raster, reading, not large)
        if len(pages) > 1:
            raise DecodeError(f"its channels are pages that cannot be put together: {why}")
        check_size(file.name, height, width, int(np.prod(page.shaped, dtype=np.float64)), why)
        turned = (width, height) if orientation(page) >= 5 else (height, width)
        decode = partial(_decode, file, page.index)
        if reading == AS_STORED:
            return Whole(file.name, turned, decode, names, size, locate)
        return show(Array(file.name, turned, decode, ("R", "G", "B"), np.dtype(np.uint8)), reading, True)


def decode_label(file: File, plane: dict[str, int] | None = None) -> np.ndarray:
    """The stored numbers of a plane, by default the first: (H, W) or (H, W, C)."""
    import tifffile

    with tifffile.TiffFile(file.stream(), _multifile=False) as opened:
        found = stack(opened)
        chosen = _plane(found, plane)
        if found.offsets or len(chosen.pages) > 1:
            pages = [found.pages[number].aspage() for number in chosen.pages]
            offsets = found.offsets and [found.offsets[number] for number in chosen.pages]
            names = tuple(map(str, range(len(pages) * pages[0].samplesperpixel)))
            raster = TiffRaster(file, [pages], names, opened.byteorder, offsets)
            label = raster.samples(0, 0, 0, *raster.levels[0][:2], tuple(range(len(names))))
        else:
            label, _ = _samples(file, found.pages[chosen.pages[0]].aspage().index)
    return label[..., 0] if label.shape[2] == 1 else label


def label_raster(file: File, plane: dict[str, int] | None = None) -> TiffRaster | None:
    """The one channel of a large plane, to be read by windows; None of what `decode_label` has to decode whole."""
    import tifffile

    with tifffile.TiffFile(file.stream(), _multifile=False) as opened:
        found = stack(opened)
        chosen = _plane(found, plane)
        page = found.pages[chosen.pages[0]].aspage()
        alone = len(chosen.pages) == 1 and not found.offsets and page.samplesperpixel == 1 and page.photometric != 0
        if not alone or page.imagelength * page.imagewidth <= WINDOWED or whole_because(page):
            return None
        _require_codecs(file.name, page)
        return TiffRaster(file, [[page]], ("1",), opened.byteorder)


def is_placed(file: File) -> bool:
    """Whether a file is a TIFF of one page that says where on Earth it lies."""
    import tifffile

    if not file.read(0, 4).startswith((b"II", b"MM")):
        return False
    with tifffile.TiffFile(file.stream(), _multifile=False) as opened:
        return has_place(opened.pages[0]) and len(stack(opened).planes) == 1


def _plane(found: Stack, plane: dict[str, int] | None) -> Plane:
    chosen = next((one for one in found.planes if not plane or one.keys == plane), None)
    if chosen is None:
        raise DecodeError(f"has no plane {plane}")
    return chosen


def _samples(file: File, number: int = 0) -> tuple[np.ndarray, Any]:
    """A page's samples (H, W, C) as they are stored, and the page, whose file is closed."""
    import tifffile

    data = file.content()
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as opened:
        page = opened.pages[number].aspage()
        _require_codecs(file.name, page)
        check_size(file.name, page.imagelength, page.imagewidth, int(np.prod(page.shaped, dtype=np.float64)))
        check_end(page, len(data))
        samples = page.asarray(squeeze=False, maxworkers=1)  # (planes, depth, H, W, interleaved)
        return np.moveaxis(samples[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, -1), page


def _decode(file: File, number: int) -> np.ndarray:
    import tifffile

    data = file.content()
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as opened:
        page = opened.pages[number].aspage()
        jpeg_colour = page.photometric == 6 and page.compression == 7  # its YCbCr arrives as RGB
    if page.photometric not in (0, 1, 2, 3) and not jpeg_colour:  # CMYK, LAB, YCbCr: Pillow converts (and turns) them
        from PIL.TiffImagePlugin import TiffImageFile

        image = TiffImageFile(io.BytesIO(data))
        image.seek(number)
        return rgb_pixels(image)
    samples, page = _samples(file, number)
    if page.photometric == 3:  # palette of 16-bit colours; some writers fill in 8-bit ones
        if page.colormap is None:
            raise DecodeError("says that it holds a palette, which is missing")
        colours = page.colormap.T if page.colormap.max() < 256 else page.colormap.T >> 8
        pixels = colours.astype(np.uint8)[samples[..., 0]]
    else:
        bits = page.bitspersample if 1 < page.bitspersample < 16 else 0
        pixels = rgb(to_uint8(channels(samples), bits))
        pixels = 255 - pixels if page.photometric == 0 else pixels  # 0: white is zero
    return upright(pixels, orientation(page))


def _require_codecs(name: str, page: Any) -> None:
    """ConfigError where a page can be decoded with imagecodecs alone, and that is not installed."""
    if page.compression not in BUILT_IN or page.predictor not in (1, 2) or page.bitspersample % 8:
        kind = getattr(page.compression, "name", page.compression)
        require("imagecodecs", f"{name}, a TIFF compressed by {kind},")
