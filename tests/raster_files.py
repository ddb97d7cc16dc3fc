"""Files of the fields' formats, written by the formats' own libraries where they can be had."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
import zarr
from rasterio.transform import Affine

from pipeline.images.pixels import resize

RNG = np.random.default_rng(0)
UTM = "EPSG:32633"
NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
SCENE = resize(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8), 150, 221)
"""Smooth, with sides that are no multiples of a tile's."""
BANDS = np.dstack([SCENE.astype(np.uint16) * 30 + 1, SCENE[..., :1].astype(np.uint16) * 50 + 3])
"""Four bands of 16 bits."""


def geotiff(path: Path, bands: np.ndarray, names: tuple[str, ...] = (), **options: Any) -> Path:
    """(H, W, C) as GDAL writes it."""
    profile = {"crs": UTM, "transform": NORTH_UP, **options}
    height, width, count = bands.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        **{"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": bands.dtype, **profile},
    ) as file:
        file.write(np.moveaxis(bands, -1, 0))
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


def ome_zarr(
    path: Path,
    levels: list[np.ndarray],
    axes: str = "cyx",
    version: str = "0.5",
    channels: tuple[str, ...] = (),
    scale: tuple[float, ...] = (),
    unit: str = "micrometer",
    **options: Any,
) -> Path:
    """An OME-Zarr by the letter of the specification; as ome-zarr-py 0.18 writes it, which an eye compared."""
    old = version == "0.4"
    group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3)
    for number, level in enumerate(levels):
        group.create_array(str(number), data=level, **{"chunks": (*(1,) * (level.ndim - 2), 64, 64), **options})
    kinds = {"c": "channel", "t": "time"}
    described = [
        {"name": axis, "type": kinds.get(axis, "space"), **({} if axis in kinds else {"unit": unit})} for axis in axes
    ]
    datasets = []
    for number, level in enumerate(levels):
        factors = [full / now for full, now in zip(levels[0].shape, level.shape, strict=True)]
        steps = [factor * side for factor, side in zip(factors, scale or (1.0,) * len(axes), strict=True)]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": steps}]})
    scales: dict[str, Any] = {"axes": described, "datasets": datasets}
    content: dict[str, Any] = {"multiscales": [{**scales, "version": version} if old else scales]}
    if channels:
        content["omero"] = {"channels": [{"label": name} for name in channels]}
    group.attrs.update(content if old else {"ome": {"version": version, **content}})
    return path


def edit(path: Path, change: Any) -> None:
    """Rewrite a JSON document by a function that changes it in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def slide(path: Path, levels: list[np.ndarray], mpp: float | None = 0.5) -> Path:
    """Aperio's layout: a tiled pyramid whose pages say so, with a thumbnail as the second page."""
    height, width = levels[0].shape[:2]
    size = "" if mpp is None else f"|MPP = {mpp}"
    text = f"Aperio Image Library v10.0.51\r\n{width}x{height} [0,0 {width}x{height}] (64x64) RAW|AppMag = 20{size}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="deflate",
                description=text,
                metadata=None,
                software=False,
            )
            if number == 0:
                file.write(
                    level[::8, ::8].copy(),
                    rowsperstrip=16,
                    photometric="rgb",
                    description=text,
                    metadata=None,
                    software=False,
                )
    return path


def tissue(side: int = 512) -> np.ndarray:
    """Bright glass with a pink square in the middle half."""
    image = np.full((side, side, 3), 243, np.uint8)
    quarter = side // 4
    pink = np.array([190, 90, 150]) + RNG.integers(-30, 30, (2 * quarter, 2 * quarter, 3))
    image[quarter : 3 * quarter, quarter : 3 * quarter] = pink.clip(0, 255)
    return image
