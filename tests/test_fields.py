"""The config of each field, as it is written, on images of that field; and what is exported without a format named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import yaml
from astropy.io import fits
from astropy.wcs import WCS
from corpora import BACKBONE, HEADS, picture
from raster_files import geotiff, slide, tissue
from shapely.geometry import shape

from pipeline import configs
from pipeline.api import run
from pipeline.config import validate
from pipeline.exporting import export

SIDE = 340
WCS_CARDS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 189.2, "CRVAL2": 62.2, "CRPIX1": 170.0,
             "CRPIX2": 170.0, "CDELT1": -1e-5, "CDELT2": 1e-5}  # fmt: skip


def slides(root: Path) -> None:
    slide(root / "a.svs", [tissue(480), tissue(240)], 0.5)


def scenes(root: Path) -> None:
    bands = picture(0, (SIDE, SIDE))[0].astype(np.uint16) * 30 + 1
    bands[:40] = 0
    geotiff(root / "a.tif", np.dstack([bands, bands[..., :1] // 2]), ("blue", "green", "red", "nir"), nodata=0)


def micrographs(root: Path) -> None:
    root.mkdir(parents=True)
    stack = np.stack([picture(n, (SIDE, SIDE))[0][..., 0].astype(np.uint16) * 60 for n in range(2)])
    scale = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(root / "a.ome.tif", stack, photometric="minisblack", metadata={"axes": "ZYX", **scale})


def skies(root: Path) -> None:
    root.mkdir(parents=True)
    image = picture(0, (SIDE, SIDE))[0][..., 0].astype(np.float32)
    image[:30] = np.nan
    fits.PrimaryHDU(image, fits.Header(WCS_CARDS)).writeto(root / "a.fits")


def opens_in_qupath(out: Path) -> None:
    features = json.loads((out / "a.geojson").read_text())["features"]
    assert features
    assert all(shape(one["geometry"]).is_valid for one in features)
    assert all(one["properties"]["classification"]["name"] for one in features)


def opens_in_qgis(out: Path) -> None:
    with rasterio.open(out / "a.tif") as file:
        assert (file.crs.to_epsg(), file.shape, file.nodata) == (32633, (SIDE, SIDE), 255)
        assert (file.read(1)[:40] == 255).all()
        assert file.colormap(1)


def opens_in_napari(out: Path) -> None:
    assert sorted(path.name for path in out.glob("*.tif")) == ["a.ome#z=0.ome.tif", "a.ome#z=1.ome.tif"]
    with tifffile.TiffFile(out / "a.ome#z=1.ome.tif") as file:
        assert file.is_ome
        assert file.series[0].shape == (SIDE, SIDE)
        assert 'PhysicalSizeX="0.2"' in file.ome_metadata


def opens_in_ds9(out: Path) -> None:
    with fits.open(out / "a.fits") as file:
        ids = file["SEGMAP"]
        assert (ids.data[:30] == 0).all()
        assert (ids.data[40:] > 0).all()
        assert np.allclose(WCS(ids.header).wcs_pix2world([[9, 9]], 0), WCS(WCS_CARDS).wcs_pix2world([[9, 9]], 0))


@pytest.mark.parametrize(
    ("field", "write", "opens"),
    [
        ("slide", slides, opens_in_qupath),
        ("satellite", scenes, opens_in_qgis),
        ("micrograph", micrographs, opens_in_napari),
        ("sky", skies, opens_in_ds9),
    ],
)
def test_a_field(field, write, opens, tmp_path, vit):
    """With another backbone, of patches of 16 pixels, and a head that is soon trained."""
    write(tmp_path / "images")
    content: dict[str, Any] = yaml.safe_load(configs.path(field).read_text(encoding="utf-8"))
    content |= {"store": str(tmp_path / "store"), "head": HEADS["stegoflow"]}
    content["dataset"]["root"] = str(tmp_path / "images")
    content["features"] |= {"backbone": BACKBONE, "weights": str(vit)}
    content["features"]["views"]["size"] = [320, 320]
    content["suggestion"] = {"highest": 6, "draws": 2}
    content["execution"] |= {"executor": "serial", "device": "cpu", "precision": "fp32"}
    made = run(validate(content))
    assert Path(made.report).stat().st_size > 10_000
    export(made.store, "latest", tmp_path / "out")
    opens(tmp_path / "out")
