"""Label maps on another grid than their image: what rasterio warps them to, or the nearest pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import picture, small, write_corpus
from PIL import Image
from raster_files import NORTH_UP, UTM, geotiff, ome_zarr
from rasterio.transform import Affine
from rasterio.warp import reproject, transform_bounds

from pipeline.api import run
from pipeline.config import validate
from pipeline.core import extras
from pipeline.core.errors import ConfigError
from pipeline.images import tiff
from pipeline.images.files import stored
from pipeline.images.formats import open_image, open_label
from pipeline.images.label_grids import on_grid

SIZE = 90, 120
IDS = (np.indices((70, 100)).sum(0) // 9 % 5).astype(np.uint8)
WEST, SOUTH, EAST, NORTH = transform_bounds(
    UTM, "EPSG:4326", 500_000, 5_000_000 - 10 * SIZE[0], 500_000 + 10 * SIZE[1], 5_000_000
)
GRIDS: dict[str, dict[str, Any]] = {
    "a finer one": {"transform": Affine(7, 0, 500_100, 0, -7, 4_999_900)},
    "a shifted one": {"transform": Affine(10, 0, 500_014, 0, -10, 4_999_977)},
    "a turned one": {"transform": Affine(8.13, 3.07, 500_000.3, 3.07, -8.13, 5_000_000.7)},
    "another CRS": {"crs": "EPSG:4326", "transform": Affine(
        (EAST - WEST) / 100, 0, WEST, 0, (SOUTH - NORTH) / 70, NORTH)},
}  # fmt: skip


def placed(folder: Path, label: np.ndarray = IDS, **options: Any) -> Any:
    """A scene of 90 × 120 pixels of 10 m, and the label map on its grid."""
    geotiff(folder / "scene.tif", np.ones((*SIZE, 3), np.uint8))
    geotiff(folder / "label.tif", label[..., None], **options)
    return lies(folder, "scene.tif", "label.tif", SIZE)


def lies(folder: Path, image: str, label: str, size: tuple[int, int]) -> Any:
    file = stored(str(folder), label)
    return on_grid(open_label(file), file, lambda: open_image(stored(str(folder), image)), size, 255)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_label_with_a_crs_is_where_rasterio_warps_it(grid, tmp_path, monkeypatch):
    expected = np.full(SIZE, 255, np.int32)
    options = {"crs": UTM, **GRIDS[grid]}
    reproject(
        IDS.astype(np.int32),
        expected,
        src_transform=options["transform"],
        src_crs=options["crs"],
        dst_transform=NORTH_UP,
        dst_crs=UTM,
        dst_nodata=255,
        tolerance=1e-3,
    )
    assert (expected < 5).mean() > 0.2
    found = placed(tmp_path, **options)
    assert found.shape == SIZE
    assert np.array_equal(found[:, :], expected)
    assert np.array_equal(found[13:50, 70:120], expected[13:50, 70:120])
    monkeypatch.setattr(tiff, "WINDOWED", 100)  # the label map is read by windows
    assert np.array_equal(placed(tmp_path, **options)[13:50, 70:120], expected[13:50, 70:120])


def test_a_label_of_the_same_grid_is_as_it_is_stored(tmp_path):
    ids = np.random.default_rng(0).integers(0, 5, SIZE).astype(np.uint8)
    near = Affine(10 + 1e-7, 0, 500_000.001, 0, -10, 5_000_000)
    for options in ({}, {"nodata": 0}, {"transform": near}):
        assert isinstance(placed(tmp_path, ids, **options), np.ndarray)
        assert np.array_equal(placed(tmp_path, ids, **options), ids)


def test_the_package_that_warps_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "installed", lambda name: name != "rasterio")
    with pytest.raises(ConfigError, match=r"label.tif, a label map with a CRS, .*rasterio") as caught:
        placed(tmp_path, **GRIDS["a shifted one"])
    assert "stegoflow[geo]" in caught.value.next


@pytest.mark.parametrize(("size", "seen"), [((45, 60), True), ((180, 240), True), ((30, 40), True), ((45, 62), False)])
def test_a_label_without_a_crs_of_another_size(size, seen, tmp_path):
    ids = np.random.default_rng(1).integers(0, 5, size).astype(np.uint8)
    ome_zarr(tmp_path / "scene.zarr", [np.ones((3, *SIZE), np.uint8)])
    Image.fromarray(ids).save(tmp_path / "label.png")
    found = lies(tmp_path, "scene.zarr", "label.png", SIZE)
    assert (found is not None) == seen
    if seen:
        rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(SIZE, size, strict=True))
        expected = ids[np.ix_(rows, columns)]
        assert np.array_equal(found[:, :], expected)
        assert np.array_equal(found[7:33, 50:119], expected[7:33, 50:119])
        assert found[5:5, 3:9].shape == (0, 6)


def test_labels_on_another_grid_are_scored(tmp_path, vit):
    """Through labels, probe and scores; the pixels of a label are counted as often as they are seen."""
    root = write_corpus(tmp_path / "data", train=3, val=2)
    for path in (root / "labels").rglob("*.png"):
        label = np.asarray(Image.open(path))
        Image.fromarray(label[::2, ::2]).save(path)
    image, label = picture(9, (90, 120))
    geotiff(root / "images/val/scene.tif", image)
    geotiff(root / "labels/val/scene.tif", label[:80, :100, None], transform=Affine(10, 0, 500_100, 0, -10, 4_999_900))
    made = run(validate(small(root, tmp_path / "store", vit, masks={"crf": False})))
    assert made.scores.images == 3
    assert set(made.labels) == {"00.png", "01.png", "scene.tif"}
    for name, found in made.labels.items():
        assert found.shape == made.image(name).shape[:2]
    assert np.array_equal(made.labels["scene.tif"][10:, 10:110], label[:80, :100])
    assert (made.labels["scene.tif"][:10] == 255).all()
    assert made.scores.cluster.confusion.sum() == sum((one != 255).sum() for one in made.labels.values())
