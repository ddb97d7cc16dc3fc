"""FITS: image HDUs by windows (astropy, the extra `fits`). BLANK and NaN are without content; the WCS is kept as text.

- **Images**: the HDUs called SCI where there are such, else every image HDU; several are images of their own, `#hdu=2`.
- **Channels**: the planes of a third axis. Axes of length one before them are passed over.
- **Rows** are in the file's order: row 0 is FITS row 1, which DS9 shows at the bottom.
- **Values** of more than 8 bits by `zscale`, unless `dataset.values` is set.
"""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from pipeline.core.extras import require
from pipeline.images.files import File, Folder
from pipeline.images.pixels import DecodeError
from pipeline.images.ranges import Ahead
from pipeline.images.raster import SMALL, Raster, show
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Georeference, Level, PixelSize, Sized, Source

MAGIC = b"SIMPLE  ="
SPAN = 2**25
"""Bytes of whole rows that are read at a time, though a window has but a piece of each: one request instead of many."""
MOST = 1000
"""HDUs of a file at most."""
WCS = re.compile(
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CD\d_|PC\d_)[12][A-Z]?|P[VS][12]_\d+[A-Z]?|(LON|LAT)POLE[A-Z]?|WCSNAME[A-Z]?"
    r"|RADE(CSYS|SYS[A-Z]?)|EQUINOX[A-Z]?|EPOCH|MJD-?OBS|DATE-OBS|[AB]P?_(ORDER|DMAX|\d_\d)|WAT[012]_\d+"
)
"""The keywords that place a two-dimensional image in the sky."""
ANGLES = {"deg": 3600.0, "": 3600.0, "arcsec": 1.0, "arcmin": 60.0, "rad": math.degrees(3600)}


def open_image(file: File, reading: Reading = AS_STORED, plane: dict[str, int] | None = None) -> Source:
    """An image HDU: the first, where none is named."""
    return show(FitsRaster(file, plane), reading)


def planes(file: File) -> list[Sized]:
    """Each image HDU, with its height and width."""
    opened = _open(file)
    with quiet():
        found = _images(opened)
        keys = [{"hdu": number} if len(found) > 1 else {} for number in found]
        return [(key, *opened[number].shape[-2:]) for key, number in zip(keys, found, strict=True)]


def decode_label(file: File, plane: dict[str, int] | None = None) -> np.ndarray:
    """The stored numbers of an image HDU, by default the first: (H, W) or (H, W, C)."""
    raster = FitsRaster(file, plane)
    label = raster.samples(0, 0, 0, *raster.levels[0][:2], tuple(range(len(raster.channels))))
    return label[..., 0] if label.shape[2] == 1 else label


def label_raster(file: File, plane: dict[str, int] | None = None) -> "FitsRaster | None":
    """The one channel of a large label map, to be read by windows; None of what `decode_label` reads whole."""
    raster = FitsRaster(file, plane)
    height, width = raster.levels[0][:2]
    return raster if height * width > SMALL and len(raster.channels) == 1 else None


@contextmanager
def quiet() -> Iterator[None]:
    """astropy warns of every card that is not quite the standard's."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


def _open(file: File, stream: IO[bytes] | None = None) -> Any:
    """The HDUs of a file, which hold no open file of the operating system."""
    require("astropy", f"{file.name}, a FITS file,")
    from astropy.io import fits

    with quiet():
        return fits.open(stream or file.stream(), memmap=False, lazy_load_hdus=True)


def _images(opened: Any) -> list[int]:
    """The numbers of the HDUs that are images."""
    if len(opened) > MOST:
        raise DecodeError(f"has {len(opened)} HDUs; at most {MOST} are read")
    found = [
        number for number, hdu in enumerate(opened) if hdu.is_image and len(hdu.shape) >= 2 and math.prod(hdu.shape)
    ]
    science = [number for number in found if opened[number].name == "SCI"]
    return science or found


def _number(opened: Any, plane: dict[str, int] | None) -> int:
    """The number of the HDU that is meant."""
    found = _images(opened)
    number = (plane or {}).get("hdu", found[0] if found else -1)
    if number not in found:
        raise DecodeError(f"has no image in HDU {number}" if plane else "has no image: no HDU of two axes or three")
    return number


class FitsRaster(Raster):
    """One image HDU."""

    rule = "zscale"

    def __init__(self, file: File, plane: dict[str, int] | None) -> None:
        self._file, self._stream = file, Ahead(file.read, file.size)
        with quiet():
            opened = _open(file, self._stream)  # type: ignore[arg-type]
            number = _number(opened, plane)
            self.name, self._hdu = file.name, opened[number]
            self._describe(file, number)

    def _describe(self, file: File, number: int) -> None:
        place = self._hdu.fileinfo()
        packed = (
            type(self._hdu).__name__ == "CompImageHDU"
        )  # whose `size` is that of its pixels; blocks have 2880 bytes
        need = place["datSpan"] - 2879 if packed else self._hdu.size
        if place["datLoc"] + need > file.size:
            raise DecodeError(f"cut short: HDU {number} ends beyond its {file.size} bytes")
        shape = self._hdu.shape
        while len(shape) > 2 and shape[0] == 1:
            shape = shape[1:]
        if len(shape) > 3:
            raise DecodeError(f"HDU {number} has the axes {' × '.join(map(str, shape))}: more than three")
        self._start = None if packed or not place else place["datLoc"]
        self._stored = None if packed else _stored(self._hdu.header)
        self._leading = (0,) * (len(self._hdu.shape) - len(shape))
        self._flat = len(shape) == 2
        self.levels = (Level(shape[-2], shape[-1], 1.0),)
        self.channels = tuple(str(n) for n in range(1, 1 if self._flat else shape[0] + 1)) or ("1",)
        header = self._hdu.header
        self.pixel_size = _pixel_size(header)
        text = _wcs_text(header)
        self.locate = (lambda: Georeference(wcs=text)) if text else None
        self.dtype = self._section(0, 0, 0, 1, 1).dtype

    def samples(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        with quiet():
            planes = [self._rows(number, y, x, height, width) for number in channels]
        return np.moveaxis(np.stack(planes), 0, -1)

    def _rows(self, channel: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """A rectangle of a channel, by as many rows at a time as `SPAN` has room for."""
        each = abs(self._hdu.header["BITPIX"]) // 8
        if self._stored is not None and self._start is not None and not isinstance(self._file, Folder):
            return self._plain(channel, y, x, height, width)
        line = self.levels[0].width * each
        step = max(1, SPAN // line)
        parts = []
        for top in range(y, y + height, step):
            rows = min(step, y + height - top)
            if self._start is not None:
                first = ((channel * self.levels[0].height + top) * self.levels[0].width + x) * each
                self._stream.fetch(self._start + first, (rows - 1) * line + width * each)
            parts.append(self._section(channel, top, x, rows, width))
        return np.concatenate(parts)

    def _plain(self, channel: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """A rectangle whose values are as they are stored, or unsigned by the standard's offset: no more is read."""
        assert self._stored is not None
        assert not isinstance(self._file, Folder)
        kind, unsigned = self._stored
        each, line = kind.itemsize, self.levels[0].width
        first = (self._start or 0) + ((channel * self.levels[0].height + y) * line + x) * each
        data = self._file.read_rows(first, line * each, height, width * each)
        found = np.frombuffer(data, kind).reshape(height, width).astype(kind.newbyteorder("="))
        return found.view(f"u{each}") ^ np.asarray(1 << (8 * each - 1), f"u{each}") if unsigned else found

    def _section(self, channel: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        place = slice(y, y + height), slice(x, x + width)
        found = self._hdu.section[(*self._leading, *(() if self._flat else (channel,)), *place)]
        return np.asarray(found, found.dtype.newbyteorder("=")).reshape(height, width)


def _stored(header: Any) -> tuple[np.dtype, bool] | None:
    """The type of stored values, and whether they are unsigned integers with the offset that the standard gives these;
    None where they are scaled, or where one of them means nothing."""
    bits = header["BITPIX"]
    zero, scale = header.get("BZERO", 0), header.get("BSCALE", 1)
    unsigned = bits in (16, 32, 64) and zero == 2 ** (bits - 1)
    if scale != 1 or not (zero == 0 or unsigned) or (bits > 0 and "BLANK" in header):
        return None
    return np.dtype(f">{'f' if bits < 0 else 'u' if bits == 8 else 'i'}{abs(bits) // 8}"), unsigned


def _wcs_text(header: Any) -> str:
    """The cards that place an image in the sky, one a line."""
    lines = []
    for card in header.cards:
        try:
            if WCS.fullmatch(card.keyword):
                lines.append(str(card))
        except Exception:  # noqa: S112 (a card that astropy cannot print)
            continue
    return "\n".join(lines) if any(line.startswith("CTYPE1") for line in lines) else ""


def _pixel_size(header: Any) -> PixelSize | None:
    """From the linear part of a celestial WCS, at its reference pixel."""

    def number(key: str, default: float) -> float:
        value = header.get(key, default)
        return float(value) if isinstance(value, int | float) else math.nan

    if not re.match(r"RA--|DEC-|[GEHS]L(ON|AT)", str(header.get("CTYPE1", ""))):
        return None
    factor = ANGLES.get(str(header.get("CUNIT1", "")).strip().lower())
    if factor is None:
        return None
    if any(key in header for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")):
        matrix = [[number(f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)]
    else:
        matrix = [[number(f"PC{i}_{j}", float(i == j)) * number(f"CDELT{i}", 1.0) for j in (1, 2)] for i in (1, 2)]
    x, y = (math.hypot(matrix[0][j], matrix[1][j]) * factor for j in (0, 1))
    return PixelSize(x, y, "arcsec") if all(math.isfinite(side) and 1e-9 < side < 1e9 for side in (x, y)) else None
