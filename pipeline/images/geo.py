"""GDAL (rasterio, the extra `geo`): where a GeoTIFF lies, and the pixels of JPEG 2000 and of virtual mosaics (VRT).

The pixels of a GeoTIFF are read by `tiff`, with or without rasterio. GDAL opens no file by itself here: each one that
it asks for goes through an opener, which gives it the image, and the tiles that a VRT names where they lie below
`dataset.root` and are TIFF or JPEG 2000.
"""

import posixpath
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeGuard

import numpy as np

from pipeline.core.extras import installed, require
from pipeline.images.files import File, Stored, stored
from pipeline.images.pixels import DecodeError, decoding
from pipeline.images.raster import Raster, show
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Georeference, Level, PixelSize, Source

JP2 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LARGEST_VRT = 2**24
"""Bytes of a VRT at most."""
ENVIRONMENT = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_CACHEMAX": 64,
}
EXACT = 1e-3
"""Pixels by which what is warped may be off; GDAL takes no zero."""
PLAIN = re.compile(
    r"VRTDataset|SRS|GeoTransform|GCPList|GCP|Metadata|MDI|VRTRasterBand|ColorInterp|(Hide)?NoDataValue|NODATA"
    r"|ColorTable|Entry|Description|UnitType|Offset|Scale|CategoryNames|Category|SimpleSource|ComplexSource"
    r"|Source(Filename|Band|Properties)|SrcRect|DstRect|Scale(Offset|Ratio)|LUT|UseMaskBand|MaskBand|OverviewList"
    r"|Block[XY]Size"
)
"""The elements of a plain mosaic. Others warp, read raw files, run code, or open what is not a file."""


def locate(file: File) -> Georeference | None:
    """The CRS and the transform of a GeoTIFF; None without rasterio, and where it has neither."""
    if not installed("rasterio"):
        return None
    with (
        _environment(),
        _opened(file.name, "GTiff", lambda path: file.stream() if path == file.name else None) as found,
    ):
        return _georeference(found)


def open_jp2(file: File, reading: Reading = AS_STORED) -> Source:
    """A JPEG 2000, such as a band of Sentinel-2."""
    require("rasterio", f"{file.name}, a JPEG 2000,")
    return show(GdalRaster(file, "JP2OpenJPEG", {}), reading)


def open_vrt(file: File, reading: Reading = AS_STORED) -> Source:
    """A virtual mosaic of files below the same root."""
    require("rasterio", f"{file.name}, a VRT,")
    if not isinstance(file, Stored):
        raise DecodeError("a VRT is read from a folder or a bucket alone")
    tiles = {path: stored(file.root, path) for path in tiles_of(file)}
    return show(GdalRaster(file, "VRT", tiles), reading)


def tiles_of(file: File) -> list[str]:
    """The files that a VRT names, as paths below the root. DecodeError for one that does anything but put together
    rasters that lie below its root."""
    if file.size > LARGEST_VRT:
        raise DecodeError(f"a VRT of {file.size:,} bytes")
    text = file.content().decode("utf-8-sig")
    if not re.match(r"\s*(<\?xml[^<>]*\?>\s*)?<VRTDataset\b", text) or "<!" in text:
        raise DecodeError("is not a plain VRT")
    body = re.sub(r"^\s*<\?xml[^<>]*\?>", "", text)
    wrong = [tag for tag in re.findall(r"</?([^\s/>]*)", body) if not PLAIN.fullmatch(tag)]
    if wrong or re.search(r"\bsubClass\b", body):
        raise DecodeError(f"a VRT with {wrong[0] if wrong else 'subClass'}: only plain mosaics of files are read")
    found = set()
    for attributes, name in re.findall(r"<SourceFilename\b([^>]*)>([^<]*)<", body):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file.name), name.strip()))
        plain = re.fullmatch(r"[\w .()+@,=~/-]+", name.strip()) and not name.strip().startswith("/")
        if not re.search(r"""\brelativeToVRT\s*=\s*["']1["']""", attributes) or not plain or path.startswith(".."):
            raise DecodeError(
                f"a VRT that names {name.strip()!r}: only files below dataset.root, relative to it, are read"
            )
        found.add(path)
    if len(found) == 0:
        raise DecodeError("a VRT that names no file")
    return sorted(found)


class GdalRaster(Raster):
    """A raster that GDAL reads, and its overviews."""

    def __init__(self, file: File, driver: str, tiles: dict[str, Stored]) -> None:
        self.name, self._driver = file.name, driver

        def give(path: str) -> IO[bytes] | None:
            if path == file.name:
                return file.stream()
            tile = tiles.get(posixpath.normpath(path))
            return tile.stream() if tile and tile.read(0, 16).startswith((*TIFF, *JP2)) else None

        self._give = give
        self._levels: dict[int, Any] = {}
        with _environment():
            dataset = self._dataset(0)
            height, width = dataset.shape
            kinds = set(dataset.dtypes)
            if len(kinds) > 1 or dataset.count < 1:
                raise DecodeError(f"has bands of the types {', '.join(sorted(kinds)) or 'none'}")
            self.dtype = np.dtype(kinds.pop())
            factors = [f for f in dataset.overviews(1) if f > 1]
            self.levels = (
                Level(height, width, 1.0),
                *(Level(-(-height // f), -(-width // f), float(f)) for f in sorted(factors)),
            )
            self.channels = tuple(text or str(n) for n, text in enumerate(dataset.descriptions, 1))
            self.nodata = dataset.nodata
            place = _georeference(dataset)
            self.locate = lambda: place
            self.pixel_size = _pixel_size(dataset)

    def _dataset(self, level: int) -> Any:
        if level not in self._levels:
            options = {"overview_level": level - 1} if level else {}
            self._levels[level] = _open(self.name, self._driver, self._give, **options)
        return self._levels[level]

    def samples(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        with _environment():
            found = self._dataset(level).read([n + 1 for n in channels], window=((y, y + height), (x, x + width)))
        return np.moveaxis(found, 0, -1)


def on_earth(place: Georeference | None) -> TypeGuard[Georeference]:
    """Whether a place has a CRS and a transform."""
    return bool(place and place.crs and place.transform)


def same_grid(one: Georeference, other: Georeference, size: tuple[int, int]) -> bool:
    """Whether the pixels of an image of (height, width) lie where those of another do, to a hundredth of a pixel; both
    have a CRS and a transform."""
    import rasterio

    if rasterio.CRS.from_wkt(one.crs) != rasterio.CRS.from_wkt(other.crs):
        return False
    first, second = (np.array([*each.transform, 0, 0, 1]).reshape(3, 3) for each in (one, other) if each.transform)
    corners = np.array([(x, y, 1) for y in (0, size[0]) for x in (0, size[1])]).T
    return bool(np.allclose(np.linalg.inv(first) @ second @ corners, corners, rtol=0, atol=0.01))


class Warped:
    """The ids of a GeoTIFF on the grid of an image, by the nearest pixel, when they are sliced."""

    def __init__(self, file: File, grid: Georeference, shape: tuple[int, int], ignore: int) -> None:
        """grid: with a CRS and a transform; shape: (height, width). `ignore` is where the file does not reach."""
        self.shape, self._file, self._grid, self._ignore = shape, file, grid, ignore

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        import rasterio
        from rasterio.vrt import WarpedVRT

        file, grid = self._file, self._grid
        assert grid.transform is not None
        options = {"crs": rasterio.CRS.from_wkt(grid.crs), "transform": rasterio.Affine(*grid.transform)}
        options |= {"height": self.shape[0], "width": self.shape[1], "dtype": "int32", "tolerance": EXACT}
        rows, columns = (at.indices(side)[:2] for at, side in zip(window, self.shape, strict=True))
        # Opened for each window: GDAL crashes at the end of a process that has left a warped file of an opener open.
        with (
            decoding(file.name),
            _environment(),
            _opened(file.name, "GTiff", lambda path: file.stream() if path == file.name else None) as dataset,
            WarpedVRT(dataset, src_nodata=None, nodata=self._ignore, **options) as warped,
        ):
            return warped.read(1, window=(rows, columns))


@contextmanager
def _environment() -> Iterator[None]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(**ENVIRONMENT):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _open(name: str, driver: str, give: Callable[[str], IO[bytes] | None], **options: Any) -> Any:
    """A dataset of which every file comes from `give`."""
    import rasterio

    def opener(path: str, mode: str = "rb") -> IO[bytes]:
        found = give(path) if mode in ("r", "rb") else None
        if found is None:
            raise FileNotFoundError(path)
        return found

    return rasterio.open(name, driver=driver, opener=opener, **options)


@contextmanager
def _opened(name: str, driver: str, give: Callable[[str], IO[bytes] | None]) -> Iterator[Any]:
    with _open(name, driver, give) as dataset:
        yield dataset


def _georeference(dataset: Any) -> Georeference | None:
    identity = dataset.transform.is_identity
    if dataset.crs is None and identity:
        return None
    crs = dataset.crs.to_wkt() if dataset.crs else None
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return Georeference(crs, None if identity else (a, b, c, d, e, f))


def _pixel_size(dataset: Any) -> PixelSize | None:
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    a, b, _, d, e, _ = tuple(dataset.transform)[:6]
    factor = 1.0 if dataset.crs.is_geographic else dataset.crs.linear_units_factor[1]
    x, y = float(np.hypot(a, d)) * factor, float(np.hypot(b, e)) * factor
    return PixelSize(x, y, "°" if dataset.crs.is_geographic else "m") if 1e-9 < min(x, y) < 1e9 else None
