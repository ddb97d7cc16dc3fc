"""From an image of a field to its own kind: the same grid, to the last digit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from astropy.io import fits
from astropy.wcs import WCS
from corpora import picture
from test_grids import GRID, HEADER, ROTATED

from pipeline.api import run
from pipeline.config import PipelineConfig
from pipeline.images.source import Georeference
from pipeline.results import Run


@pytest.fixture
def segmented(make_config: Callable[..., PipelineConfig], tmp_path: Path) -> Callable[..., Run]:
    return lambda: run(make_config(root=tmp_path / "data", masks={"crf": False}))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    place = tmp_path / "data/images"
    place.mkdir(parents=True)
    return place


@pytest.mark.parametrize("grid", [GRID, ROTATED])
def test_geotiff(grid: Georeference, images: Path, segmented: Callable[..., Run], tmp_path: Path):
    place = {"transform": rasterio.Affine(*grid.transform), "crs": rasterio.CRS.from_wkt(grid.crs), "nodata": 0}
    for number in range(3):
        pixels = np.moveaxis(picture(number, (64, 80))[0], -1, 0).astype(np.uint16) * 257
        pixels[:, :20, :30] = 0
        with rasterio.open(images / f"{number}.tif", "w", "GTiff", 80, 64, 3, dtype=np.uint16, **place) as file:
            file.write(pixels)
    done = segmented()
    assert done.export(tmp_path / "out")["format"] == "geotiff"
    for number in range(3):
        with rasterio.open(images / f"{number}.tif") as was, rasterio.open(tmp_path / f"out/{number}.tif") as found:
            assert tuple(found.transform) == tuple(was.transform)
            assert (found.crs, found.shape) == (was.crs, was.shape)
            ids = found.read(1)
            assert (ids[:20, :30] == 255).all(), "nodata has no class"
            np.testing.assert_array_equal(ids, done.masks[f"{number}.tif"])


def test_fits(images: Path, segmented: Callable[..., Run], tmp_path: Path):
    for number in range(3):
        pixels = picture(number, (64, 80))[0].mean(-1).astype(np.float32)
        fits.writeto(images / f"{number}.fits", pixels, HEADER)
    done = segmented()
    assert done.export(tmp_path / "out")["format"] == "fits"
    with fits.open(tmp_path / "out/1.fits") as found:
        np.testing.assert_array_equal(found["SEGMAP"].data, done.masks["1.fits"].astype(int) + 1)
        again, was = WCS(found["SEGMAP"].header), WCS(HEADER)
        np.testing.assert_array_equal(again.pixel_to_world_values(5, 9), was.pixel_to_world_values(5, 9))


def test_ome_zarr(images: Path, segmented: Callable[..., Run], tmp_path: Path):
    for number in range(3):
        pixels = np.moveaxis(picture(number, (64, 80))[0], -1, 0)
        group = zarr.create_group(images / f"{number}.zarr")
        for level, step in enumerate((1, 2)):
            group.create_array(str(level), data=np.ascontiguousarray(pixels[:, ::step, ::step]))
        scales = [[1, 0.5 * step, 0.25 * step] for step in (1, 2)]
        datasets = [
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for level, scale in enumerate(scales)
        ]
        axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    done = segmented()
    assert done.export(tmp_path / "out")["format"] == "ome-zarr"
    root = zarr.open_group(tmp_path / "out/1.zarr", mode="r", zarr_format=2)
    (multiscales,) = root.attrs["multiscales"]
    found = [row["coordinateTransformations"][0]["scale"] for row in multiscales["datasets"]]
    assert found == [[0.5, 0.25], [1.0, 0.5]]
    np.testing.assert_array_equal(root["0"][:], done.masks["1.zarr"])
