"""The formats that label maps are written in. This table imports nothing heavy: `--as` and the explorer list it.

To add a format: write a module with a `WRITER` (`interface.Writer`) and give it a row here.
"""

from typing import TYPE_CHECKING, NamedTuple

from pipeline.core.errors import ConfigError
from pipeline.core.extras import require

if TYPE_CHECKING:
    from pipeline.writers.interface import Writer


class Format(NamedTuple):
    """One format of label maps."""

    title: str
    """What the explorer calls it."""
    opens_in: str
    inside: str
    """What is written, in a few words."""
    needs: tuple[str, ...] = ()
    """Optional packages, by import name."""
    grid: bool = False
    """Whether it keeps where the image lies and what a pixel measures: the headers of the images are read."""
    scores: bool = False
    """Whether it has room for the score of every class."""
    whole: bool = False
    """Whether it holds a label map whole; the others read it in strips or tiles."""


FORMATS: dict[str, Format] = {
    "palette": Format("Coloured PNG", "any viewer", "a PNG per image: ids, painted by a palette"),
    "png": Format("Plain PNG", "NumPy, OpenCV, scikit-image", "a PNG per image: ids alone, 8 or 16 bits, no colours"),
    "geotiff": Format(
        "GeoTIFF", "QGIS, ArcGIS, rasterio", "a GeoTIFF per image on its own grid", ("rasterio",), True, True
    ),
    "ome-zarr": Format(
        "OME-Zarr", "napari, Fiji, QuPath", "an OME-Zarr 0.4 label image per image, with levels", (), True, True
    ),
    "ome-tiff": Format("OME-TIFF", "QuPath, Fiji, napari", "an OME-TIFF per image, with levels", (), True, True),
    "fits": Format("FITS", "DS9, photutils, astropy", "a SEGMAP per image under its WCS", ("astropy",), True, True),
    "geojson": Format(
        "QuPath GeoJSON", "QuPath", "outlines in pixels, a file per image", ("rasterio", "shapely"), True
    ),
    "gpkg": Format(
        "GeoPackage", "QGIS", "outlines in the image's CRS, with areas", ("rasterio", "shapely", "pyogrio"), True
    ),
    "coco": Format(
        "COCO",
        "pycocotools, Detectron2, FiftyOne",
        "one JSON: a run-length mask per class",
        ("pycocotools",),
        whole=True,
    ),
    "panoptic": Format(
        "COCO panoptic", "panopticapi, Mask2Former", "COCO panoptic: PNGs of segment ids and one JSON", whole=True
    ),
    "cvat": Format("CVAT", "CVAT", "one zip: Segmentation mask 1.1", whole=True),
    "label-studio": Format(
        "Label Studio", "Label Studio", "tasks with brush predictions, and the labelling config", whole=True
    ),
    "fiftyone": Format("FiftyOne", "FiftyOne", "masks, their targets, and a script that loads them", whole=True),
    "table": Format(
        "Table of areas",
        "pandas, R, Excel",
        "pixels, share and area per image and class: CSV and Parquet",
        (),
        True,
        True,
    ),
}
"""Every format by the name that `--as` takes."""


def check(name: str, scores: bool = False) -> None:
    """ConfigError where a format does not exist, lacks its packages, or has no room for `scores`."""
    if name not in FORMATS:
        raise ConfigError(f"--as {name}: the formats are {', '.join(FORMATS)}", next="--as palette")
    for package in FORMATS[name].needs:
        require(package, f"--as {name}")
    if scores and not FORMATS[name].scores:
        able = ", ".join(key for key, row in FORMATS.items() if row.scores)
        raise ConfigError(f"--scores: {name} has no room for them", next=f"--as one of {able}")


def open_writer(name: str) -> "Writer":
    """The writer of a format."""
    from importlib import import_module  # noqa: TID251 (the names of FORMATS alone)

    check(name)
    writer: Writer = import_module(f"pipeline.writers.{name.replace('-', '_')}").WRITER
    return writer
