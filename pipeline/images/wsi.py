"""Whole slides (OpenSlide, the extra `wsi`): SVS, NDPI, MRXS, SCN, BIF, DICOM. Read by windows from their own levels.

OpenSlide opens paths: in a bucket, a slide is copied to a temporary folder first. **Glass** is without content: bright
and without colour on a thumbnail. Where a scanner stored nothing, the slide's background colour is seen.
"""

import re
import shutil
import tempfile
import weakref
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.core.extras import require
from pipeline.core.store import local_folder, open_store
from pipeline.images.files import File, Stored, changed, stored
from pipeline.images.pixels import DecodeError
from pipeline.images.raster import Raster, show
from pipeline.images.reading import AS_STORED, Reading
from pipeline.images.source import Level, PixelSize, Source

CACHE = 2**27
"""Bytes of decoded tiles that an open slide keeps: a row of tiles, of which each row of windows needs the next."""
THUMBNAIL = 2**21
"""Pixels at most of the thumbnail that glass is told apart on."""
BRIGHT = 160
"""Glass is brighter than this, of 255 …"""
COLOURLESS = 15
"""… and less saturated than this, of 255."""


def open_image(file: File, reading: Reading = AS_STORED) -> Source:
    """A whole slide."""
    require("openslide", f"{file.name}, a whole slide,")
    return show(SlideRaster(file), reading, False)


class SlideRaster(Raster):
    """One slide, as RGB."""

    channels = ("R", "G", "B")
    dtype = np.dtype(np.uint8)
    sparse = True

    def __init__(self, file: File) -> None:
        import openslide

        self.name, self._file = file.name, file
        self._held = _copy_of(file)  # the copy goes with the last that reads it
        path = self._held.path if self._held else _there(file)
        if path.suffix.lower() == ".mrxs":
            _check_parts(path)
        try:
            self._slide = openslide.OpenSlide(path)
            self._slide.set_cache(openslide.OpenSlideCache(CACHE))
        except openslide.OpenSlideError as error:
            raise DecodeError(f"cannot be opened by OpenSlide: {str(error).replace(str(path), file.name)}") from None
        height, width = self._slide.dimensions[::-1]
        sizes = [(h, w) for w, h in self._slide.level_dimensions]
        self.levels = tuple(Level(h, w, min(height / h, width / w)) for h, w in sizes)
        properties = self._slide.properties
        self.pixel_size = _pixel_size(properties)
        colour = re.fullmatch(r"[0-9A-Fa-f]{6}", properties.get("openslide.background-color", "") or "")
        self._background = np.frombuffer(bytes.fromhex(colour[0] if colour else "FFFFFF"), np.uint8)

    def samples(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        if isinstance(self._file, Stored):
            self._file.read(0, 1)  # it must still be the file that was opened
        whole, here = self.levels[0], self.levels[level]
        corner = round(x * whole.width / here.width), round(y * whole.height / here.height)
        region = self._slide.read_region(corner, level, (width, height))
        shown = np.asarray(region.convert("RGB"))
        if region.getextrema()[3][0] < 255:
            alpha = np.asarray(region.getchannel("A"))[..., None].astype(np.uint16)
            shown = ((shown * alpha + self._background * (255 - alpha)) // 255).astype(np.uint8)
        return shown if channels == (0, 1, 2) else shown[..., list(channels)]

    def valid(self, level: int, y: int, x: int, samples: np.ndarray) -> np.ndarray:
        return self.content(level, y, x, samples.shape[0], samples.shape[1], ())

    def content(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        here, tissue = self.levels[level], self._tissue
        rows = (y + np.arange(height)) * tissue.shape[0] // here.height
        columns = (x + np.arange(width)) * tissue.shape[1] // here.width
        return tissue[np.ix_(rows, columns)]

    @cached_property
    def _tissue(self) -> np.ndarray:
        """Where a thumbnail shows more than glass, bool."""
        from PIL import Image, ImageFilter

        number = len(self.levels) - 1
        height, width = self.levels[number][:2]
        step = max(1, int(np.ceil((height * width / THUMBNAIL) ** 0.5)))
        strips = []
        for top in range(0, height, 512 * step):
            strip = self.samples(number, top, 0, min(512 * step, height - top), width, (0, 1, 2))
            strips.append(np.asarray(Image.fromarray(strip).reduce(step)))
        thumbnail = Image.fromarray(np.concatenate(strips)).filter(ImageFilter.BoxBlur(1))
        pixels = np.asarray(thumbnail).astype(np.int16)
        high, low = pixels.max(-1), pixels.min(-1)
        found = (high < BRIGHT) | ((high - low) * 255 >= COLOURLESS * np.maximum(high, 1))
        return np.asarray(Image.fromarray(found.astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) > 0


def _pixel_size(properties: Any) -> PixelSize | None:
    try:
        x, y = (float(properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    except (KeyError, ValueError):
        return None
    return PixelSize(x, y, "µm") if all(1e-9 < side < 1e9 for side in (x, y)) else None


def _check_parts(path: Path) -> None:
    """DecodeError where the list of a MIRAX slide's parts names a file that is not in its folder."""
    try:
        text = (path.with_suffix("") / "Slidedat.ini").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise DecodeError(f"the folder {path.stem} beside it, or its Slidedat.ini, is missing") from None
    for name in re.findall(r"^\s*(?:FILE_\d+|INDEXFILE)\s*=\s*(.+?)\s*$", text, re.MULTILINE):
        if "/" in name or "\\" in name:
            raise DecodeError(f"names the part {name!r}, which is not in its folder")


def _there(file: File) -> Path:
    """Where a file of a local folder lies."""
    folder = local_folder(file.root) if isinstance(file, Stored) else None
    assert folder is not None
    return folder / file.name


def _copy_of(file: File) -> "_Copy | None":
    """A copy on this machine of what is no file of a local folder."""
    if isinstance(file, Stored):
        return None if local_folder(file.root) else _copy(file.root, file.name, file.tag)
    made = _Copy(file.name)
    made.path.write_bytes(file.content())
    return made


class _Copy:
    """A temporary folder, which goes with this object."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stegoflow-"))
        self.path = self.folder / name.rpartition("/")[2]
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@lru_cache(maxsize=2)
def _copy(root: str, name: str, tag: str) -> _Copy:
    """A slide of a bucket, with what belongs to it, on this machine."""
    made, store = _Copy(name), open_store(root)
    parent, _, last = name.rpartition("/")
    suffix = Path(last).suffix.lower()
    wanted = [(name, last)]
    if suffix == ".mrxs":
        inside = name[: -len(suffix)]
        wanted += [(entry.path, entry.path[len(parent) + bool(parent) :]) for entry in store.entries(inside)]
    elif suffix == ".dcm":
        beside = [entry.path for entry in store.entries(parent) if entry.path.rpartition("/")[0] == parent]
        wanted += [(path, path.rpartition("/")[2]) for path in beside if path != name and path.lower().endswith(".dcm")]
    files = [(stored(root, path), made.folder / to) for path, to in wanted]
    need, free = sum(file.size for file, _ in files), shutil.disk_usage(made.folder).free
    if need > free * 0.9:
        raise StageError(
            f"{name} is copied from the bucket to be read, which needs {need:,} bytes; {free:,} are free here",
            next="set TMPDIR to a folder with more room",
        )
    for file, to in files:
        if file.name == name and file.tag != tag:
            raise changed(name)
        if not to.resolve().is_relative_to(made.folder.resolve()):
            raise DecodeError(f"has a part {file.name}, which is not beside it")
        to.parent.mkdir(parents=True, exist_ok=True)
        with to.open("wb") as out:
            for block in file.blocks():
                out.write(block)
    return made
