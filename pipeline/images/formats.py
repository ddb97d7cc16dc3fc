"""The table of formats: what is an image, who opens it, and what looks like one but is not read.

What a file is, its first bytes decide; its name decides which files are listed, and stands in messages. An image has
the same pixels in every corpus, process and order.

To add a format: write a module with `open_image(file, reading) -> Source` and give it a row of `FORMATS`; no stage's
`version` changes, as what was read before is read as before (docs/extending.md).
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.core.errors import ConfigError
from pipeline.images import files, fits, geo, ngff, pillow, tiff, tiff_stacks, wsi
from pipeline.images.files import File, Folder, Memory, open_file
from pipeline.images.pixels import DecodeError, decoding
from pipeline.images.raster import Raster
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Sized, Source


class Format(NamedTuple):
    """One format of images."""

    name: str
    suffixes: tuple[str, ...]
    """In lower case, with the dot."""
    magic: tuple[bytes, ...] = ()
    """What its files may begin with. Empty: its files are known by their suffix."""
    open: Callable[..., Source] | None = None
    """Called with the file and a `Reading`, and where it has `planes` with the keys of one. Reads the header and no
    pixels. May raise anything for a file that is damaged. None: not read yet."""
    label: Callable[..., np.ndarray] | None = None
    """The stored numbers of a label map, (H, W) or (H, W, C), of a file and where it has `planes` the keys of one; None
    where a format cannot keep numbers."""
    label_raster: Callable[..., Raster | None] | None = None
    """Called as `label`: the same by windows, of what is large and can be read so."""
    planes: Callable[[File], list[Sized]] | None = None
    """Of a format whose files may hold several images: each, without keys where there is one."""
    by_path: bool = False
    """Whether a file, however small, is read where it lies: its library opens paths, or files beside it."""
    instead: str = ""
    """Of a format that is not read: what to do with such files. `{suffix}` stands for theirs."""


_PYRAMID = "convert them to tiled TIFFs: vips tiffsave a{suffix} a.tif --tile --pyramid"
_PICTURE = "convert them to PNG or JPEG"
_PLANES = "export the planes that matter as TIFF or PNG"

FORMATS: tuple[Format, ...] = (
    Format("JPEG", (".jpg", ".jpeg"), (b"\xff\xd8\xff",), partial(pillow.open_image, jpeg_factory)),
    Format("PNG", (".png",), (pillow.PNG,), pillow.open_png, pillow.decode_png_label),
    # The last two are BigTIFF.
    Format(
        "TIFF",
        (".tif", ".tiff"),
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        tiff.open_image,
        tiff.decode_label,
        tiff.label_raster,
        tiff_stacks.planes,
    ),
    Format("WebP", (".webp",), (b"RIFF",), partial(pillow.open_image, WebPImageFile)),
    Format("BMP", (".bmp",), (b"BM",), partial(pillow.open_image, BmpImageFile)),
    Format("GIF", (".gif",), (b"GIF8",), partial(pillow.open_image, GifImageFile)),
    Format("JPEG 2000", (".jp2", ".j2k"), geo.JP2, geo.open_jp2),
    Format(
        "FITS",
        (".fits", ".fit", ".fts", ".fz"),
        (fits.MAGIC,),
        fits.open_image,
        fits.decode_label,
        fits.label_raster,
        fits.planes,
    ),
    Format("OME-Zarr", (".zarr",), (), ngff.open_image, ngff.decode_label, ngff.label_raster, ngff.planes),
    Format("whole slide", (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".dcm"), (), wsi.open_image, by_path=True),
    Format("VRT", (".vrt",), (), geo.open_vrt, by_path=True),
    # Not read: named where they are left out.
    Format("whole slide", (".vms", ".vmu"), instead=_PYRAMID),
    Format("photograph", (".heic", ".heif", ".avif", ".jxl", ".tga", ".ppm", ".pgm"), instead=_PICTURE),
    Format("raw photograph", (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"), instead=_PICTURE),
    Format("microscope's stack", (".czi", ".nd2", ".lif", ".lsm", ".vsi", ".oib", ".oif", ".mrc"), instead=_PLANES),
    Format("scan", (".nii",), instead=_PLANES),
    Format("array", (".h5", ".hdf5"), instead=_PLANES),
)
"""What a folder of images is looked through for, and what is left out of it."""

_READ = tuple(row for row in FORMATS if row.open)
SUFFIXES = tuple(suffix for row in _READ for suffix in row.suffixes)
"""Endings that make a listed file an image. Compare with ``name.lower().endswith(SUFFIXES)``."""
LABEL_SUFFIXES = tuple(suffix for row in _READ if row.label for suffix in row.suffixes)
PLANED = tuple(suffix for row in _READ if row.planes for suffix in row.suffixes)
"""Endings of files that may hold several images."""
BY_PATH = tuple(suffix for row in _READ if row.by_path for suffix in row.suffixes)
UNREAD = {suffix: row for row in FORMATS if not row.open for suffix in row.suffixes}

_more: dict[str, Format] = {}


def register(row: Format) -> None:
    """Let files with a format's suffixes be opened that no folder of images is looked through for: those of one
    benchmark, whose layout lists them."""
    _more.update(dict.fromkeys(row.suffixes, row))


def open_source(root: str, path: str, sha256: str, size: int, reading: Reading = AS_STORED) -> Source:
    """A listed image, to be read by windows. sha256 and size (bytes): as listed.

    Raises DecodeError for what is no image that can be read, StageError where it changed since it was listed, OSError
    where the file cannot be read, ConfigError for a channel that it lacks.
    """
    name, plane = split_plane(path)
    return open_image(open_listed(root, name, sha256, size), reading, plane)


def open_listed(root: str, name: str, sha256: str, size: int) -> File:
    """`files.open_file`, which keeps where it is what its format reads by its path."""
    return open_file(root, name, sha256, size, keep=not name.lower().endswith(BY_PATH))


def open_image(file: File, reading: Reading = AS_STORED, plane: dict[str, int] | None = None) -> Source:
    """The image in a file, or one of its `planes`. DecodeError (its first word is the file's name) for what is no image
    that can be read."""
    with decoding(file.name):
        row = _format_of(file)
        assert row.open is not None
        return row.open(file, reading, plane) if row.planes else row.open(file, reading)


def planes(file: File) -> list[Sized]:
    """The images in a file; none where its format has but one. DecodeError as `open_image`."""
    with decoding(file.name):
        row = _format_of(file)
        return row.planes(file) if row.planes else []


PLANE = re.compile(r"#((?:[a-z]+=\d+)(?:,[a-z]+=\d+)*)(\.[^./]+)$")


def split_plane(path: str) -> tuple[str, dict[str, int]]:
    """The path of a file, and which of its images is meant: `a#t=0,z=12.tif` is ("a.tif", {"t": 0, "z": 12})."""
    found = PLANE.search(path)
    if found is None or not path.lower().endswith(PLANED):
        return path, {}
    pairs = (pair.split("=") for pair in found[1].split(","))
    return path[: found.start()] + found[2], {key: int(number) for key, number in pairs}


def join_plane(path: str, plane: dict[str, int]) -> str:
    """The inverse of `split_plane`."""
    if not plane:
        return path
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}#{','.join(f'{key}={number}' for key, number in plane.items())}{dot}{suffix}"


def decode(data: bytes, name: str) -> np.ndarray:
    """All pixels of the image in `data`, as a new uint8 array (H, W, 3), RGB, upright. DecodeError as `open_image`."""
    return open_image(Memory(name, data)).pixels()


def decode_label(data: bytes, name: str) -> np.ndarray:
    """`read_label` of the label map in `data`."""
    return read_label(Memory(name, data))


def read_label(file: File, plane: dict[str, int] | None = None) -> np.ndarray:
    """A label map as int32 (H, W): the stored numbers of a single-channel PNG, TIFF, FITS or OME-Zarr of integers.

    Palette files give their indices, not their colours. Nothing is scaled, and the orientation tag is ignored.
    Raises DecodeError as `open_image` does, ConfigError for a readable file that holds no class ids.
    """
    name = file.name
    with decoding(name):
        row = _format_of(file)
        if row.label is None:
            raise _no_label(name, f"a label must be a PNG, TIFF, FITS or OME-Zarr, not {row.name}")
        label = row.label(file, plane) if row.planes else row.label(file)
    if label.ndim != 2:
        raise _no_label(name, f"a label must have one channel, this one has {label.shape[2]} (colours?)")
    return _ids(name, label)


def _ids(name: str, label: np.ndarray) -> np.ndarray:
    if label.dtype.kind not in "bui":
        raise _no_label(name, f"a label must hold integers, this one holds {label.dtype}")
    limits = np.iinfo(np.int32)
    if label.max() > limits.max or label.min() < limits.min:
        raise _no_label(name, f"label values {label.min()} to {label.max()} are no class ids")
    return np.ascontiguousarray(label, dtype=np.int32)


class LabelWindows:
    """A label map that is read when it is sliced with two slices."""

    def __init__(self, raster: Raster) -> None:
        self._raster, self.shape = raster, raster.levels[0][:2]

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        (top, bottom, _), (left, right, _) = (at.indices(n) for at, n in zip(window, self.shape, strict=True))
        with decoding(self._raster.name):
            found = self._raster.samples(0, top, left, bottom - top, right - left, (0,))[..., 0]
        return _ids(self._raster.name, found)


def open_label(file: File, plane: dict[str, int] | None = None) -> np.ndarray | LabelWindows:
    """`read_label`; what is large and can be read by windows is read when it is sliced."""
    with decoding(file.name):
        row = _format_of(file)
        raster = row.label_raster(file, plane) if row.label_raster else None
    return read_label(file, plane) if raster is None else LabelWindows(raster)


def _no_label(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{name}: {reason}",
        next=f"save {name} as a single-channel PNG whose pixels are class ids (0, 1, 2, …; 255 where unlabelled)",
    )


def _format_of(file: File) -> Format:
    head = file.read(0, 16)
    if not head and not isinstance(file, Folder):
        raise DecodeError("the file is empty")
    suffix = _suffix(file.name)
    # By its suffix first: a slide of some scanners is a TIFF, too.
    named = [row for row in _READ if not row.magic and suffix in row.suffixes]
    known = iter([*named, *(row for row in _READ if row.magic and head.startswith(row.magic))])
    found = _more.get(suffix) or next(known, None)
    if found is None:
        *names, last = (row.name for row in _READ)
        raise DecodeError(f"not a {', '.join(names)} or {last} (it begins with {head!r})")
    return found


def left_out(paths: Iterable[str]) -> list[str]:
    """Of all files below a folder, those that look like images and are not read: a sentence for each suffix, which
    names one of them. A folder that is an image counts as one."""
    found: dict[str, set[str]] = {}
    for path in paths:
        name = files.within(path) or path
        suffix = _suffix(name)
        if suffix in UNREAD:
            found.setdefault(suffix, set()).add(name)
    return [
        f"{len(names)} {suffix} {'file was' if len(names) == 1 else 'files were'} left out, first {min(names)} "
        f"({UNREAD[suffix].name}); {UNREAD[suffix].instead.format(suffix=suffix)}"
        for suffix, names in sorted(found.items())
    ]


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2]
    return f".{last.rpartition('.')[2].lower()}" if "." in last[1:] else ""
