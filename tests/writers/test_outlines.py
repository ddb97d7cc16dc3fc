"""GeoJSON and GeoPackage: valid polygons, exact areas; read back by shapely, rasterio and pyogrio."""

import json
from pathlib import Path
from uuid import UUID

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.features import rasterize
from shapely.geometry import shape
from test_grids import GRID, ROTATED
from written import LEGEND, NAMES, blobs, facts, write_maps

from pipeline.images.source import Georeference, PixelSize
from pipeline.writers import outlines as module
from pipeline.writers.areas import pixel_areas
from pipeline.writers.outlines import outlines


def features(path: Path) -> list[dict]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"type", "features"}, "no CRS"
    return content["features"]


def painted(rows: list[dict], size: tuple[int, int]) -> np.ndarray:
    """A label map made of the features of QuPath again."""
    colours = [tuple(colour) for colour in LEGEND.colours.tolist()]
    drawn = [(row["geometry"], colours.index(tuple(row["properties"]["classification"]["color"]))) for row in rows]
    return rasterize(drawn, size, fill=255, dtype=np.uint8)


def test_qupath_gets_one_annotation_a_class(tmp_path: Path):
    ids = blobs(90, 120)
    write_maps("geojson", tmp_path, [(facts(pixel_size=PixelSize(0.25, 0.5, "µm")), ids)])
    rows = features(tmp_path / "a/image.geojson")
    assert [row["properties"]["classification"]["name"] for row in rows] == NAMES
    for number, row in enumerate(rows):
        said = row["properties"]
        assert set(said) == {"objectType", "classification", "isLocked", "measurements"}
        assert (said["objectType"], said["isLocked"]) == ("annotation", True)
        assert str(UUID(row["id"])) == row["id"]
        outline = shape(row["geometry"])
        assert outline.is_valid
        assert outline.geom_type == "MultiPolygon"
        count = (ids == number).sum()
        assert outline.area == count
        assert said["measurements"] == {"Area px^2": count, "Area µm^2": count * 0.125}
    np.testing.assert_array_equal(painted(rows, ids.shape), ids)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_any_label_map_is_covered_by_valid_polygons(seed: int, height: int, width: int, classes: int):
    """Noise: holes in holes, regions and holes that touch in a corner."""
    ids = np.random.default_rng(seed).integers(0, classes + 1, (height, width)).astype(np.uint8)
    ((_, found),) = outlines(ids, classes)
    every = [polygon for parts in found.values() for polygon in parts]
    assert all(polygon.is_valid and polygon.geom_type == "Polygon" for polygon in every)
    assert all(shapely.MultiPolygon(parts).is_valid for parts in found.values())
    drawn = [(polygon, number) for number, parts in found.items() for polygon in parts]
    again = rasterize(drawn, ids.shape, fill=classes, dtype=np.uint8) if drawn else np.full_like(ids, classes)
    np.testing.assert_array_equal(again, ids)
    assert sum(polygon.area for polygon in every) == (ids != classes).sum()


def test_large_images_are_detections_tile_by_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"LARGE": 1000, "TILE": 64}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("pipeline.writers.geojson.LARGE", 1000)
    ids = blobs(90, 120)
    write_maps("geojson", tmp_path, [(facts(), ids)])
    rows = features(tmp_path / "a/image.geojson")
    assert {row["properties"]["objectType"] for row in rows} == {"detection"}
    assert len({row["id"] for row in rows}) == len(rows) > 8
    assert all(shape(row["geometry"]).is_valid for row in rows)
    np.testing.assert_array_equal(painted(rows, ids.shape), ids)


# GeoPackage ----------------------------------------------------------------------------------------------------------

DEGREES = Georeference(rasterio.CRS.from_epsg(4326).to_wkt(), (1e-4, 0.0, 13.4, 0.0, -1e-4, 52.5))


def table(path: Path) -> tuple[dict, dict[str, np.ndarray], np.ndarray]:
    meta, _, geometry, fields = pyogrio.raw.read(path, layer="classes")
    return meta, dict(zip(meta["fields"], fields, strict=True)), shapely.from_wkb(geometry)


@pytest.mark.parametrize("grid", [GRID, ROTATED, DEGREES])
def test_a_geopackage_lies_where_the_image_lies(grid: Georeference, tmp_path: Path):
    ids = blobs(90, 120)
    image = facts(georeference=grid)
    write_maps("gpkg", tmp_path, [(image, ids)])
    meta, fields, polygons = table(tmp_path / "a/image.gpkg")
    assert rasterio.CRS.from_user_input(meta["crs"]) == rasterio.CRS.from_wkt(grid.crs)
    assert all(polygon.is_valid for polygon in polygons)
    assert set(fields["source_image"]) == {image.path}
    assert [NAMES[number] for number in fields["class"]] == fields["name"].tolist()
    assert [LEGEND.css(number) for number in fields["class"]] == fields["color"].tolist()
    drawn = list(zip(polygons, fields["class"].tolist(), strict=True))
    again = rasterize(drawn, ids.shape, 255, transform=rasterio.Affine(*grid.transform), dtype=np.uint8)
    np.testing.assert_array_equal(again, ids)
    areas, unit = pixel_areas(image, 90)
    assert unit == "m²"
    for number in range(len(NAMES)):
        wanted = (areas[:, None] * (ids == number)).sum()
        assert fields["area_m2"][fields["class"] == number].sum() == pytest.approx(wanted, rel=1e-5)


def test_the_area_of_a_pixel_in_degrees_is_that_of_the_ellipsoid():
    areas, _ = pixel_areas(facts(georeference=DEGREES), 90)
    for row in (0, 89):
        top = 52.5 - 1e-4 * row
        box = shapely.box(13.4, top - 1e-4, 13.4 + 1e-4, top)
        assert areas[row] == pytest.approx(abs(Geod(ellps="WGS84").geometry_area_perimeter(box)[0]), rel=1e-6)


def test_without_a_crs_a_geopackage_holds_pixels(tmp_path: Path):
    ids = blobs(90, 120)
    write_maps("gpkg", tmp_path, [(facts(pixel_size=PixelSize(0.5, 0.5, "µm")), ids)])
    _, fields, polygons = table(tmp_path / "a/image.gpkg")
    assert shapely.total_bounds(polygons).tolist() == [0, -90, 120, 0]
    assert fields["area_um2"].sum() == (ids != 255).sum() * 0.25
