"""What the page shows of a run: pictures, planes of prototypes, tokens. Read from the store, kept for a while."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from importlib.resources import files
from math import ceil
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.images import Images
from pipeline.artifacts.view_reader import reading_of
from pipeline.core.artifact import Artifact
from pipeline.core.errors import NotFoundError
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store
from pipeline.explore.indexing import Indexing
from pipeline.explore.packing import HELD, thinned
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.source import Source
from pipeline.numerics.pieces import piece_of
from pipeline.numerics.tree import Cut
from pipeline.stages.masks import MasksParams, label_maps

Value = TypeVar("Value")
STATIC = files("pipeline.explore") / "static"
"""The page's own files."""
COMPONENTS = 96
"""Of a token, that the page gets: 50 kB for 23 × 23."""
MAP_SIDE = 512
"""Pixels of the longer side of a map of prototypes."""
LARGEST = 2048
"""Pixels of the longer side of a picture."""
TILE = 512
"""Rows and columns of a piece of a large image."""
AROUND = 32
"""Positions beside each other that are as good as a whole image, where a patch is shown with what is around it."""
AT_ONCE = 2
"""Pictures that are read at a time."""


class Kept(Generic[Value]):
    """The values that were last asked for, up to a number of bytes or of values. One thread makes a value."""

    def __init__(self, most: int, weigh: Callable[[Value], int] = lambda value: 1) -> None:
        self.most, self.weigh, self.total = most, weigh, 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self.total += self.weigh(value)
            while self.total > self.most and len(self._values) > 1:
                self.total -= self.weigh(self._values.popitem(last=False)[1])
        return value


class Corpus:
    """A run's images and what its tokens say of them. Images are named by their row in the table of images."""

    def __init__(self, store: Store, record: dict[str, Any], *, keep_index: bool = True) -> None:
        self.store, self.record = store, record
        self.root: str = record["config"]["dataset"]["root"]
        self.reading = reading_of(run_artifact(store, record, "features"))
        self.images = Images(run_artifact(store, record, "dataset"))
        self.clusters = read_clusters(run_artifact(store, record, "clusters"))
        self.indexing = Indexing(store, record, keep=keep_index)
        self._sources: Kept[Source] = Kept(3)
        self._pictures: Kept[bytes] = Kept(64 << 20, len)
        self._maps: Kept[np.ndarray] = Kept(64 << 20, lambda one: one.nbytes)
        self._codes: Kept[list[np.ndarray]] = Kept(128 << 20, lambda found: sum(one.nbytes for one in found))
        self._heavy = threading.Lock()
        self._reading = threading.Semaphore(AT_ONCE)
        self._small: Kept[np.ndarray] = Kept(16 << 20, lambda one: one.nbytes)

    @cached_property
    def count(self) -> int:
        """Images."""
        return len(self.images)

    def check(self, row: int) -> int:
        """The row itself; NotFoundError where no image has it."""
        if not 0 <= row < self.count:
            raise NotFoundError(f"there is no image {row}: this run has {self.count}")
        return row

    def source(self, row: int) -> Source:
        """An image, opened. DecodeError where it cannot be."""
        return self._sources.get(row, lambda: open_source(self.root, *self.images.file(self.check(row)), self.reading))

    def picture(self, row: int, window: tuple[float, float, float, float] | None, side: int) -> bytes:
        """A window (y0, x0, height, width, of the image's pixels) of an image as JPEG, its longer side `side` pixels at
        most. Parts of the window outside the image are cut off. DecodeError where there is nothing to show."""

        def make() -> bytes:
            source = self.source(row)
            box = _inside(window or (0.0, 0.0, float(source.size[0]), float(source.size[1])), source.size)
            scale = min(min(side, LARGEST) / max(box[2:]), 1.0 if window is None else 4.0)
            size = max(1, round(box[2] * scale)), max(1, round(box[3] * scale))
            with self._reading:
                return _jpeg(Image.fromarray(source.read(box, size)))

        return self._pictures.get((row, window, side), make)

    def small(self, row: int, side: int) -> np.ndarray:
        """A whole image, (height, width, 3) uint8, its longer side `side` pixels at most."""

        def make() -> np.ndarray:
            source = self.source(row)
            height, width = source.size
            scale = min(1.0, side / max(height, width))
            return source.read((0, 0, height, width), (max(1, round(height * scale)), max(1, round(width * scale))))

        return self._small.get((row, side), make)

    def patch(self, row: int, y: int, x: int, share: float, side: int) -> bytes:
        """A position of an image's plane with what is around it, as a square JPEG of `side` pixels: a `share` of the
        shorter side of the image, or of `AROUND` positions where that is less; three at least. It is framed."""

        def make() -> bytes:
            rows, columns = self.plane(row)["shape"].tolist()
            if not (0 <= y < rows and 0 <= x < columns):
                raise DecodeError(f"image {row} has no patch {y}, {x}")
            source = self.source(row)
            (height, width), tall, wide = source.size, source.size[0] / rows, source.size[1] / columns
            whole = min(height, width, AROUND * max(tall, wide))
            length = min(max(3 * max(tall, wide), share * whole), height, width)
            top = min(max(0.0, (y + 0.5) * tall - length / 2), height - length)
            left = min(max(0.0, (x + 0.5) * wide - length / 2), width - length)
            picture = Image.fromarray(source.read((top, left, length, length), (side, side)))
            _frame(picture, [(at * side / length) for at in (x * wide - left, y * tall - top, wide, tall)])
            return _jpeg(picture)

        return self._pictures.get((row, y, x, share, side), make)

    def plane(self, row: int) -> dict[str, np.ndarray]:
        """What the index holds of an image (`pipeline.stages.search`), computed where it has not come that far."""
        return self.indexing.image(self.check(row))

    def nearest(self, row: int) -> np.ndarray:
        """(rows, columns) uint16: the nearest prototype of each patch of an image, `thinned` to `HELD`."""
        plane = self.plane(row)
        return plane["nearest"][thinned(*plane["shape"].tolist())[1]]

    def prototype_map(self, row: int) -> np.ndarray:
        """(height, width) uint16: the nearest prototype of each pixel of `small(row, MAP_SIDE)`, upsampled as the run's
        masks are. DecodeError where there is none."""

        cut = self.clusters.cut(len(self.clusters.vectors))

        def make() -> np.ndarray:
            return cut.nodes[self.upsampled(row, self.clusters.vectors, cut)].astype(np.uint16)

        return self._maps.get(self.check(row), make)

    def upsampled(self, row: int, vectors: np.ndarray, cut: Cut) -> np.ndarray:
        """(height, width): the group of a cut of vectors that each pixel of `small(row, MAP_SIDE)` is in, upsampled as
        the run's masks are. DecodeError where there is none."""
        codes = self.codes(row)
        if codes is None:
            raise DecodeError(f"{self.images.name(row)[1]} could not be decoded")
        with self._heavy:
            return label_maps(self.small(row, MAP_SIDE), codes, vectors, cut, self._upsampling())[0]

    def tile_map(self, row: int, tile: tuple[int, int, int], vectors: np.ndarray, cut: Cut) -> np.ndarray:
        """(height, width): `upsampled` of a piece of an image, `TILE` pixels a side at most: (level, down, across). At
        a level a pixel is 2 ** level pixels of the image, each way. DecodeError where there is none."""
        source, (level, down, across) = self.source(row), tile
        height, width = source.size
        tall, wide = ceil(height / 2**level), ceil(width / 2**level)
        top, left = down * TILE, across * TILE
        if not (0 <= level <= 32 and 0 <= top < tall and 0 <= left < wide):
            raise DecodeError(f"image {row} has no piece {down}, {across} at level {level}")
        kept = slice(top, min(top + TILE, tall)), slice(left, min(left + TILE, wide))
        with self._heavy:
            shape = self.indexing.shape(row)
            piece = piece_of(kept, (tall, wide), shape)
            plane = self.indexing.part(row, piece.part(shape))
            if plane is None:
                raise DecodeError("there are no patches here")
            (y, x), fy, fx = piece.seen, height / tall, width / wide
            box = y.start * fy, x.start * fx, (y.stop - y.start) * fy, (x.stop - x.start) * fx
            pixels = source.read(box, (y.stop - y.start, x.stop - x.start))
            return label_maps(pixels, plane, vectors, cut, self._upsampling(), piece=piece)[0]

    def prototype_tile(self, row: int, tile: tuple[int, int, int]) -> np.ndarray:
        """`prototype_map` of a piece of an image; see `tile_map`."""
        cut = self.clusters.cut(len(self.clusters.vectors))

        def make() -> np.ndarray:
            return cut.nodes[self.tile_map(row, tile, self.clusters.vectors, cut)].astype(np.uint16)

        return self._maps.get((self.check(row), tile), make)

    def codes(self, row: int) -> np.ndarray | None:
        """(rows, columns, D) float32: the codes of an image, thinned to `HELD`; None where it could not be decoded."""

        def make() -> list[np.ndarray]:
            found = self.indexing.codes(row, HELD)
            return [] if found is None else [found]

        return next(iter(self._codes.get(self.check(row), make)), None)

    def code(self, row: int, y: int, x: int, size: tuple[int, int]) -> np.ndarray | None:
        """(D,) float32: the code of the patch that holds a pixel of an image of (height, width)."""
        rows, columns = self.indexing.shape(self.check(row))
        if rows * columns <= HELD:
            codes = self.codes(row)
            return None if codes is None else codes[y * rows // size[0], x * columns // size[1]]
        down, across = y * rows // size[0], x * columns // size[1]
        part = self.indexing.part(row, (slice(down, down + 1), slice(across, across + 1)))
        return None if part is None else part.values[0, 0]

    def _upsampling(self) -> MasksParams:
        masks = Artifact(self.store, "masks", self.record["stages"].get("masks", "none"))
        return MasksParams.model_validate({**(masks.manifest["params"] if masks.exists else {}), "crf": False})


def _inside(window: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of a window (y0, x0, height, width) that is inside an image; DecodeError where that is nothing."""
    top, left = max(0.0, window[0]), max(0.0, window[1])
    bottom, right = min(float(size[0]), window[0] + window[2]), min(float(size[1]), window[1] + window[3])
    if bottom - top < 1e-3 or right - left < 1e-3:
        raise DecodeError("this window lies outside of the image")
    return top, left, bottom - top, right - left


def _frame(picture: Image.Image, box: list[float]) -> None:
    """Draw a white rectangle (left, top, width, height) with a dark line around it."""
    left, top, width, height = map(round, box)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, left + width + 1, top + height + 1), outline=(0, 0, 0))
    draw.rectangle((left, top, left + width, top + height), outline=(255, 255, 255))


def _jpeg(picture: Image.Image) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=88)
    return sink.getvalue()
