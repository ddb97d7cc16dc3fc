"""A raster: stored samples of any depth and any number of channels by windows, and the source that shows it as RGB."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import numpy as np

from pipeline.images.pixels import DecodeError, decoding, rgb
from pipeline.images.reading import (
    SAMPLE,
    Limits,
    Reading,
    Rule,
    check_real,
    choose,
    limits,
    looked_up,
    mix,
    rule_for,
    scale,
    tables,
)
from pipeline.images.source import (
    BAND,
    Georeference,
    Level,
    PixelSize,
    Rectangle,
    Source,
    Whole,
    Windowed,
    nearest,
)

SMALL = 2**24
"""Pixels (16.8 megapixels) up to which a raster is read whole, once: faster than window by window."""
GRID = 8
"""Where no level is small enough, the limits of values come from GRID × GRID windows of it."""


class Raster(ABC):
    """Samples as a format stores them. Opening one reads its header alone."""

    name: str
    levels: tuple[Level, ...]
    channels: tuple[str, ...]
    dtype: np.dtype
    rule: Rule = "percentiles"
    """How samples of other than 8 bits become 8 bits where nothing is set."""
    pixel_size: PixelSize | None = None
    locate: Callable[[], Georeference | None] | None = None
    nodata: float | None = None
    """The value that means: nothing. NaN always does."""

    @property
    def sparse(self) -> bool:
        """Whether pixels may be without content."""
        return self.nodata is not None or self.dtype.kind == "f"

    @abstractmethod
    def samples(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        """Some channels of a rectangle that lies inside a level: (height, width, channels), as stored."""

    def valid(self, level: int, y: int, x: int, samples: np.ndarray) -> np.ndarray:
        """Where samples, whose corner is (y, x), have content in any channel: bool (height, width)."""
        found = np.zeros(samples.shape[:2], bool)
        for channel in np.moveaxis(samples, -1, 0):
            missing = np.isnan(channel) if samples.dtype.kind == "f" else np.zeros(found.shape, bool)
            if self.nodata is not None and not np.isnan(self.nodata):
                missing |= channel == self.nodata
            found |= ~missing
        return found

    def content(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        """`valid` of a rectangle."""
        return self.valid(level, y, x, self.samples(level, y, x, height, width, channels))


def show(raster: Raster, reading: Reading, whole: bool | None = None) -> Source:
    """A raster as 8-bit RGB: read whole once (by default where it is small and has one level), else by windows."""
    check_real(raster.dtype)
    shown = Shown(raster, reading)
    height, width = shown.size
    if height < 1 or width < 1:
        raise DecodeError(f"has no pixels ({height} × {width})")
    small = height * width <= SMALL and len(shown.levels) == 1
    if not (small if whole is None else whole):
        return shown
    every = (0, 0, height, width)
    valid = (lambda: shown.valid(every, (height, width))) if shown.sparse else None
    size = (height, width)
    found = Whole(raster.name, size, shown.pixels, raster.channels, raster.pixel_size, raster.locate, valid)
    found.raster = raster
    return found


class Shown(Windowed):
    """A raster as 8-bit RGB. Where there is no content, values that are scaled are 0."""

    def __init__(self, raster: Raster, reading: Reading) -> None:
        self.raster = raster
        self.name, self.levels, self.channels = raster.name, raster.levels, raster.channels
        self.pixel_size, self.locate, self.sparse = raster.pixel_size, raster.locate, raster.sparse
        self._chosen = choose(raster.channels, reading.channels, raster.name)
        self._rule = rule_for(reading.values, raster.dtype, raster.rule)
        self._mixed = reading.mixed
        if self._mixed and len(self._mixed.weights[0]) != len(self._chosen):
            raise DecodeError(f"has {len(self._chosen)} channels, the corpus {len(self._mixed.weights[0])}")

    @cached_property
    def _limits(self) -> Limits:
        return limits(self._rule, sampled(self.raster, self._chosen))

    @cached_property
    def _tables(self) -> np.ndarray | None:
        """Of integers of at most 16 bits what each value becomes, which is quicker than to scale pixels."""
        return tables(self._limits, self.raster.dtype)

    def _scaled(self, samples: np.ndarray) -> np.ndarray:
        if self._mixed:
            return mix(samples, self._mixed)
        return scale(samples, self._limits) if self._tables is None else looked_up(samples, self._tables)

    def region(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        if self._rule == "stored":
            return np.ascontiguousarray(rgb(self.raster.samples(level, y, x, height, width, self._chosen)))
        out = np.empty((height, width, len(self._mixed.weights if self._mixed else self._chosen)), np.uint8)
        for top, rows in bands(height, 8 * width * len(self._chosen)):
            samples = self.raster.samples(level, y + top, x, rows, width, self._chosen)
            scaled = self._scaled(samples)
            if self.sparse:
                scaled[~self.raster.valid(level, y + top, x, samples)] = 0
            out[top : top + rows] = scaled
        return rgb(out)

    def valid(self, window: Rectangle, size: tuple[int, int]) -> np.ndarray:
        if not self.sparse:
            return super().valid(window, size)
        number = self.level_for(window, size)
        level = self.levels[number]
        fy, fx = self.size[0] / level.height, self.size[1] / level.width
        box = window[0] / fy, window[1] / fx, window[2] / fy, window[3] / fx
        rows, columns = nearest(box, size, (level.height, level.width))
        out = np.empty(size, bool)
        left, width = int(columns[0]), int(columns[-1] - columns[0]) + 1
        first = 0
        with decoding(self.name):
            for top, tall in bands(int(rows[-1] - rows[0]) + 1, 8 * width * len(self._chosen)):
                top += int(rows[0])
                stop = int(np.searchsorted(rows, top + tall))
                if stop > first:
                    found = self.raster.content(number, top, left, tall, width, self._chosen)
                    out[first:stop] = found[np.ix_(rows[first:stop] - top, columns - left)]
                    first = stop
        return out


def bands(height: int, row_bytes: int) -> list[tuple[int, int]]:
    """(first row, rows) of bands of at most `BAND` bytes, or of one row."""
    step = max(1, BAND // max(1, row_bytes))
    return [(top, min(step, height - top)) for top in range(0, height, step)]


def sampled(raster: Raster, channels: tuple[int, ...]) -> np.ndarray:
    """At most `SAMPLE` pixels with content, (pixels, channels): of the coarsest level of at least a sixteenth as many,
    all of it or evenly spaced windows."""
    large = [i for i, level in enumerate(raster.levels) if level.height * level.width >= SAMPLE // 16]
    number = max(large, default=0)
    height, width = raster.levels[number][:2]
    if height * width <= SAMPLE:
        places = [(0, 0, height, width)]
    else:
        side = int((SAMPLE**0.5) / GRID)
        tall, wide = min(height, max(side, side * side // width)), min(width, max(side, side * side // height))
        ys = np.unique(np.linspace(0, height - tall, GRID).astype(int)).tolist()
        xs = np.unique(np.linspace(0, width - wide, GRID).astype(int)).tolist()
        places = [(y, x, tall, wide) for y in ys for x in xs]
    found = []
    for y, x, tall, wide in places:
        samples = raster.samples(number, y, x, tall, wide, channels)
        found.append(
            samples[raster.valid(number, y, x, samples)] if raster.sparse else samples.reshape(-1, len(channels))
        )
    return np.concatenate(found)


class Array(Raster):
    """A raster that is decoded whole, at the first read."""

    rule = "depth"

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        decode: Callable[[], np.ndarray],
        channels: tuple[str, ...],
        dtype: np.dtype,
    ) -> None:
        self.name, self.channels, self.dtype = name, channels, dtype
        self.levels = (Level(size[0], size[1], 1.0),)
        self._decode = decode

    @cached_property
    def _samples(self) -> np.ndarray:
        return self._decode()

    def samples(self, level: int, y: int, x: int, height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
        return self._samples[y : y + height, x : x + width][..., list(channels)]
