"""GeoTIFF, FITS, OME-Zarr, OME-TIFF: read back by rasterio, astropy and photutils, zarr, tifffile."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from astropy.io import fits
from astropy.wcs import WCS
from photutils.segmentation import SegmentationImage
from rasterio.errors import NotGeoreferencedWarning
from written import LEGEND, MANY, NAMES, blobs, facts, write_maps

from pipeline.images.source import Georeference, PixelSize
from pipeline.terminal import visible

UTM = rasterio.CRS.from_epsg(32633).to_wkt()
GRID = Georeference(UTM, (0.3000000000000001, 0.0, 500000.123456789, 0.0, -0.3, 5100000.987654321))
ROTATED = Georeference(UTM, (0.29, 0.05, 500000.0, 0.05, -0.29, 5100000.0))


def write(format: str, out: Path, ids: np.ndarray, legend=LEGEND, **more: object) -> Path:
    write_maps(format, out, [(facts(**more), ids)], legend)
    return out / "a"


def scores(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Sure of every pixel."""
    return ((ids == number).astype(np.uint8) * 255 for number in range(len(NAMES)))


# GeoTIFF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [GRID, ROTATED])
def test_a_geotiff_lies_where_the_image_lies(grid: Georeference, tmp_path: Path):
    ids = blobs(700, 1100)
    with rasterio.open(write("geotiff", tmp_path, ids, georeference=grid) / "image.tif") as file:
        np.testing.assert_array_equal(file.read(1), ids)
        assert tuple(file.transform)[:6] == grid.transform, "to the last digit"
        assert file.crs == rasterio.CRS.from_wkt(UTM)
        assert (file.nodata, file.dtypes, file.block_shapes) == (255, ("uint8",), [(512, 512)])
        assert file.compression.name == "deflate"
        assert file.overviews(1) == [2, 4]
        colours = file.colormap(1)
        assert [colours[number][:3] for number in range(8)] == [tuple(colour) for colour in LEGEND.colours.tolist()]
        assert [file.tags(1)[f"CLASS_{number}"] for number in range(8)] == [visible(name) for name in NAMES]
        assert file.tags()["STEGOFLOW_RUN"] == "20261126-0000"
    with rasterio.open(tmp_path / "a/image.tif", overview_level=0) as half:
        assert set(np.unique(half.read(1))) <= set(np.unique(ids)), "ids are not averaged"


def test_gdal_finds_the_names(tmp_path: Path):
    """As categories, which QGIS lists beside the colours."""
    write("geotiff", tmp_path, blobs(40, 50), georeference=GRID)
    code = """
import sys
from rasterio.drivers import raster_driver_extensions
from rasterio.shutil import copy
copy(sys.argv[1], sys.argv[2], driver="VRT")
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "a/image.tif", tmp_path / "a.vrt"], check=True)
    text = (tmp_path / "a.vrt").read_text()
    assert "<Category>&lt;img src=x onerror=alert(1)&gt;</Category>" in text
    assert "<Category>Füße–東京–🦊</Category>" in text


def test_an_image_without_a_grid_and_many_classes(tmp_path: Path):
    ids = blobs(40, 50, 300)
    place = write("geotiff", tmp_path, ids, MANY)
    with pytest.warns(NotGeoreferencedWarning):
        opened = rasterio.open(place / "image.tif")
    with opened as file:
        np.testing.assert_array_equal(file.read(1), ids)
        assert (file.dtypes, file.nodata, file.crs) == (("uint16",), 65535, None)
        assert file.tags(1)["CLASS_299"] == "class 299"


def test_scores_are_bands(tmp_path: Path):
    ids = blobs(40, 50)
    place = write("geotiff", tmp_path, ids, georeference=GRID, scores=lambda: scores(ids))
    with rasterio.open(place / "image.scores.tif") as file:
        assert file.descriptions == tuple(visible(name) for name in NAMES)
        assert tuple(file.transform)[:6] == GRID.transform
        np.testing.assert_array_equal(file.read(), np.stack(list(scores(ids))))


# FITS ----------------------------------------------------------------------------------------------------------------

SKY = WCS(naxis=2)
SKY.wcs.ctype, SKY.wcs.crval, SKY.wcs.crpix = ["RA---TAN", "DEC--TAN"], [83.82208123456789, -5.39111], [20.5, 10.25]
SKY.wcs.cd = [[-1.1111111111e-5, 2e-7], [2e-7, 1.1111111111e-5]]
HEADER = SKY.to_header()
HEADER["CRVAL1"] = (83.82208123456789, "[deg]")
STARS = Georeference(wcs=HEADER.tostring(sep="\n"))


@pytest.mark.parametrize(("legend", "bits"), [(LEGEND, 16), (MANY, 16)])
def test_a_segmap_lies_under_the_wcs_of_the_image(legend, bits: int, tmp_path: Path):
    ids = blobs(60, 80, len(legend.names))
    place = write("fits", tmp_path, ids, legend, georeference=STARS)
    with fits.open(place / "image.fits") as file:
        assert [hdu.name for hdu in file] == ["PRIMARY", "SEGMAP", "CLASSES"]
        segments = file["SEGMAP"]
        assert segments.header["BITPIX"] == bits
        np.testing.assert_array_equal(segments.data, np.where(ids == legend.nothing, 0, ids.astype(int) + 1))
        for card in HEADER.cards:
            assert segments.header[card.keyword] == card.value, card.keyword
        again = WCS(segments.header)
        np.testing.assert_array_equal(again.pixel_to_world_values(7, 9), WCS(HEADER).pixel_to_world_values(7, 9))
        table = file["CLASSES"]
        assert table.data["LABEL"].tolist() == list(range(1, len(legend.names) + 1))
        wanted = [name.encode("ascii", "backslashreplace").decode() for name in legend.names]
        assert table.data["NAME"].tolist() == [name.rstrip() for name in wanted]
        assert table.data["NPIX"].tolist() == [(ids == number).sum() for number in range(len(legend.names))]
        np.testing.assert_allclose(table.data["AREA"], table.data["NPIX"] * 0.04**2, rtol=1e-3)
        assert table.columns["AREA"].unit == "arcsec2"
        found = SegmentationImage(segments.data.astype(int))
        assert set(found.labels) == {int(id) + 1 for id in np.unique(ids) if id != legend.nothing}


def test_scores_are_planes(tmp_path: Path):
    ids = blobs(60, 80)
    with fits.open(write("fits", tmp_path, ids, scores=lambda: scores(ids)) / "image.fits") as file:
        np.testing.assert_array_equal(file["SCORES"].data, np.stack(list(scores(ids))))


# OME-Zarr ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(), ((700, 1100), (350, 550), (117, 184))])
def test_an_ome_zarr_is_a_label_image_with_the_levels_of_the_image(levels, tmp_path: Path):
    ids = blobs(700, 1100)
    place = write("ome-zarr", tmp_path, ids, levels=levels, pixel_size=PixelSize(0.25, 0.5, "µm"))
    root = zarr.open_group(place / "image.zarr", mode="r", zarr_format=2)
    (multiscales,) = root.attrs["multiscales"]
    assert multiscales["version"] == "0.4"
    assert multiscales["axes"] == [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    sizes = list(levels) or [(700, 1100), (350, 550), (175, 275)]
    assert [root[row["path"]].shape for row in multiscales["datasets"]] == sizes
    for row, size in zip(multiscales["datasets"], sizes, strict=True):
        (scaled,) = row["coordinateTransformations"]
        assert scaled["scale"] == [0.5 * 700 / size[0], 0.25 * 1100 / size[1]]
        y = ((np.arange(size[0]) + 0.5) * 700 / size[0]).astype(int)
        x = ((np.arange(size[1]) + 0.5) * 1100 / size[1]).astype(int)
        np.testing.assert_array_equal(root[row["path"]][:], ids[np.ix_(y, x)])
    label = root.attrs["image-label"]
    colours = {row["label-value"]: row["rgba"] for row in label["colors"]}
    assert colours.pop(255) == [0, 0, 0, 0]
    assert colours == {number: [*colour, 255] for number, colour in enumerate(LEGEND.colours.tolist())}
    assert [row["name"] for row in label["properties"]] == [*NAMES, "no class"]
    metadata = json.loads((place / "image.zarr/0/.zarray").read_text())
    assert (metadata["dimension_separator"], metadata["dtype"]) == ("/", "|u1")


def test_scores_are_channels(tmp_path: Path):
    ids = blobs(60, 80)
    place = write("ome-zarr", tmp_path, ids, scores=lambda: scores(ids))
    root = zarr.open_group(place / "image.scores.zarr", mode="r", zarr_format=2)
    np.testing.assert_array_equal(root["0"][:], np.stack(list(scores(ids))))
    assert [row["label"] for row in root.attrs["omero"]["channels"]] == NAMES


# OME-TIFF ------------------------------------------------------------------------------------------------------------


def test_an_ome_tiff_holds_ids_colours_names_sizes_and_levels(tmp_path: Path):
    ids = blobs(700, 1100)
    place = write("ome-tiff", tmp_path, ids, pixel_size=PixelSize(0.25, 0.5, "µm"))
    with tifffile.TiffFile(place / "image.ome.tif") as file:
        assert file.is_ome
        (series,) = file.series
        assert [level.shape for level in series.levels] == [(700, 1100), (350, 550), (175, 275)]
        np.testing.assert_array_equal(series.asarray(), ids)
        assert set(np.unique(series.levels[2].asarray())) <= set(np.unique(ids))
        page = file.pages[0]
        assert page.photometric.name == "PALETTE"
        np.testing.assert_array_equal(page.colormap[:, :8].T // 257, LEGEND.colours)
        described = tifffile.xml2dict(file.ome_metadata)["OME"]
    pixels = described["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"], pixels["PhysicalSizeXUnit"]) == (0.25, 0.5, "µm")
    rows = described["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
    said = {row["K"]: row["value"] for row in rows}
    assert [said[key] for key in (0, 1, 3)] == [NAMES[0], NAMES[1], NAMES[3]]


def test_an_ome_tiff_of_many_classes_has_16_bits(tmp_path: Path):
    ids = blobs(40, 50, 300)
    with tifffile.TiffFile(write("ome-tiff", tmp_path, ids, MANY) / "image.ome.tif") as file:
        assert file.pages[0].photometric.name == "MINISBLACK"
        np.testing.assert_array_equal(file.asarray(), ids)


def test_scores_are_channels_of_an_ome_tiff(tmp_path: Path):
    ids = blobs(600, 80)
    place = write("ome-tiff", tmp_path, ids, scores=lambda: scores(ids))
    with tifffile.TiffFile(place / "image.scores.ome.tif") as file:
        assert file.series[0].axes == "CYX"
        np.testing.assert_array_equal(file.asarray(), np.stack(list(scores(ids))))
