"""The pictures of formats.md: one image of each field, and what the field's config finds in it.

    python docs/pictures.py [slide satellite micrograph sky]  →  docs/formats-FIELD.jpg

The slide (a core of stained tissue) and the sky (Hubble's deep field) are samples of scikit-image, written in the
formats of their fields; the satellite scene and the micrograph are generated. The configs are those of
`stegoflow init --for FIELD`, with the weights of the demo.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import tifffile
import yaml
from astropy.io import fits
from PIL import Image
from scipy import ndimage
from skimage import data

from pipeline import configs
from pipeline.api import run
from pipeline.config import validate
from pipeline.numerics.palette import palette

SIDE = 420
"""Pixels of the height of a picture."""
RNG = np.random.default_rng(4)


def slide(path: Path) -> None:
    """Aperio's layout, 0.5 µm a pixel: a round core on glass."""
    core = np.asarray(Image.fromarray(data.immunohistochemistry()).resize((900, 900), Image.Resampling.BICUBIC))
    y, x = np.indices(core.shape[:2]) - 450
    image = np.full((1100, 1100, 3), 243, np.uint8)
    image[100:1000, 100:1000] = np.where((np.hypot(y, x) < 430)[..., None], core, 243)
    text = "Aperio Image Library v10\r\n1100x1100 (256x256) RAW|MPP = 0.5"
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "metadata": None}
    tifffile.imwrite(path / "core.svs", image, description=text, software=False, **options)


def satellite(path: Path) -> None:
    """Four bands of 16 bits, 10 m a pixel: fields, woods and a river, with a corner of nodata."""
    side, count = 700, 60
    y, x = np.indices((side, side))
    seeds = RNG.uniform(0, side, (count, 2))
    place = np.argmin([np.hypot(y - v, x - u) for v, u in seeds], axis=0)
    green = RNG.uniform(0, 1, count)[place]
    woods = ndimage.gaussian_filter(RNG.normal(size=(side, side)), 40)
    woods = woods > np.quantile(woods, 0.75)
    rows = 0.05 * np.sin((x * np.cos(place) + y * np.sin(place)) / 3)
    grain = ndimage.gaussian_filter(RNG.normal(size=(side, side)), 1.5) * np.where(woods, 0.5, 0.15)
    river = np.abs(x - 350 - 100 * np.sin(y / 140)) < 16
    green = np.where(woods, 0.8, green) + rows * ~woods + grain
    red, nir = 0.26 - 0.2 * green, 0.2 + 0.3 * green
    bands = [0.08 + 0.4 * red, 0.1 + 0.25 * red + 0.08 * green, red, nir]
    water = [0.07, 0.06, 0.04, 0.02]
    bands = [np.where(river, w + 0.005 * grain, np.where(woods, 0.6 * b, b)) for w, b in zip(water, bands, strict=True)]
    stored = (np.stack(bands) * 10_000).clip(1, 10_000).astype(np.uint16)
    stored[:, y + 2 * x < 260] = 0
    grid = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), "nodata": 0}
    options = {"driver": "GTiff", "width": side, "height": side, "count": 4, "dtype": "uint16", "tiled": True}
    with rasterio.open(path / "scene.tif", "w", **grid, **options) as file:
        file.write(stored)
        file.descriptions = ("blue", "green", "red", "nir")


def micrograph(path: Path) -> None:
    """OME-TIFF of 16 bits, 0.2 µm a pixel: a steel of plain and of lamellar grains, with pores."""
    side, count = 700, 26
    y, x = np.indices((side, side))
    seeds, turned = RNG.uniform(0, side, (count, 2)), RNG.uniform(0, np.pi, count)
    away = np.sort([np.hypot(y - v, x - u) for v, u in seeds], axis=0)
    place = np.argmin([np.hypot(y - v, x - u) for v, u in seeds], axis=0)
    lamellar = (np.arange(count) % 2 == 0)[place]
    stripes = np.sin((x * np.cos(turned[place]) + y * np.sin(turned[place])) / 1.6)
    image = np.where(lamellar, 0.42 + 0.2 * stripes, 0.75)
    image[away[1] - away[0] < 3] = 0.3
    pores = ndimage.gaussian_filter(RNG.normal(size=(side, side)), 7)
    image[pores > np.quantile(pores, 0.985)] = 0.05
    image = ndimage.gaussian_filter(image, 0.7) + RNG.normal(0, 0.02, image.shape)
    stored = (image * 40_000 + 5000).clip(0, 65535).astype(np.uint16)
    metadata = {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    tifffile.imwrite(path / "steel.ome.tif", stored, photometric="minisblack", metadata=metadata)


def sky(path: Path) -> None:
    """Three planes of floats with a WCS."""
    image = data.hubble_deep_field()[::-1].astype(np.float32) ** 1.5
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 189.2, "CRVAL2": 62.2, "CRPIX1": 500.0}
    cards |= {"CRPIX2": 436.0, "CDELT1": -1.1e-5, "CDELT2": 1.1e-5, "CUNIT1": "deg", "CUNIT2": "deg"}
    fits.PrimaryHDU(image.transpose(2, 0, 1), fits.Header(cards)).writeto(path / "deep.fits")


FIELDS: dict[str, Callable[[Path], None]] = {
    "slide": slide,
    "satellite": satellite,
    "micrograph": micrograph,
    "sky": sky,
}


def picture(field: str, folder: Path) -> Image.Image:
    """An image and its mask, side by side."""
    root = folder / field
    root.mkdir()
    FIELDS[field](root)
    content = yaml.safe_load(configs.path(field).read_text(encoding="utf-8"))
    content |= {"store": str(folder / f"{field}-store")}
    content["dataset"]["root"] = str(root)
    content["features"] |= {"weights": "packaged", "block": 8}
    if field == "satellite":
        content["dataset"]["channels"] = ["nir", "red", "green"]
    made = run(validate(content), until="masks")
    ((name, mask),) = made.masks.items()
    seen, ids = made.image(name), np.asarray(mask)
    colours = np.vstack([palette(int(ids[ids < 255].max(initial=0)) + 1), [[255, 255, 255]]]).astype(np.uint8)
    painted = colours[np.minimum(ids, len(colours) - 1)]
    pair = np.concatenate([seen, np.full((len(seen), 12, 3), 255, np.uint8), painted], axis=1)
    pair = pair[::-1] if field == "sky" else pair
    return Image.fromarray(pair).resize((round(SIDE * pair.shape[1] / len(pair)), SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    """Write the pictures of the fields that are named, or of all."""
    with tempfile.TemporaryDirectory() as folder:
        for field in sys.argv[1:] or FIELDS:
            picture(field, Path(folder)).save(Path(__file__).parent / f"formats-{field}.jpg", quality=75)


if __name__ == "__main__":
    main()
