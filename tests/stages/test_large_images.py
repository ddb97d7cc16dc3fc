"""Masks of large images are tiles: what they are made of, and that nobody sees where they meet."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from corpora import picture, small
from PIL import Image
from raster_files import geotiff, ome_zarr

from pipeline.api import run
from pipeline.artifacts import mask_tiles
from pipeline.artifacts.mask_tiles import Items, Tiled, find_large, grid, reduced, tile_at
from pipeline.artifacts.masks import read_masks
from pipeline.config import validate
from pipeline.core.errors import ConfigError
from pipeline.cuts import predictor
from pipeline.exporting import export
from pipeline.images import source, tiff
from pipeline.images.pixels import resize
from pipeline.numerics.crf import CrfParams
from pipeline.results import Run
from pipeline.writers import raster

SIZE = 250, 330
VIEWS: dict[str, dict[str, Any]] = {
    "whole": {"kind": "whole", "size": [96, 128]},
    "crops": {"kind": "crops", "size": [64, 80]},
    "native": {"kind": "sliding", "size": [64, 80]},
    "gsd": {"gsd": 15, "size": [64, 64]},
}


def scenes(root: Path, **options: Any) -> Path:
    for number in range(2):
        image, label = (resize(np.dstack([one] * (4 - one.ndim)), *SIZE) for one in picture(number, (100, 132)))
        noise = np.random.default_rng(number).integers(-12, 13, image.shape)
        image = (image + noise).clip(1, 255).astype(np.uint8)
        geotiff(root / f"images/{number}.tif", image, **options)
        geotiff(root / f"labels/{number}.tif", (label[..., :1] > label.mean()).astype(np.uint8), tiled=True,
                blockxsize=64, blockysize=64)  # fmt: skip
    return root


def done(root: Path, store: Path, vit: Path, views: dict[str, Any], **features: Any) -> Run:
    content = small(root, store, vit, features={"views": views, **features}, masks={"crf": False})
    return run(validate(content))


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of more than 10 000 pixels are large, in tiles of 100."""
    monkeypatch.setattr(mask_tiles, "LARGE", 10_000)
    monkeypatch.setattr(mask_tiles, "TILE", 100)


@pytest.mark.parametrize("kind", VIEWS)
def test_tiles_are_what_the_whole_image_is(kind, tmp_path, vit, monkeypatch):
    root = scenes(tmp_path / "data", **({"nodata": 0} if kind == "native" else {}))
    made = done(root, tmp_path / "store", vit, VIEWS[kind])
    for upsampling in ("guided", "bilinear"):
        predict, images, _ = predictor(made.store, made.record)
        predict.params = predict.params.model_copy(update={"upsampling": upsampling})
        image = images.row(0)
        whole, _ = predict(0, image)
        assert whole is not None
        assert len(np.unique(whole)) > 1
        found = np.full_like(whole, 99)
        with monkeypatch.context() as patched:
            patched.setattr(mask_tiles, "LARGE", 10_000)
            patched.setattr(mask_tiles, "TILE", 100)
            for number in range(12):
                kept = tile_at(*SIZE, number)
                found[kept] = predict(0, image, kept)[0]
        assert (found == whole).mean() >= 0.999


def test_tiles_with_a_crf_are_nearly_what_the_whole_image_is(tmp_path, vit, monkeypatch):
    """Each pixel of a CRF listens to all others; a tile sees two standard deviations of its kernel around it."""
    made = done(scenes(tmp_path / "data"), tmp_path / "store", vit, VIEWS["native"])
    predict, images, _ = predictor(made.store, made.record)
    crf = CrfParams(bilateral_sxy=15)  # with 67 a tile of this image would see all of it
    predict.params = predict.params.model_copy(update={"crf": True, "crf_params": crf})
    image = images.row(0)
    plain, whole = predict(0, image)
    found = np.full_like(whole, 99)
    monkeypatch.setattr(mask_tiles, "TILE", 100)
    for number in range(12):
        kept = tile_at(*SIZE, number)
        found[kept] = predict(0, image, kept)[1]
    assert (whole != plain).mean() > 0.01, "the CRF does something"
    assert (found == whole).mean() >= 0.999


def test_a_run_in_tiles_is_like_one_without(tmp_path, vit, monkeypatch, tiled):
    """Through masks, scores, report and export; the map of an image is read by windows."""
    root = scenes(tmp_path / "data")
    found = done(root, tmp_path / "tiled", vit, VIEWS["native"])
    with monkeypatch.context() as patched:
        patched.setattr(mask_tiles, "LARGE", 2**24)
        patched.setattr(mask_tiles, "TILE", 2048)
        wanted = done(root, tmp_path / "whole", vit, VIEWS["native"])
        maps = {key: np.asarray(wanted.masks[key]) for key in wanted.masks}
        baseline = {key: np.asarray(wanted.baseline[key]) for key in wanted.baseline}
    for key, whole in maps.items():
        assert isinstance(found.masks[key], Tiled)
        assert found.masks[key].shape == whole.shape
        assert (np.asarray(found.masks[key]) == whole).mean() >= 0.999
        assert np.array_equal(found.masks[key][90:210, 95:320], np.asarray(found.masks[key])[90:210, 95:320])
        assert (np.asarray(found.baseline[key]) == baseline[key]).mean() >= 0.999
    rows = list(read_masks(found.artifact("masks")))
    assert [(row["id"], row["y"], row["x"]) for row in rows[:5]] == [
        ("0.tif", 0, 0), ("0.tif", 0, 100), ("0.tif", 0, 200), ("0.tif", 0, 300), ("0.tif", 100, 0),
    ]  # fmt: skip
    assert found.artifact("masks").manifest["items"] == 2
    assert found.scores.images == wanted.scores.images == 2
    for method in ("cluster", "baseline", "linear"):
        one, other = (getattr(scores, method).confusion for scores in (found.scores, wanted.scores))
        assert one.sum() == other.sum()
        assert np.abs(one - other).sum() <= 0.004 * other.sum()
    report = Path(found.report).read_text()
    assert report.count("data:image") > 4
    assert np.allclose(found.shares, wanted.shares, atol=1e-3)

    for format in ("geotiff", "png"):
        export(found.store, "latest", tmp_path / format, format=format)
    with rasterio.open(tmp_path / "geotiff/0.tif") as file:
        assert (file.read(1) == maps["0.tif"]).mean() >= 0.999
    export(found.store, "latest", tmp_path / "cut", format="geotiff", cut=4)
    with rasterio.open(tmp_path / "cut/0.tif") as file:
        assert (file.read(1) == maps["0.tif"]).mean() >= 0.999


def test_an_image_that_is_cut_short_goes_on_where_it_stopped(tmp_path, vit, monkeypatch, tiled):
    from pipeline.stages import masks

    root, calls, real = scenes(tmp_path / "data"), [], masks.Predictor._tile

    def stop(self: Any, index: int, image: dict[str, Any], kept: Any) -> Any:
        if len(calls) == 20:
            raise KeyboardInterrupt
        calls.append((index, kept[0].start, kept[1].start))
        return real(self, index, image, kept)

    monkeypatch.setattr(masks, "PART_PIXELS", 8 * SIZE[0] * SIZE[1])
    monkeypatch.setattr(masks.Predictor, "_tile", stop)
    with pytest.raises(KeyboardInterrupt):
        done(root, tmp_path / "store", vit, VIEWS["native"])
    kept = calls[:16]  # parts are 8 tiles
    calls.clear()
    made = done(root, tmp_path / "store", vit, VIEWS["native"])
    assert sorted({*kept, *calls}) == [(i, *(s.start for s in tile_at(*SIZE, n))) for i in range(2) for n in range(12)]
    assert not set(kept) & set(calls), "tiles that were finished are not made again"
    assert made.artifact("masks").manifest["parts"] == 3


def test_an_image_too_large_to_hold_goes_to_formats_that_stream(tmp_path, vit, monkeypatch, tiled):
    root = scenes(tmp_path / "data", tiled=True, blockxsize=64, blockysize=64)
    monkeypatch.setattr(tiff, "WINDOWED", 10_000)
    monkeypatch.setattr(source, "MAX_PIXELS", 40_000)
    for module in ("pipeline.stages.masks", "pipeline.writing"):
        monkeypatch.setattr(f"{module}.MAX_PIXELS", 40_000)
    made = done(root, tmp_path / "store", vit, VIEWS["gsd"])
    assert made.scores.images == 2, "labels are read by windows, too"
    assert (np.asarray(made.masks["0.tif"]) < 4).all()
    with pytest.raises(ConfigError, match=r"--as coco: 0\.tif has 0 megapixels.*\n.*geotiff, ome-zarr, ome-tiff"):
        export(made.store, "latest", tmp_path / "coco", format="coco")
    with pytest.raises(ConfigError, match=r"--scores: .*\n.*leave --scores out"):
        export(made.store, "latest", tmp_path / "scores", format="geotiff", scores=True)
    assert export(made.store, "latest", tmp_path / "out")["format"] == "geotiff"
    monkeypatch.setattr(raster, "LARGE", 1000)
    for format in ("png", "palette"):
        export(made.store, "latest", tmp_path / format, format=format)
        assert np.array_equal(np.asarray(Image.open(tmp_path / format / "0.png")), np.asarray(made.masks["0.tif"]))


def test_a_large_image_that_cannot_be_decoded(tmp_path, vit, tiled):
    root = scenes(tmp_path / "data")
    ome_zarr(root / "images/2.zarr", [np.ones((3, 200, 300), np.uint8)])
    (next((root / "images/2.zarr/0").glob("c/0/1/*"))).write_bytes(b"damaged")
    made = done(root, tmp_path / "store", vit, VIEWS["native"], max_failed_fraction=0.5)
    assert "2.zarr" in str(made.artifact("features").manifest["failed"])
    assert (np.asarray(made.masks["2.zarr"]) == 255).all()


# Arrays and rows ------------------------------------------------------------------------------------------------------


def test_rows_of_images_and_tiles(tiled):
    sizes = np.array([[50, 60], [250, 330], [10, 10], [101, 101], [5, 5]])
    large = find_large(sizes[:, 0], sizes[:, 1])
    assert large == [[1, 12], [3, 4]]
    items = Items(5, large)
    assert items.total == 1 + 12 + 1 + 4 + 1
    assert [list(items.rows(at)) for at in range(5)] == [
        [0], list(range(1, 13)), [13], list(range(14, 18)), [18],
    ]  # fmt: skip
    for position in range(5):
        for tile, row in enumerate(items.rows(position)):
            assert items.at(row) == (position, tile)
    assert Items(3).total == 3
    assert [Items(3).at(row) for row in range(3)] == [(0, 0), (1, 0), (2, 0)]


def test_tiles_cover_an_image_once(tiled):
    seen = np.zeros(SIZE, int)
    for number in range(np.prod(grid(*SIZE))):
        seen[tile_at(*SIZE, number)] += 1
    assert (seen == 1).all()
    assert grid(100, 100) == (1, 1)


def test_a_map_in_tiles_reads_what_is_asked_for(tiled):
    whole, read = np.random.default_rng(0).integers(0, 9, SIZE).astype(np.uint8), []

    def tile(number: int) -> np.ndarray:
        read.append(number)
        return whole[tile_at(*SIZE, number)]

    found = Tiled(SIZE, np.uint8, tile)
    assert np.array_equal(found[120:180, 210:290], whole[120:180, 210:290])
    assert read == [6]
    assert np.array_equal(np.asarray(found), whole)
    assert np.array_equal(found[100:100, :], whole[100:100])
    small = reduced(found.__getitem__, SIZE, (31, 20))
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip((31, 20), SIZE, strict=True))
    assert np.array_equal(small, whole[np.ix_(rows, columns)])


def test_a_map_is_shrunk_without_new_ids():
    ids = np.repeat(np.arange(6), 100).reshape(1, -1).repeat(50, 0)
    assert (reduced(ids.__getitem__, ids.shape, (25, 60)) == np.repeat(np.arange(6), 10)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_in_strips_is_a_png(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(raster, "LARGE", 1)
    ids = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 33)).astype(dtype)
    raster.write_png(tmp_path / "a.png", ids)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image).astype(dtype), ids)
        image.load()
