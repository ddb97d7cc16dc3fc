"""What a pixel of an image measures, in the image's unit."""

import warnings

import numpy as np

from pipeline.images.source import Georeference
from pipeline.writers.interface import ImageFacts


def pixel_areas(image: ImageFacts, height: int) -> tuple[np.ndarray, str]:
    """The area of a pixel of each row, (height,) float64, and its unit: `m²` on Earth, `arcsec²` in the sky, that of
    the pixel size (`µm²`), `px` where nothing is known.

    On a grid of degrees it is that of the ellipsoid between the pixel's parallels; in the sky, that at the reference
    pixel.
    """
    grid = image.georeference
    if grid is not None and grid.wcs is not None and (area := _sky(grid.wcs)):
        return np.full(height, area), "arcsec²"
    if grid is not None and grid.crs is not None and grid.transform is not None:
        return _earth(grid.crs, grid.transform, height), "m²"
    size = image.pixel_size
    return (np.full(height, size.x * size.y), f"{size.unit}²") if size else (np.ones(height), "px")


def class_areas(ids: np.ndarray, areas: np.ndarray, count: int) -> np.ndarray:
    """The area of each id in some rows of a label map, (count,) float64; areas: that of a pixel of each row."""
    if (areas == areas[0]).all():
        return np.bincount(ids.ravel(), minlength=count) * areas[0]
    return np.bincount(ids.ravel(), np.repeat(areas, ids.shape[1]), minlength=count)


def is_degrees(grid: Georeference | None) -> bool:
    """Whether coordinates are longitudes and latitudes."""
    import rasterio

    return bool(grid and grid.crs and rasterio.CRS.from_wkt(grid.crs).is_geographic)


def _earth(crs: str, transform: tuple[float, ...], height: int) -> np.ndarray:
    import rasterio

    a, b, _, d, e, f = transform
    known = rasterio.CRS.from_wkt(crs)
    if not known.is_geographic:
        return np.full(height, abs(a * e - b * d) * known.linear_units_factor[1] ** 2)
    import pyproj

    geod = pyproj.CRS.from_wkt(crs).get_geod() or pyproj.Geod(ellps="WGS84")
    above = _zone(f + e * np.arange(height + 1), geod.b, geod.es)
    # A rotated grid: pixels are as large as upright ones of the same latitude.
    return np.abs(np.diff(above) * np.radians(a - b * d / e))


def _zone(latitude: np.ndarray, b: float, es: float) -> np.ndarray:
    """The area between the equator and a latitude (degrees), per radian of longitude; b: the shorter half axis, es: the
    squared eccentricity."""
    e, sine = np.sqrt(es), np.sin(np.radians(latitude.clip(-90, 90)))
    if not e:
        return np.asarray(b**2 * sine)
    return np.asarray(b**2 / 2 * (sine / (1 - es * sine**2) + np.arctanh(e * sine) / e))


def _sky(wcs: str) -> float | None:
    """Square arcseconds; None for axes that are not those of the sky."""
    from astropy.io.fits import Header
    from astropy.utils.exceptions import AstropyWarning
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_area

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # of cards that are not quite the standard's
        found = WCS(Header.fromstring(wcs, sep="\n"))
    return float(proj_plane_pixel_area(found.celestial)) * 3600**2 if found.has_celestial else None
