"""Curves of the report as plain numbers: points and ticks in the units of the drawing, which the template strokes."""

import math
from typing import Any

import numpy as np

WIDTH, HEIGHT = 600, 200
"""The plot's box. A curve is drawn from (0, HEIGHT), its lower left corner, upwards to (WIDTH, 0)."""
POINTS = 300
"""Longer columns are averaged into this many points."""
LINES = 6
"""Line colours in the style sheet."""
LARGEST = 1e300
"""Values are clipped here, so that no difference of two overflows."""


def panels(log: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A panel for each family of columns (`loss`, `loss_self`, … are one), against `step` where there is one."""
    families: dict[str, dict[str, np.ndarray]] = {}
    for name, column in log.items():
        if name != "step" and len(column):
            families.setdefault(name.split("_")[0], {})[name] = column
    return [{"name": family, **curve(columns, log.get("step"))} for family, columns in families.items()]


def curve(columns: dict[str, np.ndarray], x: np.ndarray | None = None) -> dict[str, Any]:
    """Lines over common axes.

    columns: values (n,) by name, drawn against `x` (n,), else against 0..n−1. Values that are not finite are left out
    and counted. Returns `lines`, each with `name`, `line` (number of its colour), `last` (None where not finite), `bad`
    (how many are not), `points` (x, y) and, of thinned columns, `band` (a polygon between the minima and maxima);
    `x_ticks` and `y_ticks`, each (place, text); `x_low` and `x_high`, the span of the horizontal axis.
    """
    thinned = [thin(np.arange(len(y)) if x is None else x[: len(y)], y) for y in columns.values()]
    x_low, x_high = span([part[0] for part in thinned])
    y_low, y_high = span([row for part in thinned for row in part[2:]])
    lines = []
    for number, ((name, y), (at, mean, low, high)) in enumerate(zip(columns.items(), thinned, strict=True)):
        across = WIDTH * (at - x_low) / (x_high - x_low)
        mean, low, high = (HEIGHT * (y_high - row) / (y_high - y_low) for row in (mean, low, high))
        band = [*zip(across, low, strict=True), *zip(across[::-1], high[::-1], strict=True)]
        lines.append(
            {
                "name": name,
                "line": number % LINES,
                "last": float(y[-1]) if np.isfinite(y[-1]) else None,
                "bad": int((~np.isfinite(y)).sum()),
                "points": list(zip(across.tolist(), mean.tolist(), strict=True)),
                "band": band if len(y) > POINTS else [],
            }
        )
    x_ticks = [(WIDTH * (value - x_low) / (x_high - x_low), text) for value, text in ticks(x_low, x_high)]
    y_ticks = [(HEIGHT * (y_high - value) / (y_high - y_low), text) for value, text in ticks(y_low, y_high)]
    return {"lines": lines, "x_ticks": x_ticks, "y_ticks": y_ticks, "x_low": x_low, "x_high": x_high}


def thin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """At most `POINTS` columns of x, mean, minimum and maximum, (4, n) float64, of the finite pairs of x and y."""
    x, y = (np.asarray(values, np.float64)[: min(len(x), len(y))] for values in (x, y))
    good = np.isfinite(x) & np.isfinite(y)
    x, y = (np.clip(values[good], -LARGEST, LARGEST) for values in (x, y))
    if len(x) <= POINTS:
        return np.stack([x, y, y, y])
    starts = np.arange(POINTS) * len(x) // POINTS
    sizes = np.diff(starts, append=len(x))
    means = [np.add.reduceat(values / np.repeat(sizes, sizes), starts) for values in (x, y)]
    return np.stack([*means, np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)])


def span(rows: list[np.ndarray]) -> tuple[float, float]:
    """The smallest and the largest of all values, with some room where they are the same; 0 to 1 without values."""
    values = np.concatenate(rows)
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = max(abs(low), abs(high)) or 1.0
    return (low, high) if high - low > 1e-9 * room else (low - room / 2, high + room / 2)


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Three to seven round values between low and high, 1, 2 or 5 × 10ⁿ apart, and their text."""
    exponent = math.floor(math.log10(high - low))
    for step in (factor * 10.0**power for power in (exponent, exponent - 1) for factor in (5, 2, 1)):
        numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(numbers) >= 3:
            break
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = decimals <= 4 and max(abs(low), abs(high)) < 1e6
    texts = [f"{step * number:.{decimals}f}" if plain else f"{step * number:.3g}" for number in numbers]
    return [(step * number, text.replace("-", "−")) for number, text in zip(numbers, texts, strict=True)]
