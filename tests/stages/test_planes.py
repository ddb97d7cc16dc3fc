"""Planes of a stack and images with places without content, through the stages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from corpora import picture, small
from raster_files import geotiff, slide, tissue

from pipeline.api import run
from pipeline.artifacts.features import Tokens, view_pieces
from pipeline.config import validate
from pipeline.numerics.views import Window, merge, shares, uncovered
from pipeline.results import Run

PLANES = np.stack([picture(number, (64, 64))[0][..., 0] for number in range(3)])


def done(root: Path, store: Path, vit: Path, **sections: Any) -> Run:
    return run(validate(small(root, store, vit, masks={"crf": False}, **sections)))


def write_stack(path: Path, planes: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "ZYX"})


def means(of: Run) -> dict[str, np.ndarray]:
    """The mean token of each image's plain view."""
    views = view_pieces(of.artifact("features")).read().to_pylist()
    tokens = Tokens(of.artifact("features")).read(np.arange(len(views))).astype(np.float32)
    return {row["id"]: tokens[n].mean((0, 1)) for n, row in enumerate(views) if not row["mirrored"]}


def test_planes_of_one_file_are_not_taken_for_each_other(tmp_path, vit):
    """Known rows are copied by content: that of a plane is not that of its file."""
    write_stack(tmp_path / "a/stack.tif", PLANES)
    first = done(tmp_path / "a", tmp_path / "store", vit)
    write_stack(tmp_path / "b/stack.tif", PLANES)
    write_stack(tmp_path / "b/more.tif", PLANES[::-1])
    second = done(tmp_path / "b", tmp_path / "store", vit)
    before, after = means(first), means(second)
    assert second.artifact("features").manifest["copied"] == first.artifact("features").manifest["items"]
    for z in range(3):
        assert np.array_equal(before[f"stack#z={z}.tif"], after[f"stack#z={z}.tif"])
        assert np.allclose(before[f"stack#z={z}.tif"], after[f"more#z={2 - z}.tif"], atol=1e-2)
    assert not np.allclose(before["stack#z=0.tif"], before["stack#z=1.tif"], atol=1e-2)
    assert {key: second.images[key].shape for key in second.masks} == dict.fromkeys(second.masks, (64, 64, 3))


@pytest.mark.parametrize("kind", ["slide", "nodata"])
def test_views_without_content_are_left_out(kind, tmp_path, vit):
    for number in range(2):
        if kind == "slide":
            slide(tmp_path / f"images/{number}.svs", [tissue(), tissue()[::2, ::2].copy()])
        else:
            scene = np.zeros((512, 512, 3), np.uint8)
            scene[128:384, 128:384] = tissue()[128:384, 128:384]
            geotiff(tmp_path / f"images/{number}.tif", scene, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    features = {"views": {"kind": "sliding", "size": [64, 64], "overlap": 0.0}}
    found = done(tmp_path / "images", tmp_path / "store", vit, features=features)
    views = view_pieces(found.artifact("features")).read().to_pylist()
    assert [view["view"] for view in views] == list(range(len(views)))
    starts = {(view["y0"], view["x0"]) for view in views}
    assert {(y, x) for y in range(128, 384, 64) for x in range(128, 384, 64)} <= starts
    assert all(64 <= y < 448 and 64 <= x < 448 for y, x in starts)
    mask = next(iter(found.masks.values()))
    assert (mask[140:370, 140:370] < 4).all()
    assert (mask[:100] == 255).all()
    assert (mask[:, 412:] == 255).all()
    baseline = next(iter(found.baseline.values()))
    assert (baseline[140:370, 140:370] < 4).all()
    assert (baseline[:64] == 255).all()


def test_the_values_that_a_config_asks_for_are_seen(tmp_path, vit):
    """… by features, masks and `Run.images` alike, and they name the features anew."""
    for number in range(3):
        geotiff(tmp_path / f"images/{number}.tif", picture(number, (64, 64))[0].astype(np.uint16) * 9 + 50)
    names = {}
    for key, values in (("a", None), ("b", [0, 2345]), ("c", "percentiles")):
        dataset = {"root": str(tmp_path / "images"), "values": values, "channels": [3, 2, 1]}
        found = done(tmp_path / "images", tmp_path / "store", vit, dataset=dataset)
        names[key] = found.record["stages"]
        assert found.artifact("features").manifest["params"].get("values") == values
    pixels = np.rint((picture(0, (64, 64))[0][..., ::-1].astype(float) * 9 + 50) / 2345 * 255).astype(np.uint8)
    dataset = {"root": str(tmp_path / "images"), "values": [0, 2345], "channels": [3, 2, 1]}
    assert np.array_equal(done(tmp_path / "images", tmp_path / "store", vit, dataset=dataset).image("0.tif"), pixels)
    assert len({stages["dataset"] for stages in names.values()}) == 1
    assert len({stages["features"] for stages in names.values()}) == 3


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_the_share_of_a_window_that_has_content():
    content = np.zeros((40, 80), bool)
    content[:, 40:] = True
    boxes = np.array([[0, 0, 400, 800], [0, 0, 400, 400], [0, 400, 400, 400], [100, 300, 50, 200], [399, 799, 1, 1]])
    assert shares(content, boxes, 400, 800).tolist() == [0.5, 0, 1, 0.5, 1]


def test_what_no_window_covers():
    boxes = [Window(0, 0, 4, 4), Window(2, 6, 4, 4)]
    found = uncovered(boxes, 8, 12)
    assert found.sum() == 96 - 32
    assert not found[:4, :4].any()
    assert not found[2:6, 6:10].any()
    merged = merge(np.ones((2, 2, 2, 3), np.float32), boxes, 8, 12)
    assert np.isfinite(merged).all()
    assert set(np.unique(merged)) == {0.0, 1.0}
