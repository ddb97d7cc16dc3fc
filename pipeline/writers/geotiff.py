"""GeoTIFF: the label map on the image's own grid, with a colour table and the names of classes.

Tiles of 512, deflate, `nodata` for pixels without a class, overviews by nearest. Names are tags of the band and, for
QGIS and GDAL, categories in `.tif.aux.xml`. Scores are a file of their own, one band a class.
"""

import warnings
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from pipeline.terminal import visible
from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer, strips
from pipeline.writers.levels import TILE

CACHE = 64
"""MB of tiles that GDAL holds; by default it takes a twentieth of the machine."""


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE, COMPRESS_OVERVIEW="DEFLATE"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _write_files(out, legend, image, ids)


def _write_files(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    out.write(f"{image.name}.tif.aux.xml", _categories(legend))
    with out.new(f"{image.name}.tif") as part:
        _write(part, legend, image, ids)
    if image.scores is not None:
        with out.new(f"{image.name}.scores.tif") as part:
            _write_scores(part, legend, image, ids.shape)


def _write(part: Path, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    with _opened(part, image, ids.shape, 1, legend.dtype, legend.nothing) as file:
        for rows, pixels in strips(ids, TILE):  # a row of tiles is written once
            file.write(pixels.astype(legend.dtype), 1, window=Window(0, rows.start, *pixels.shape[::-1]))
        if legend.nothing <= 255:
            file.write_colormap(1, {number: (*colour, 255) for number, colour in enumerate(legend.colours.tolist())})
        names = {f"CLASS_{number}": visible(name) for number, name in enumerate(legend.names)}
        file.update_tags(1, **names)
        file.update_tags(**{f"STEGOFLOW_{key.upper()}": str(value) for key, value in legend.provenance.items()})
    factors = [2**n for n in range(1, 16) if max(ids.shape) > TILE * 2 ** (n - 1)]
    if factors:
        with rasterio.open(part, "r+") as file:
            file.build_overviews(factors, Resampling.nearest)


def _write_scores(part: Path, legend: Legend, image: ImageFacts, shape: tuple[int, ...]) -> None:
    assert image.scores is not None
    with _opened(part, image, shape, len(legend.names), np.uint8, None) as file:
        for number, score in enumerate(image.scores(), 1):
            file.write(score, number)
            file.set_band_description(number, visible(legend.names[number - 1]))


def _opened(
    part: Path, image: ImageFacts, shape: tuple[int, ...], bands: int, dtype: type[np.unsignedinteger], nodata: Any
) -> Any:
    """A new GeoTIFF on the grid of the image."""
    import rasterio
    from rasterio.transform import Affine

    grid = image.georeference
    place: dict[str, Any] = {}
    if grid is not None and grid.transform is not None:
        place = {"transform": Affine(*grid.transform), "crs": grid.crs and rasterio.CRS.from_wkt(grid.crs)}
    tiled = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    return rasterio.open(
        part, "w", "GTiff", shape[1], shape[0], bands, dtype=dtype, nodata=nodata, interleave="band", **tiled, **place
    )


def _categories(legend: Legend) -> str:
    """What GDAL calls the classes: the text of an `.aux.xml`."""
    names = "".join(f"<Category>{escape(visible(name))}</Category>" for name in legend.names)
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
    return f"<PAMDataset>{band}</PAMDataset>\n"


WRITER = Writer(one, suffix=".scores.tif")
