"""How stored samples become what a backbone sees: which channels, and which values become 0 and 255.

Without a setting, 8-bit images are as they are stored and the first three channels are seen. The limits of a rule are
those of a whole image, never of a window: they come from at most `SAMPLE` pixels of it, the same in every process.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from pipeline.core.errors import ConfigError, Set
from pipeline.images.pixels import DecodeError

SAMPLE = 2**20
"""Pixels of an image at most that the limits of a rule come from."""
PERCENTILES = (2.0, 98.0)
ASINH = (1.0, 99.9)
SOFTENING = 0.1
"""Where asinh turns from linear to logarithmic, as a share of the range (astropy's default)."""

Rule = Literal["stored", "depth", "percentiles", "asinh", "zscale"]
Values = tuple[float, float] | Literal["percentiles", "asinh", "zscale"] | None


class Reading(NamedTuple):
    """What a config says about reading images; by default nothing."""

    channels: tuple[str | int, ...] | None = None
    """Three, or one that is seen as grey: names, or numbers that count from 1."""
    values: Values = None


AS_STORED = Reading()


class Limits(NamedTuple):
    """What becomes 0 and 255 of each channel."""

    low: np.ndarray
    high: np.ndarray
    asinh: bool = False


def reading(channels: Sequence[str | int] | None, values: object) -> Reading:
    """From the values of `dataset.channels` and `dataset.values`, also as JSON has them."""
    limits = tuple(map(float, values)) if isinstance(values, list | tuple) else values
    return Reading(tuple(channels) if channels else None, limits)  # type: ignore[arg-type]


def choose(names: Sequence[str], wanted: Sequence[str | int] | None, image: str) -> tuple[int, ...]:
    """The numbers (from 0) of the channels that are seen: those that are wanted, else the first three, or the first
    where there are fewer than three. ConfigError for a channel that an image lacks."""
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
            share = np.clip((samples[..., number].astype(np.float64) - limits.low[number]) / width[number], 0, 1)
            if limits.asinh:
                share = np.arcsinh(share / SOFTENING) / math.asinh(1 / SOFTENING)
            out[..., number] = np.rint(np.nan_to_num(share * 255))
    return out


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
