"""How stored samples become what a backbone sees: which channels, and which values become 0 and 255.

Without a setting, 8-bit images are as they are stored and the first three channels are seen. The limits of a rule are
those of a whole image, never of a window: they come from at most `SAMPLE` pixels of it, the same in every process.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.core.errors import ConfigError, Set
from pipeline.images.pixels import DecodeError

SAMPLE = 2**20
"""Pixels of an image at most that the limits of a rule come from."""
PERCENTILES = (2.0, 98.0)
"""What becomes 0 and 255 by the rules `percentiles` (of an image) and `corpus`, and of the components of `pca`."""
ASINH = (1.0, 99.9)
SOFTENING = 0.1
"""Where asinh turns from linear to logarithmic, as a share of the range (astropy's default)."""

Rule = Literal["stored", "depth", "percentiles", "asinh", "zscale", "corpus"]
Values = tuple[float, float] | Literal["percentiles", "asinh", "zscale", "corpus"] | None


class Reading(NamedTuple):
    """What a config says about reading images; by default nothing."""

    channels: tuple[str | int, ...] | Literal["pca"] | None = None
    """Three, or one that is seen as grey: names, or numbers that count from 1. `pca`: all of them, by `mixed`."""
    values: Values = None
    mixed: "Mixed | None" = None
    """Where the corpus decides what is seen: how."""


class Mixed(NamedTuple):
    """What is seen is 255 × (weights · values of the chosen channels + offset), cut at 0 and 255."""

    weights: tuple[tuple[float, ...], ...]
    """(3 or 1, C)."""
    offset: tuple[float, ...]


AS_STORED = Reading()


class Limits(NamedTuple):
    """What becomes 0 and 255 of each channel."""

    low: np.ndarray
    high: np.ndarray
    asinh: bool = False


Channels = Sequence[str | int] | Sequence[Sequence[str | int]] | str | None
"""Of `dataset.channels`: a triple or one channel, several triples, `pca`, or nothing."""


def triples(channels: Channels) -> list[Any]:
    """Each triple of channels of `dataset.channels`: one, unless it is a list of them."""
    several = isinstance(channels, list | tuple) and channels and isinstance(channels[0], list | tuple)
    return list(channels) if several else [channels]  # type: ignore[arg-type]


def readings(channels: Channels, values: object, found: Mapping[str, Any] | None = None) -> list[Reading]:
    """One for each triple, from the values of `dataset.channels` and `dataset.values`, also as JSON has them, and what
    the corpus said where these ask it (`weights` and `offset`, of several triples one after the other)."""
    limits = tuple(map(float, values)) if isinstance(values, list | tuple) else values
    made = []
    for number, one in enumerate(triples(channels)):
        mixed = None
        if found:
            every = slice(None) if one is channels else slice(3 * number, 3 * number + 3)
            weights = (tuple(row[every]) for row in found["weights"][every])
            mixed = Mixed(tuple(weights), tuple(found["offset"][every]))
        chosen = one if one == "pca" else tuple(one) if one else None
        made.append(Reading(chosen, "corpus" if mixed else limits, mixed))  # type: ignore[arg-type]
    return made


def choose(names: Sequence[str], wanted: Sequence[str | int] | str | None, image: str) -> tuple[int, ...]:
    """The numbers (from 0) of the channels that are seen: those that are wanted, all for `pca`, else the first three,
    or the first where there are fewer than three. ConfigError for a channel that an image lacks."""
    if wanted == "pca":
        return tuple(range(len(names)))
    if wanted is None:
        return (0, 1, 2) if len(names) >= 3 else (0,)
    lower = [name.lower() for name in names]
    found = []
    for one in wanted:
        number = one - 1 if isinstance(one, int) else lower.index(one.lower()) if one.lower() in lower else -1
        if not 0 <= number < len(names):
            have = ", ".join(f"{n} {name}" if name != str(n) else name for n, name in enumerate(names[:20], 1))
            raise ConfigError(
                f"dataset.channels: {image} has no channel {one!r}; it has {have} (numbers count from 1)",
                next=Set("dataset.channels", list(range(1, min(3, len(names)) + 1))[: 3 if len(names) >= 3 else 1]),
            )
        found.append(number)
    return tuple(found)


def rule_for(values: Values, dtype: np.dtype, default: Rule) -> Rule | tuple[float, float]:
    """What is set; else 8-bit values are kept, and others follow the format's rule."""
    if values is not None:
        return values
    return "stored" if dtype == np.uint8 else default


def limits(rule: Rule | tuple[float, float], sample: np.ndarray) -> Limits:
    """The limits of a rule (not of `stored`) for an image. sample: (pixels, channels) of what is valid in it."""
    count = sample.shape[1]
    if isinstance(rule, tuple):
        return Limits(np.full(count, rule[0]), np.full(count, rule[1]))
    if rule == "depth":
        low, high = _depth(sample)
        return Limits(np.full(count, low), np.full(count, high))
    find = {"percentiles": _percentiles(PERCENTILES), "asinh": _percentiles(ASINH), "zscale": _zscale}[rule]
    pairs = []
    for channel in sample.T:
        finite = channel[np.isfinite(channel)].astype(np.float64)
        pairs.append(find(finite) if finite.size else (0.0, 1.0))
    both = np.array(pairs)
    return Limits(both[:, 0], both[:, 1], rule == "asinh")


def scale(samples: np.ndarray, limits: Limits) -> np.ndarray:
    """Samples (H, W, C) of any real dtype as uint8. NaN becomes 0, ±infinity the end of the range, and where both
    limits are equal everything 0."""
    out = np.zeros(samples.shape, np.uint8)
    width = limits.high - limits.low
    with np.errstate(all="ignore"):
        for number in np.flatnonzero(width > 0):
            share = samples[..., number].astype(np.float64)
            share -= limits.low[number]
            share /= width[number]
            np.fmin(np.fmax(share, 0, out=share), 1, out=share)  # of NaN and a number the number
            if limits.asinh:
                share = np.arcsinh(share / SOFTENING) / math.asinh(1 / SOFTENING)
            out[..., number] = np.rint(share * 255)
    return out


def tables(limits: Limits, dtype: np.dtype) -> np.ndarray | None:
    """`scale` of every value of integers of at most 16 bits: uint8 (C, values), by the bits of a value; None for other
    types."""
    if dtype.kind not in "ui" or dtype.itemsize > 2:
        return None
    bits = np.arange(256**dtype.itemsize).astype(f"u{dtype.itemsize}")
    values = np.repeat(bits.view(dtype)[:, None, None], len(limits.low), axis=2)
    return np.ascontiguousarray(scale(values, limits)[:, 0].T)


def looked_up(samples: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """`scale` of samples (H, W, C) by their tables."""
    out = np.empty(samples.shape, np.uint8)
    for number, table in enumerate(tables):
        out[..., number] = table.take(samples[..., number].view(f"u{samples.itemsize}"))
    return out


def mix(samples: np.ndarray, mixed: Mixed) -> np.ndarray:
    """Samples (H, W, C) of any real dtype as uint8 (H, W, 3 or 1). NaN becomes 0."""
    with np.errstate(all="ignore"):
        share = samples.astype(np.float64) @ np.asarray(mixed.weights).T + np.asarray(mixed.offset)
        return np.rint(np.nan_to_num(np.clip(share, 0, 1)) * 255).astype(np.uint8)


def stretched(sample: np.ndarray, pair: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The weights (C, C) and the offset (C,) that stretch each channel of a sample (n, C) from one percentile to
    another."""
    low, high = np.percentile(sample, pair, axis=0)
    width = np.where(high > low, high - low, np.inf)
    return np.diag(1 / width), -low / width


def principal(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights (3, C) and the offset (3,) that show the first three principal components of a sample (n, C), each
    channel divided by its deviation, between their 2nd and 98th percentile. The largest weight of each is positive."""
    deviation = sample.std(axis=0)
    scale = np.where(deviation > 0, deviation, np.inf)
    middle = sample.mean(axis=0)
    values = (sample - middle) / scale
    _, vectors = np.linalg.eigh(values.T @ values)
    chosen = vectors[:, ::-1][:, :3].T
    chosen *= np.sign(chosen[np.arange(3), np.abs(chosen).argmax(axis=1)])[:, None]
    spread, offset = stretched(values @ chosen.T, PERCENTILES)
    weights = spread @ chosen / scale
    return weights, offset - weights @ middle


def check_real(dtype: np.dtype) -> None:
    """DecodeError for complex numbers, text and the like."""
    if np.dtype(dtype).kind not in "buif":
        raise DecodeError(f"holds {np.dtype(dtype)} values, not real numbers")


def _depth(sample: np.ndarray) -> tuple[float, float]:
    """As `pixels.to_uint8` scales an image that is decoded whole."""
    finite = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if sample.dtype.kind == "f":
        return (low, high) if low < 0 or high > 1 else (0.0, 1.0)
    if sample.dtype.kind == "b":
        return 0.0, 1.0
    if low >= 0 and high < 65536:
        return 0.0, float(2 ** next(depth for depth in (8, 12, 16) if high < 2**depth) - 1)
    return low, high


def _percentiles(pair: tuple[float, float]) -> Callable[[np.ndarray], tuple[float, float]]:
    def find(values: np.ndarray) -> tuple[float, float]:
        low, high = np.percentile(values, pair)
        return float(low), float(high)

    return find


def _zscale(values: np.ndarray) -> tuple[float, float]:
    from astropy.visualization import ZScaleInterval

    low, high = ZScaleInterval().get_limits(values)
    return float(low), float(high)
