"""GeoPackage: outlines in the image's own CRS, one feature a region, with class, name, colour and area.

Without a CRS: pixels, y upwards from the upper left corner, which is where QGIS puts an image that has none.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.images.source import Georeference
from pipeline.writers.areas import is_degrees
from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer
from pipeline.writers.outlines import outlines

LAYER = "classes"


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    with out.new(f"{image.name}.gpkg") as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        _write(part, legend, image, ids)


def _write(part: Path, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    import pyogrio
    import shapely

    grid = image.georeference
    crs = grid.crs if grid and grid.transform else None
    column, areas = _measure(image)
    for number, (_, polygons) in enumerate(outlines(ids, legend.nothing)):
        classes = np.array([number for number, parts in polygons.items() for _ in parts], np.int32)
        pixels = np.array([polygon for parts in polygons.values() for polygon in parts], object)
        placed = shapely.transform(pixels, partial(_placed, grid))
        fields = {
            "class": classes,
            "name": np.array([legend.names[number] for number in classes], object),
            "color": np.array([legend.css(number) for number in classes], object),
            column: np.asarray(areas(pixels, placed), np.float64),
            "source_image": np.full(len(classes), image.path, object),
        }
        pyogrio.raw.write(
            part,
            shapely.to_wkb(placed),
            list(fields.values()),
            list(fields),
            layer=LAYER,
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs,
            append=number > 0,
        )


def _placed(grid: Georeference | None, points: np.ndarray) -> np.ndarray:
    """Points (n, 2), columns and rows, in the CRS of the image."""
    a, b, c, d, e, f = grid.transform if grid and grid.transform else (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    x, y = points.T
    return np.stack([a * x + b * y + c, d * x + e * y + f], 1)


def _measure(image: ImageFacts) -> tuple[str, Callable[[np.ndarray, np.ndarray], Any]]:
    """The name of the column of areas, and the areas of regions from their outlines in pixels and in the CRS: `area_m2`
    on Earth (of the ellipsoid, where coordinates are degrees), `area_um2`, `area_px`."""
    import pyproj
    import rasterio
    import shapely

    grid, size = image.georeference, image.pixel_size
    if grid is not None and grid.crs and is_degrees(grid):
        geod = pyproj.CRS.from_wkt(grid.crs).get_geod() or pyproj.Geod(ellps="WGS84")
        return "area_m2", lambda _, placed: [abs(geod.geometry_area_perimeter(outline)[0]) for outline in placed]
    if grid is not None and grid.crs and grid.transform:
        factor = rasterio.CRS.from_wkt(grid.crs).linear_units_factor[1] ** 2
        return "area_m2", lambda _, placed: shapely.area(placed) * factor
    if size is not None and size.unit == "µm":
        return "area_um2", lambda pixels, _: shapely.area(pixels) * size.x * size.y
    return "area_px", lambda pixels, _: shapely.area(pixels)


WRITER = Writer(one, suffix=".gpkg")
