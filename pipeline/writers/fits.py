"""FITS: an image extension `SEGMAP` under the image's WCS, 0 = none, class + 1 elsewhere; a table `CLASSES` names them.

Rows are in the order of the image's. Scores are an extension `SCORES`, one plane a class.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.writers.areas import class_areas, pixel_areas
from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer, strips


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    with out.new(f"{image.name}.fits") as part:
        _write(part, legend, image, ids)


def _write(part: Path, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    from astropy.io import fits

    dtype = np.int16 if len(legend.names) < 2**15 else np.int32
    fits.PrimaryHDU().writeto(part)
    areas, unit = pixel_areas(image, ids.shape[0])
    found = np.zeros((2, len(legend.names) + 1))  # pixels, area of each value
    image_file = fits.StreamingHDU(str(part), _header(image, "SEGMAP", dtype, ids.shape))
    try:
        for rows, pixels in strips(ids):
            values = legend.from_one(pixels).astype(dtype)
            found[0] += np.bincount(values.ravel(), minlength=found.shape[1])
            found[1] += class_areas(values, areas[rows], found.shape[1])
            image_file.write(values)
    finally:
        image_file.close()
    if image.scores is not None:
        planes = fits.StreamingHDU(str(part), _header(image, "SCORES", np.uint8, (len(legend.names), *ids.shape)))
        for score in image.scores():
            planes.write(score)
        planes.close()
    table = _table(legend, found[:, 1:], unit)
    fits.append(part, table.data, table.header)


def _header(image: ImageFacts, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
    from astropy.io import fits

    header = fits.Header()
    header["XTENSION"] = "IMAGE"
    header["BITPIX"] = 8 if dtype == np.uint8 else 8 * np.dtype(dtype).itemsize
    header["NAXIS"] = len(shape)
    for number, side in enumerate(reversed(shape), 1):
        header[f"NAXIS{number}"] = side
    header["PCOUNT"], header["GCOUNT"], header["EXTNAME"] = 0, 1, name
    grid = image.georeference
    if grid is not None and grid.wcs is not None:
        header.extend(fits.Header.fromstring(grid.wcs, sep="\n").cards, unique=True)
    return header


def _table(legend: Legend, found: np.ndarray, unit: str) -> Any:
    from astropy.io import fits

    # FITS holds ASCII alone.
    names = [name.encode("ascii", "backslashreplace") for name in legend.names]
    colours = [legend.css(number).encode() for number in range(len(names))]
    width = max(map(len, names), default=1) or 1
    columns = [
        fits.Column("LABEL", "J", array=np.arange(1, len(names) + 1)),
        fits.Column("NAME", f"{width}A", array=np.array(names)),
        fits.Column("NPIX", "K", array=found[0].astype(np.int64)),
        fits.Column("AREA", "D", unit={"px": "pixel", "arcsec²": "arcsec2", "m²": "m2"}.get(unit), array=found[1]),
        fits.Column("COLOR", "7A", array=np.array(colours)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="CLASSES")
    for key, value in legend.provenance.items():
        table.header.add_history(f"stegoflow {key}: {value}".encode("ascii", "backslashreplace").decode())
    return table


WRITER = Writer(one, suffix=".fits", first=1)
