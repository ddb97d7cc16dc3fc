"""The images of a TIFF: planes of a stack told apart by z, t or page, and what its metadata say of channels and scale.

Channels that are stored as pages (ImageJ, OME) are channels of one image.
"""

import html
import math
import re
from typing import Any, NamedTuple

from pipeline.images.files import File
from pipeline.images.pixels import DecodeError
from pipeline.images.source import PixelSize, Sized
from pipeline.images.tiff_tiles import is_reduced, orientation

MOST = 10_000
"""Planes of one file that are images of their own."""
MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "nm": 1e-3,
               "mm": 1e3, "cm": 1e4, "m": 1e6, "å": 1e-4, "inch": 25400.0}  # fmt: skip
GEO_UNITS = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
"""Metres of a unit of length, by its EPSG code."""
AXES = {"T": "t", "Z": "z", "I": "page", "Q": "page"}


class Plane(NamedTuple):
    """One image of a file."""

    keys: dict[str, int]
    """Which it is, such as {"t": 0, "z": 12}, counted from 0; empty where it is the only one."""
    pages: list[int]
    """Its channels, as numbers of the pages of the first series."""


class Stack(NamedTuple):
    """How the pages of a file make images."""

    planes: list[Plane]
    pages: list[Any]
    """Of the first series."""
    offsets: list[int] | None
    """Where each page's pixels begin, where only the first page has a directory."""
    names: list[str]
    """Of the channels that are pages; empty where they have none."""


def stack(opened: Any) -> Stack:
    """The planes of an opened file's first series; a single one for what is no stack."""
    first = opened.pages[0]
    alone = Stack([Plane({}, [0])], [first], None, [])
    if first.imagedepth > 1:  # a volume within one page, of which the first plane is read
        return alone
    if len(opened.pages) == 1 and not (opened.is_imagej or opened.is_shaped or opened.is_ome):
        return alone
    if len(opened.pages) > 1 and not (opened.is_imagej or opened.is_shaped or opened.is_ome):
        count = sum(1 for page in opened.pages[1 : MOST + 2] if _alike(page.aspage(), first))
        if not count:
            return alone
    series = opened.series[0]
    axes = [(axis, length) for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
    total = math.prod(length for _, length in axes)
    _check_complete(opened, first, total)
    if total <= 1:
        return alone
    count = math.prod(length for axis, length in axes if axis != "C")
    if count > MOST:
        raise DecodeError(f"has {count} planes; at most {MOST} of a file are read as images: split it")
    offsets = None
    pages = list(series.pages)
    if len(pages) == 1 and series.dataoffset is not None and first.is_contiguous:
        step = first.nbytes if first.nbytes * total == series.nbytes else series.nbytes // total
        offsets, pages = [series.dataoffset + number * step for number in range(total)], [first] * total
    if len(pages) != total:
        raise DecodeError(f"its {len(pages)} pages are not the {total} planes of {series.axes} that it declares")
    if any(page is None for page in pages):
        raise DecodeError("planes are missing in it")
    return Stack(_planes(axes), pages, offsets, _ome_names(opened))


def _check_complete(opened: Any, first: Any, total: int) -> None:
    """DecodeError where a file says that it has more planes than are in it."""
    if opened.is_imagej and (images := int((opened.imagej_metadata or {}).get("images", 1))) > total:
        raise DecodeError(f"cut short: {total} of the {images} planes that it tells of are in it")
    head = _ome_pixels(opened).partition(">")[0]
    sizes = [int(number) for number in re.findall(r'\bSize[ZCT]="(\d+)"', head)]
    if math.prod(sizes) > total * first.samplesperpixel:
        raise DecodeError(
            f"is one of several files of an OME image, of {math.prod(sizes)} planes: put them into one: bfconvert"
        )


def _alike(page: Any, first: Any) -> bool:
    """Whether a page is another plane, rather than a thumbnail, a coarser level or a mask."""
    names = ("imagelength", "imagewidth", "samplesperpixel", "dtype", "photometric")
    return not is_reduced(page) and all(getattr(page, name) == getattr(first, name) for name in names)


def _planes(axes: list[tuple[str, int]]) -> list[Plane]:
    found: dict[tuple[tuple[str, int], ...], list[int]] = {}
    total = math.prod(length for _, length in axes)
    for number in range(total):
        rest, keys = number, []
        for axis, length in reversed(axes):
            rest, at = divmod(rest, length)
            if axis != "C":
                keys.append((AXES.get(axis, axis.lower()), at))
        found.setdefault(tuple(reversed(keys)), []).append(number)
    return [Plane(dict(keys), pages) for keys, pages in found.items()]


def _ome_names(opened: Any) -> list[str]:
    text = _ome_pixels(opened)
    found = [re.search(r'\bName="([^"]*)"', channel) for channel in re.findall(r"<(?:\w+:)?Channel\b[^>]*>", text)]
    return (
        [html.unescape(name[1]) if name else str(number) for number, name in enumerate(found, 1)] if any(found) else []
    )


def _ome_pixels(opened: Any) -> str:
    """The element Pixels of the first image of OME's metadata; a search, because no XML of a file is parsed here."""
    text = (opened.ome_metadata or "") if opened.is_ome else ""
    start = re.search(r"<(?:\w+:)?Pixels\b", text)
    return text[start.start() :].partition("</Pixels>")[0].partition("</OME:Pixels>")[0] if start else ""


def channel_names(page: Any, opened: Any, pages: int, names: list[str]) -> tuple[str, ...]:
    """The names of an image's channels, or their numbers from 1."""
    count = page.samplesperpixel * pages
    if len(names) == count:
        return tuple(names)
    found = [str(number) for number in range(1, count + 1)]
    if page.photometric in (2, 6) and page.samplesperpixel >= 3 and pages == 1:
        found[:3] = ["R", "G", "B"]
    if pages == 1:
        for number, kind in enumerate(page.extrasamples, count - len(page.extrasamples)):
            found[number] = "A" if int(kind) in (1, 2) else found[number]
    tag = page.tags.get(42112)  # GDAL's metadata: descriptions of bands
    for item in re.findall(r"<Item\b([^>]*)>([^<]*)</Item>", str(tag.value) if tag is not None else ""):
        sample = re.search(r'\bsample="(\d+)"', item[0])
        if 'name="DESCRIPTION"' in item[0] and sample and int(sample[1]) < count and item[1].strip():
            found[int(sample[1])] = html.unescape(item[1].strip())
    return tuple(found)


def pixel_size(page: Any, opened: Any) -> PixelSize | None:
    """From OME, ImageJ, GeoTIFF, or the tags of resolution, where they have a unit. 72 and 96 dots per inch are what
    programs write who know none. Sizes that cannot be are none."""
    found = _ome_size(opened) or _geo_size(page) or _resolution(page, opened)
    if found is None or not all(math.isfinite(side) and 1e-9 < side < 1e9 for side in found[:2]):
        return None
    return found


def _ome_size(opened: Any) -> PixelSize | None:
    head = _ome_pixels(opened).partition(">")[0]
    sides = []
    for axis in "XY":
        value = re.search(rf'\bPhysicalSize{axis}="([^"]*)"', head)
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', head)
        factor = MICROMETRES.get(html.unescape(unit[1]).lower() if unit else "µm")
        try:
            sides.append(float(value[1]) * factor if value and factor else 0.0)
        except ValueError:
            return None
    return PixelSize(sides[0], sides[1], "µm") if all(sides) else None


def _geo_size(page: Any) -> PixelSize | None:
    scale, matrix, keys = (page.tags.get(code) for code in (33550, 34264, 34735))
    if keys is None:
        return None
    directory = list(keys.value)
    code = {directory[at]: directory[at + 3] for at in range(4, len(directory) - 3, 4) if directory[at + 1] == 0}
    if scale is not None:
        x, y = float(scale.value[0]), float(scale.value[1])
    elif matrix is not None and len(matrix.value) == 16:
        a, b, _, _, d, e = map(float, matrix.value[:6])
        x, y = math.hypot(a, d), math.hypot(b, e)
    else:
        return None
    if code.get(1024) == 2:
        return PixelSize(x, abs(y), "°")
    factor = GEO_UNITS.get(code.get(3076, 9001))
    return PixelSize(x * factor, abs(y) * factor, "m") if factor else None


def _resolution(page: Any, opened: Any) -> PixelSize | None:
    x, y = page.resolution
    if not x > 0 or not y > 0 or x == y == 1 or has_place(page):
        return None
    unit = str((opened.imagej_metadata or {}).get("unit", "")) if opened.is_imagej else ""
    named = (
        MICROMETRES.get(unit.encode("latin1", "ignore").decode("unicode_escape", "ignore").lower()) if unit else None
    )
    micrometres = named or {2: 25400.0, 3: 10000.0}.get(int(page.resolutionunit))
    if micrometres is None or (micrometres == 25400 and {x, y} <= {72, 96}):
        return None
    return PixelSize(micrometres / x, micrometres / y, "µm")


def has_place(page: Any) -> bool:
    """Whether a page says where on Earth it lies."""
    return any(page.tags.get(code) is not None for code in (33550, 33922, 34264, 34735))


def planes(file: File) -> list[Sized]:
    """Each image in a TIFF, with its height and width."""
    import tifffile

    with tifffile.TiffFile(file.stream(), _multifile=False) as opened:
        page = opened.pages[0]
        size = page.imagelength, page.imagewidth
        return [(plane.keys, *(size[::-1] if orientation(page) >= 5 else size)) for plane in stack(opened).planes]
