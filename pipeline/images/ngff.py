"""OME-Zarr 0.4 and 0.5: a folder, local or in a bucket, whose arrays are the levels of one image, axes in any order.

- **Channels** have the names of `omero`, or numbers from 1. Planes along z and t are images of their own, `#z=12`.
- **Values** of more than 8 bits by `percentiles`, unless `dataset.values` is set.
- **Format 2 of Zarr** has codecs that unpickle. An array of it is opened only after its `.zarray` was looked at: a
  plain number type, no filters, a compressor of `COMPRESSORS`. Of format 3 the codecs are looked at too.
- Only what lies below the folder is read.
"""

import json
import math
import re
from itertools import product
from typing import Any

import numpy as np

from pipeline.core.store import Store, open_store
from pipeline.images.files import File, Folder
from pipeline.images.pixels import DecodeError
from pipeline.images.raster import SMALL, Raster, show
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Level, PixelSize, Sized, Source

CACHE = 2**26
"""Bytes of decoded chunks that an open image keeps."""
LARGEST = 2**28
"""Bytes that a chunk may have."""
TILE = 256
"""Pixels at least, in y and x, that are read and kept together."""
MOST = 10_000
"""Planes that are images of their own."""
NUMBERS = re.compile(r"[<>|][biuf][1248]")
TYPES = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64"}
COMPRESSORS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma"}
CODECS = {"bytes", "transpose", "sharding_indexed", "crc32c", "blosc", "gzip", "zstd"}
Place = tuple[int, int, int, int]
"""Level, channel, and the row and column of a tile."""
MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6,
               "angstrom": 1e-4}  # fmt: skip


def open_image(file: File, reading: Reading = AS_STORED, plane: dict[str, int] | None = None) -> Source:
    """An OME-Zarr, or one of its planes (the first, where none is named)."""
    return show(NgffRaster(*_image(file, dict(plane or {}))), reading)


def planes(file: File) -> list[Sized]:
    """Each plane along z, t and other axes that are neither y, x nor channels, with its height and width."""
    store, name = _place(file)
    series = _series(store, name)
    found: list[Sized] = []
    for number in series:
        key = {"series": number} if len(series) > 1 else {}
        raster = NgffRaster(*_image(file, {"series": number}))
        along = {axis: range(length) for axis, length in raster.along.items() if length > 1}
        if len(found) + math.prod(map(len, along.values())) > MOST:
            raise DecodeError(f"has more than {MOST} planes: split it")
        size = raster.levels[0][:2]
        found += [({**key, **dict(zip(along, at, strict=True))}, *size) for at in product(*along.values())]
    return found


def decode_label(file: File, plane: dict[str, int] | None = None) -> np.ndarray:
    """The stored numbers of a plane of a label image, by default the first: (H, W) or (H, W, C)."""
    raster = NgffRaster(*_image(file, dict(plane or {})))
    label = raster.samples(0, 0, 0, *raster.levels[0][:2], tuple(range(len(raster.channels))))
    return label[..., 0] if label.shape[2] == 1 else label


def label_raster(file: File, plane: dict[str, int] | None = None) -> "NgffRaster | None":
    """The one channel of a large label map, to be read by windows; None of what `decode_label` reads whole."""
    raster = NgffRaster(*_image(file, dict(plane or {})))
    height, width = raster.levels[0][:2]
    return raster if height * width > SMALL and len(raster.channels) == 1 else None


def _place(file: File) -> tuple[Store, str]:
    if not isinstance(file, Folder):
        raise DecodeError("is no folder")
    return open_store(file.root), file.name


def _attributes(store: Store, path: str) -> tuple[dict[str, Any], int]:
    """The OME metadata of a group, and its Zarr format."""
    try:
        return dict(json.loads(store.get(f"{path}/zarr.json")).get("attributes", {}).get("ome", {})), 3
    except FileNotFoundError:
        try:
            return dict(json.loads(store.get(f"{path}/.zattrs"))), 2
        except FileNotFoundError:
            raise DecodeError("is no OME-Zarr: it has neither zarr.json nor .zattrs") from None


def _series(store: Store, name: str) -> list[int]:
    """The images of a folder as bioformats2raw writes it, which holds several; [-1] for a plain OME-Zarr."""
    found, _ = _attributes(store, name)
    if "plate" in found or "well" in found:
        raise DecodeError("is a plate of many images: name the folders of its fields as images")
    if "multiscales" in found or "bioformats2raw.layout" not in found:
        return [-1]
    series = sorted(int(folder) for folder in store.folders(name) if folder.isdecimal())
    if not series:
        raise DecodeError("holds no image")
    return series


def _image(file: File, plane: dict[str, int]) -> tuple[Store, str, str, dict[str, Any], int, dict[str, int]]:
    """The arguments of a raster for one plane."""
    store, name = _place(file)
    series = _series(store, name)
    number = plane.pop("series", series[0])
    if number not in series:
        raise DecodeError(f"has no series {number}")
    path = name if number < 0 else f"{name}/{number}"
    found, version = _attributes(store, path)
    scales = found.get("multiscales")
    if not isinstance(scales, list) or not scales:
        raise DecodeError("is no OME-Zarr of version 0.4 or 0.5: it has no multiscales")
    return store, name, path, {**scales[0], "omero": found.get("omero")}, version, plane


class NgffRaster(Raster):
    """One plane of a multiscale image."""

    def __init__(self, store: Store, name: str, path: str, meta: dict[str, Any], version: int, plane: dict[str, int]):
        self.name = name
        axes = [axis.get("name", "") if isinstance(axis, dict) else axis for axis in meta.get("axes", [])]
        if "y" not in axes or "x" not in axes or len(set(axes)) != len(axes):
            raise DecodeError(f"has the axes {axes}: y and x are needed once each")
        kinds = {axis["name"]: axis.get("type") for axis in meta["axes"] if isinstance(axis, dict)}
        self._axes, self._c = axes, next((a for a in axes if a == "c" or kinds.get(a) == "channel"), None)
        paths = [entry["path"] for entry in meta["datasets"]]
        self._arrays = [_open_array(store, path, below, version) for below in paths]
        if any(len(array.shape) != len(axes) for array in self._arrays):
            raise DecodeError(f"has arrays of other than the {len(axes)} axes {''.join(axes)}")
        shapes = [dict(zip(axes, array.shape, strict=True)) for array in self._arrays]
        height, width = shapes[0]["y"], shapes[0]["x"]
        if any(size["y"] < 1 or size["x"] < 1 for size in shapes):
            raise DecodeError("has no pixels")
        self.levels = tuple(Level(size["y"], size["x"], min(height / size["y"], width / size["x"])) for size in shapes)
        if any(a.factor >= b.factor for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise DecodeError("has levels that do not get smaller")
        self.dtype = self._arrays[0].dtype
        self.along = {axis: shapes[0][axis] for axis in axes if axis not in ("y", "x", self._c)}
        """The length of each axis that planes are told apart by."""
        if unknown := [key for key, at in plane.items() if not 0 <= at < self.along.get(key, 0)]:
            raise DecodeError(f"has no plane {unknown[0]}={plane[unknown[0]]}")
        self._at = [
            {axis: plane.get(axis, 0) * size[axis] // self.along[axis] for axis in self.along} for size in shapes
        ]
        count = shapes[0][self._c] if self._c else 1
        labels = [str((entry or {}).get("label") or "") for entry in (meta.get("omero") or {}).get("channels", [])]
        named = len(labels) == count
        self.channels = tuple((labels[n] if named else "") or str(n + 1) for n in range(count))
        self.pixel_size = _pixel_size(meta, axes)
        self._tiles = [self._tile_shape(array) for array in self._arrays]
        self._kept: dict[Place, np.ndarray] = {}

    def _tile_shape(self, array: Any) -> tuple[int, int]:
        chunk = dict(zip(self._axes, array.chunks, strict=True))
        if math.prod(array.chunks) * array.dtype.itemsize > LARGEST:
            raise DecodeError(f"has chunks of {' × '.join(map(str, array.chunks))}: too large to be read by windows")
        tall, wide = (chunk[axis] * -(-TILE // chunk[axis]) for axis in "yx")
        return tall, wide

    def _fetch(self, level: int, channels: range, rows: range, columns: range) -> dict[Place, np.ndarray]:
        """Some tiles of some channels, by one request."""
        tall, wide = self._tiles[level]
        at: dict[str, Any] = {**self._at[level], "y": slice(rows.start * tall, rows.stop * tall)}
        at["x"] = slice(columns.start * wide, columns.stop * wide)
        if self._c:
            at[self._c] = slice(channels.start, channels.stop)
        found = np.asarray(self._arrays[level][tuple(at[axis] for axis in self._axes)])
        left = [axis for axis in self._axes if isinstance(at[axis], slice)]
        wanted = [self._c, "y", "x"] if self._c else ["y", "x"]
        found = found.transpose([left.index(axis) for axis in wanted])
        found = found if self._c else found[None]
        return {
            (level, channel, row, column): found[
                channel - channels.start,
                (row - rows.start) * tall : (row - rows.start + 1) * tall,
                (column - columns.start) * wide : (column - columns.start + 1) * wide,
            ]
            for channel, row, column in product(channels, rows, columns)
        }

    def _need(self, level: int, channels: tuple[int, ...], rows: range, columns: range) -> dict[Place, np.ndarray]:
        """Tiles, from those that are kept, and the columns of which any is not read together."""
        places = [(level, *place) for place in product(channels, rows, columns)]
        found = {place: self._kept[place] for place in places if place in self._kept}
        if not (missing := [place[3] for place in places if place not in found]):
            return found
        columns = range(min(missing), max(missing) + 1)
        run = range(min(channels), max(channels) + 1)
        runs = [run] if len(run) <= 2 * len(set(channels)) else [range(n, n + 1) for n in sorted(set(channels))]
        for one in runs:
            found |= self._fetch(level, one, rows, columns)
        if sum(tile.nbytes for tile in found.values()) <= CACHE // 2:
            self._kept |= {place: np.array(found[place]) for place in places if place not in self._kept}
            while sum(tile.nbytes for tile in self._kept.values()) > CACHE:
                del self._kept[next(iter(self._kept))]
        return found

    def samples(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        out = np.empty((len(channels), height, width), self.dtype)
        tall, wide = self._tiles[level]
        columns = range(x // wide, (x + width - 1) // wide + 1)
        for row in range(y // tall, (y + height - 1) // tall + 1):
            tiles = self._need(level, channels, range(row, row + 1), columns)
            for column, (number, channel) in product(columns, enumerate(channels)):
                top, left = row * tall, column * wide
                oy, ox = max(0, top - y), max(0, left - x)
                tile = tiles[level, channel, row, column]
                part = tile[max(0, y - top) : y + height - top, max(0, x - left) : x + width - left]
                out[number, oy : oy + part.shape[0], ox : ox + part.shape[1]] = part
        return np.moveaxis(out, 0, -1)


def _open_array(store: Store, path: str, below: str, version: int) -> Any:
    """One array below a group, once its metadata were found harmless. DecodeError where it is not there."""
    import zarr

    if below.startswith("/") or {"..", ""} & set(below.split("/")):
        raise DecodeError(f"names the array {below!r}, which is not below it")
    where = f"{path}/{below}"
    try:
        meta = json.loads(store.get(f"{where}/{'zarr.json' if version == 3 else '.zarray'}"))
        _check_codecs(meta, version)
        group = zarr.open_group(store.zarr(path, read_only=True), mode="r", zarr_format=version, use_consolidated=False)  # type: ignore[arg-type]
        array = group[below]
    except (FileNotFoundError, KeyError):
        raise DecodeError(f"a level is missing: there is no array {below}") from None
    if not isinstance(array, zarr.Array):
        raise DecodeError(f"{below} is no array")
    return array


def _check_codecs(meta: dict[str, Any], version: int) -> None:
    """DecodeError for an array of anything but plain numbers, or of codecs that are not known to be harmless."""
    if version == 2:
        codec = (meta.get("compressor") or {}).get("id")
        if not NUMBERS.fullmatch(str(meta.get("dtype"))) or meta.get("filters"):
            raise DecodeError(
                f"holds {meta.get('dtype')} with filters {meta.get('filters')}: only plain numbers are read"
            )
        wrong = [codec] if codec is not None and codec not in COMPRESSORS else []
    else:
        if meta.get("data_type") not in TYPES:
            raise DecodeError(f"holds {meta.get('data_type')}: only plain numbers are read")
        if meta.get("storage_transformers"):
            raise DecodeError("has storage transformers")
        wrong = [name for name in _codec_names(meta.get("codecs", [])) if name not in CODECS]
    if wrong:
        raise DecodeError(f"is compressed by {wrong[0]!r}, which is not read")


def _codec_names(codecs: list[Any]) -> list[str]:
    """The names of codecs, and of those within them (sharding)."""
    found = []
    for codec in codecs:
        inner = codec.get("configuration", {}) if isinstance(codec, dict) else {}
        found.append(str(codec.get("name") if isinstance(codec, dict) else codec))
        found += _codec_names(inner.get("codecs", [])) + _codec_names(inner.get("index_codecs", []))
    return found


def _pixel_size(meta: dict[str, Any], axes: list[str]) -> PixelSize | None:
    """From the scale of the first array, where y and x have a unit of length."""
    units = {axis["name"]: axis.get("unit") for axis in meta["axes"] if isinstance(axis, dict)}
    factors = [MICROMETRES.get(str(units.get(axis))) for axis in "xy"]
    sides = [1.0, 1.0]
    steps = (*meta["datasets"][0].get("coordinateTransformations", []), *meta.get("coordinateTransformations", []))
    scales = [step["scale"] for step in steps if step.get("type") == "scale"]
    if None in factors or not scales:
        return None
    for scale in scales:
        sides = [side * float(scale[axes.index(axis)]) for side, axis in zip(sides, "xy", strict=True)]
    x, y = (side * factor for side, factor in zip(sides, factors, strict=True) if factor)
    return PixelSize(x, y, "µm") if all(math.isfinite(side) and 1e-9 < side < 1e9 for side in (x, y)) else None
