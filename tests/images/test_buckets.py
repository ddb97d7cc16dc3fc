"""The formats of every field in a bucket: the same listing, digests and pixels as in a folder."""

import sys
import urllib.request
from pathlib import Path

import numpy as np
import obstore
from astropy.io import fits
from image_files import tiff
from obstore.store import S3Store
from raster_files import BANDS, SCENE, geotiff, ome_zarr, slide, tissue

from pipeline.datasets.folder import Item, scan
from pipeline.images import files
from pipeline.images import tiff as tiff_module
from pipeline.images.formats import open_source
from pipeline.images.reading import readings

sys.path.append(str(Path(__file__).parents[1] / "faults"))
from s3_server import S3Server


def write_corpus(root: Path) -> None:
    geotiff(root / "images/scene.tif", BANDS, tiled=True, blockxsize=64, blockysize=64, compress="deflate", nodata=7)
    geotiff(root / "images/band.jp2", BANDS[..., :1], driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    ome_zarr(root / "images/new.zarr", [np.moveaxis(BANDS, -1, 0)], shards=(1, 128, 128))
    ome_zarr(root / "images/old.zarr", [np.moveaxis(BANDS, -1, 0)], version="0.4")
    slide(root / "images/slide.svs", [tissue(), tissue()[::2, ::2].copy()])
    fits.PrimaryHDU(SCENE[..., 0].astype(np.float32)).writeto(root / "images/sky.fits")
    (root / "images/stack.tif").write_bytes(
        tiff(np.stack([SCENE[..., 0], SCENE[..., 1]]), imagej=True, metadata={"axes": "ZYX"})
    )


def test_a_bucket_reads_as_a_folder_does(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SMALL", 1000)  # by ranges
    monkeypatch.setattr(tiff_module, "WINDOWED", 1000)
    write_corpus(tmp_path / "root")
    with S3Server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        bucket = S3Store("pictures", endpoint=server.url, client_options={"allow_http": True})
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/pictures", method="PUT")).close()
        for path in (tmp_path / "root").rglob("*"):
            if path.is_file():
                obstore.put(bucket, f"deep/{path.relative_to(tmp_path / 'root').as_posix()}", path)
        here, there = (scan(str(root), "images") for root in (tmp_path / "root", "s3://pictures/deep"))
        assert [item.error for item in here.items] == [""] * 8
        assert (there.items, there.digest()) == (here.items, here.digest())
        for item in here.items:
            (*pixels, place), (*others, other) = (
                seen(root, item) for root in (str(tmp_path / "root"), "s3://pictures/deep")
            )
            assert all(np.array_equal(a, b) for a, b in zip(pixels, others, strict=True)), item.path
            assert place == other


def seen(root: str, item: Item) -> tuple:
    image = open_source(root, item.path, item.sha256, item.size, readings(None, [0, 9000])[0])
    every = (0, 0, *image.size)
    return image.pixels(), image.valid(every, image.size), image.read((9, 9, 64, 64), (64, 64)), image.georeference
