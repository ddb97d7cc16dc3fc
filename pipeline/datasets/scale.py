"""What a pixel measures, where a config says it: one size for all images, or a table with a line for each."""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import ConfigError, Set
from pipeline.core.params import Params
from pipeline.images.formats import split_plane
from pipeline.images.source import PixelSize

COLUMNS = ("path", "x", "y", "unit")
UNITS = ("µm", "m", "°", "arcsec")
METRES = {"µm": 1e-6, "m": 1.0}
FINEST = 1 / 64
"""Pixels of an image that make one of a view, at least: what is finer was meant otherwise."""


class PixelSizeParams(Params):
    x: float = Field(gt=0)
    """Width of a pixel of the full resolution."""
    y: float = Field(gt=0)
    """Its height."""
    unit: Literal["µm", "m", "°", "arcsec"] = "µm"


def configured(setting: Mapping[str, Any] | str | None) -> Callable[[str], PixelSize | None]:
    """From `dataset.pixel_size`, as plain data, the function from an image's path below the root to its pixel size;
    None where the setting says nothing of it. ConfigError for a table that cannot be read."""
    if isinstance(setting, str):
        table = _table(setting)
        return lambda path: table.get(path) or table.get(split_plane(path)[0])
    size = PixelSize(setting["x"], setting["y"], setting["unit"]) if setting else None
    return lambda path: size


def pixels_per(metres: float, size: PixelSize | None, path: str, field: str) -> tuple[float, float]:
    """How many pixels of an image, (down, across), measure so many metres. ConfigError, which names the image and the
    field that asks for it, where that cannot be said or is absurd."""
    why = ""
    if size is None:
        why = f"{path} does not say what a pixel measures, which {field} needs"
    elif size.unit not in METRES:
        why = f"a pixel of {path} measures {size.x:g} × {size.y:g} {size.unit}, no length, which {field} needs"
    elif metres / max(size.x, size.y) / METRES[size.unit] < FINEST:
        why = f"{path}: {field} is {METRES[size.unit] * max(size.x, size.y) / metres:,.0f} times finer than a pixel"
    if why or size is None:
        say = Set("dataset.pixel_size", "{x: 0.25, y: 0.25, unit: µm}")
        table = f"for all images, or name a CSV file there with the columns {','.join(COLUMNS)}"
        raise ConfigError(why, next=("say it by ", say, " (or unit: m) ", table))
    return metres / (size.y * METRES[size.unit]), metres / (size.x * METRES[size.unit])


def _table(name: str) -> dict[str, PixelSize]:
    todo = f"write {name} as lines of {','.join(COLUMNS)}, the first of them these words"
    found = {}
    try:
        with Path(name).open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            if lines.fieldnames is None or set(COLUMNS) - set(lines.fieldnames):
                raise ConfigError(f"dataset.pixel_size: {name} lacks columns", next=todo)
            for number, line in enumerate(lines, 2):
                try:
                    size = PixelSize(float(line["x"]), float(line["y"]), str(line["unit"]).replace("μ", "µ"))
                except (TypeError, ValueError):
                    raise ConfigError(f"dataset.pixel_size: {name}, line {number}: no numbers", next=todo) from None
                good = all(math.isfinite(side) and side > 0 for side in size[:2]) and size.unit in UNITS
                if not good or not line["path"]:
                    why = f"sizes above 0 and a unit of {', '.join(UNITS)} are needed"
                    raise ConfigError(f"dataset.pixel_size: {name}, line {number}: {why}", next=todo)
                found[line["path"]] = size
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"dataset.pixel_size: {name} cannot be read: {reason}", next=todo) from error
    return found
