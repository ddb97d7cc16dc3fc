"""GeoPackage: outlines in the image's own CRS, one feature a region, with class, name, colour and area.

Without a CRS: pixels, y upwards from the upper left corner, which is where QGIS puts an image that has none.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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
    from shapely.affinity import affine_transform

    grid = image.georeference
    placed = grid is not None and grid.transform is not None
    a, b, c, d, e, f = grid.transform if grid and grid.transform else (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    crs = grid.crs if grid and placed else None
    column, area = _measure(image)
    begun = False
    for _, polygons in outlines(ids, legend.nothing):
        numbers = np.array([number for number, parts in polygons.items() for _ in parts], np.int32)
        pixels = [polygon for parts in polygons.values() for polygon in parts]
        shapes = [affine_transform(polygon, (a, b, d, e, c, f)) for polygon in pixels]
        fields = {
            "class": numbers,
            "name": np.array([legend.names[number] for number in numbers], object),
            "color": np.array([legend.css(number) for number in numbers], object),
            column: np.array([area(*both) for both in zip(pixels, shapes, strict=True)], float),
            "source_image": np.full(len(numbers), image.path, object),
        }
        pyogrio.raw.write(
            part,
            shapely.to_wkb(np.array(shapes, object)),
            list(fields.values()),
            list(fields),
            layer=LAYER,
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs,
            append=begun,
        )
        begun = True


def _measure(image: ImageFacts) -> tuple[str, Callable[[Any, Any], float]]:
    """The name of the column of areas, and the area of a region from its outline in pixels and in the CRS: `area_m2`
    on Earth (of the ellipsoid, where coordinates are degrees), `area_um2`, `area_px`."""
    import pyproj
    import rasterio

    grid, size = image.georeference, image.pixel_size
    if grid is not None and grid.crs and is_degrees(grid):
        geod = pyproj.CRS.from_wkt(grid.crs).get_geod() or pyproj.Geod(ellps="WGS84")
        return "area_m2", lambda _, outline: abs(geod.geometry_area_perimeter(outline)[0])
    if grid is not None and grid.crs and grid.transform:
        factor = rasterio.CRS.from_wkt(grid.crs).linear_units_factor[1] ** 2
        return "area_m2", lambda _, outline: outline.area * factor
    if size is not None and size.unit == "µm":
        return "area_um2", lambda pixels, _: pixels.area * size.x * size.y
    return "area_px", lambda pixels, _: pixels.area


WRITER = Writer(one, suffix=".gpkg")
