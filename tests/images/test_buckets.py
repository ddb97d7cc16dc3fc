"""The formats of every field in a bucket: the same listing and pixels as in a folder; what is asked of the store."""

import re
import sys
import urllib.request
from pathlib import Path

import numpy as np
import obstore
import pytest
from astropy.io import fits
from image_files import encode, tiff
from obstore.store import S3Store
from raster_files import BANDS, SCENE, geotiff, ome_zarr, slide, tissue

from pipeline.config import PipelineConfig
from pipeline.core.errors import StageError
from pipeline.core.store import Store
from pipeline.datasets.folder import Item, scan
from pipeline.images import files
from pipeline.images import tiff as tiff_module
from pipeline.images.formats import open_source
from pipeline.images.reading import readings
from pipeline.planning import nodes, plan

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
        assert [item._replace(sha256="") for item in there.items] == [item._replace(sha256="") for item in here.items]
        for item, listed in zip(here.items, there.items, strict=True):
            *pixels, place = seen(str(tmp_path / "root"), item)
            *others, other = seen("s3://pictures/deep", listed)
            assert all(np.array_equal(a, b) for a, b in zip(pixels, others, strict=True)), item.path
            assert place == other


def reads(folder: Path) -> list[str]:
    """The images and label maps that moto was asked for since the last call."""
    log = folder / "moto.log"
    found = re.findall(r'"GET /pictures/((?:images|labels)/[^ ?]+)', log.read_text())
    log.open("w").close()
    return found


def test_planning_reads_no_object(tmp_path, monkeypatch):
    """An object is what its ETag says: planning lists, the stage `dataset` reads headers, and new bytes are seen."""
    with S3Server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        bucket = S3Store("pictures", endpoint=server.url, client_options={"allow_http": True})
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/pictures", method="PUT")).close()
        rng = np.random.default_rng(0)
        pictures = [encode(rng.integers(0, 256, (40, 60 + n, 3), np.uint8), "PNG") for n in range(6)]
        for number, data in enumerate(pictures):
            split = "train" if number else "val"
            obstore.put(bucket, f"images/{split}/{number}.png", data)
            obstore.put(bucket, f"labels/{split}/{number}.png", encode(np.zeros((40, 60 + number), np.uint8), "PNG"))
        store = Store(tmp_path / "store")
        config = PipelineConfig.model_validate(
            {
                "store": str(tmp_path / "store"),
                "dataset": {"root": "s3://pictures"},
                "features": {"weights": "packaged"},
            }
        )

        def planned() -> str:
            return next(node.fingerprint for node in nodes(config, store) if node.stage.name == "dataset")

        first = planned()
        assert reads(tmp_path) == []
        rows = plan(config)
        estimate = {row.stage: row.items for row in rows}
        assert (estimate["dataset"], estimate["labels"], estimate["features"]) == (6, 6, 7)  # one is mirrored
        assert len(reads(tmp_path)) <= 6  # some headers, for the estimate alone
        found = scan("s3://pictures", "images", store)
        assert sorted(reads(tmp_path)) == [f"images/train/{n}.png" for n in range(1, 6)] + ["images/val/0.png"]
        assert [(item.height, item.width) for item in found.items] == [(40, 60 + n) for n in (1, 2, 3, 4, 5, 0)]
        assert planned() == first
        assert open_source("s3://pictures", *found.items[0][2:5]).size == (40, 61)

        obstore.put(bucket, "images/train/1.png", pictures[1])  # the same again
        assert planned() == first
        obstore.put(bucket, "images/train/1.png", pictures[1][:-1] + b"x")  # of the same length
        second = planned()
        with pytest.raises(StageError, match="changed"):
            open_source("s3://pictures", *found.items[0][2:5])
        assert second != first


def seen(root: str, item: Item) -> tuple:
    image = open_source(root, item.path, item.sha256, item.size, readings(None, [0, 9000])[0])
    every = (0, 0, *image.size)
    return image.pixels(), image.valid(every, image.size), image.read((9, 9, 64, 64), (64, 64)), image.georeference
