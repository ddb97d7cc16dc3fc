"""What a pixel measures, where a config says it: one size for all images, or a table with a line for each."""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import ConfigError
from pipeline.core.params import Params
from pipeline.images.formats import split_plane
from pipeline.images.source import PixelSize

COLUMNS = ("path", "x", "y", "unit")
UNITS = ("µm", "m", "°", "arcsec")


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
