"""What a pixel measures: from the file, from the config, or from a table."""

from pathlib import Path

import numpy as np
import pytest
from corpora import small
from raster_files import BANDS, geotiff
from rasterio.transform import Affine

from pipeline.api import run
from pipeline.artifacts.features import view_pieces
from pipeline.config import PipelineConfig, validate
from pipeline.core.errors import ConfigError
from pipeline.core.store import Store
from pipeline.datasets.scale import configured, pixels_per
from pipeline.images.pixels import resize
from pipeline.images.source import PixelSize
from pipeline.numerics.views import windows
from pipeline.planning import nodes, plan


def table(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_one_size_for_all_images():
    assert configured({"x": 0.25, "y": 0.5, "unit": "µm"})("any") == PixelSize(0.25, 0.5, "µm")
    assert configured(None)("any") is None


def test_a_table(tmp_path):
    find = configured(table(tmp_path / "a.csv", "\ufeffnote,path,x,y,unit\n,a/b.tif,0.25,0.5,μm\n,c.tif,10,10,m\n"))
    assert find("a/b.tif") == PixelSize(0.25, 0.5, "µm")
    assert find("c.tif") == PixelSize(10, 10, "m")
    assert find("d.tif") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lacks columns"),
        ("path,x,y\na,1,1\n", "lacks columns"),
        ("path,x,y,unit\na,1,1,µm\nb,one,1,µm\n", "line 3: no numbers"),
        ("path,x,y,unit\na,0,1,µm\n", "line 2: sizes above 0"),
        ("path,x,y,unit\na,inf,1,µm\n", "line 2: sizes above 0"),
        ("path,x,y,unit\na,1,1,feet\n", "line 2: sizes above 0 and a unit of µm, m"),
        ("path,x,y,unit\na,1\n", "line 2: no numbers"),
    ],
)
def test_a_table_that_cannot_be_used(text, why, tmp_path):
    with pytest.raises(ConfigError, match=rf"dataset\.pixel_size: .*a\.csv.*{why}"):
        configured(table(tmp_path / "a.csv", text))


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read: No such file"):
        configured(str(tmp_path / "none.csv"))


@pytest.mark.parametrize("size", [{"x": 0, "y": 1}, {"x": 1}, {"x": 1, "y": 1, "unit": "feet"}, {"x": 1, "y": -1}])
def test_a_size_that_cannot_be(size):
    with pytest.raises(ConfigError, match=r"dataset\.pixel_size"):
        validate({"dataset": {"root": "x", "pixel_size": size}})


def test_a_run_knows_it(tmp_path, vit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        geotiff(tmp_path / f"images/{number}.tif", BANDS)
    table(tmp_path / "sizes.csv", "path,x,y,unit\nimages/1.tif,3,4,m\n")
    dataset = {"root": str(tmp_path), "pixel_size": "sizes.csv"}
    done = run(validate(small(tmp_path, tmp_path / "store", vit, dataset=dataset, masks={"crf": False})))
    monkeypatch.chdir("/")
    assert [done.pixel_size(f"{number}.tif") for number in range(2)] == [PixelSize(10, 10, "m"), PixelSize(3, 4, "m")]


def scenes(root: Path) -> Path:
    """Four scenes of 10 m, one of them of 20 m."""
    for number in range(4):
        step = 20 if number == 3 else 10
        image = resize((BANDS[..., :3] // 257 + number).astype(np.uint8), 180, 260)
        geotiff(root / f"{number}.tif", image, transform=Affine(step, 0, 5e5, 0, -step, 5e6))
    return root


def scaled(tmp_path: Path, vit: str, views: dict, **dataset) -> PipelineConfig:
    root = tmp_path / "scenes"
    content = small(root if root.exists() else scenes(root), tmp_path / "store", vit)
    content["features"] = {**content["features"], "views": {"size": (64, 80), **views}}
    content["dataset"] = {**content["dataset"], **dataset}
    return validate(content)


def table_of(config: PipelineConfig) -> list[dict]:
    return view_pieces(run(config).artifact("features")).read().to_pylist()


def names(config: PipelineConfig) -> dict[str, str]:
    return {node.stage.name: node.fingerprint for node in nodes(config, Store(config.store))}


def test_views_in_metres_are_windows_of_as_many_metres(tmp_path, vit):
    config = scaled(tmp_path, vit, {"gsd": 20})
    rows = {}
    for row in table_of(config):
        rows.setdefault(row["path"], []).append(row)
    for path, step in {"0.tif": 10, "3.tif": 20}.items():
        (row, *_) = rows[path]
        assert (row["height"] * step, row["width"] * step) == (64 * 20, 80 * 20)
        assert (row["scale_y"], row["scale_x"]) == (step / 20, step / 20)
    assert len(rows["3.tif"]) > len(rows["0.tif"])
    (planned,) = (row for row in plan(config) if row.stage == "features")
    assert planned.items == sum(map(len, rows.values()))


def test_the_forecast_counts_the_views_that_there_will_be(tmp_path, vit):
    config = scaled(tmp_path, vit, {"mpp": 5e6}, pixel_size={"x": 10, "y": 5, "unit": "m"})
    (before,) = (row for row in plan(config) if row.stage == "features")
    assert before.action == "run"
    assert before.bound == ""
    assert before.items == len(table_of(config))


def test_windows_of_pixels_that_are_not_square_are_square_on_the_ground():
    (box, *_) = windows("sliding", 2000, 2000, (322, 322), 0.25, pixels_per(2, PixelSize(1, 0.5, "m"), "a", "gsd"))
    assert (box.height, box.width) == (1288, 644)


def test_a_pixel_size_names_the_features_where_views_have_a_scale_and_nowhere_else(tmp_path, vit):
    said = {"x": 10, "y": 10, "unit": "m"}
    assert names(scaled(tmp_path, vit, {})) == names(scaled(tmp_path, vit, {}, pixel_size=said))
    native, gsd, mpp = (
        names(scaled(tmp_path, vit, views)) for views in ({"kind": "sliding"}, {"gsd": 20}, {"mpp": 2e7})
    )
    assert len({found["features"] for found in (native, gsd, mpp)}) == 3
    assert native["dataset"] == gsd["dataset"]
    fixed = names(scaled(tmp_path, vit, {"gsd": 20}, pixel_size=said))
    assert fixed["features"] != gsd["features"]
    wider = names(scaled(tmp_path, vit, {"gsd": 20}, pixel_size={**said, "x": 20}))
    assert wider["features"] not in (fixed["features"], gsd["features"])


def test_a_table_is_known_by_what_it_says_of_these_images(tmp_path, vit):
    def named(name: str, lines: str) -> str:
        size = table(tmp_path / name, "path,x,y,unit\n" + lines)
        return names(scaled(tmp_path, vit, {"gsd": 20}, pixel_size=size))["features"]

    found = named("a.csv", "0.tif,10,10,m\n1.tif,40,40,m\n")
    assert named("b.csv", "1.tif,40,40,m\n0.tif,10,10,m\nelsewhere.tif,3,3,m\n") == found
    assert named("b.csv", "1.tif,20,40,m\n0.tif,10,10,m\n") != found
    assert named("c.csv", "elsewhere.tif,3,3,m\n") == names(scaled(tmp_path, vit, {"gsd": 20}))["features"]


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (None, r"does not say what a pixel measures, which features\.views\.mpp needs"),
        (PixelSize(0.2, 0.2, "°"), r"measures 0\.2 × 0\.2 °, no length"),
        (PixelSize(1, 1, "m"), r"features\.views\.mpp is 2,000,000 times finer than a pixel"),
    ],
)
def test_a_pixel_size_that_gives_no_scale(size, why):
    with pytest.raises(ConfigError, match=why) as caught:
        pixels_per(0.5e-6, size, "a.tif", "features.views.mpp")
    assert "dataset.pixel_size={x: 0.25, y: 0.25, unit: µm}" in str(caught.value)


@pytest.mark.parametrize(
    ("views", "why"),
    [
        ({"mpp": 0.5, "gsd": 1}, "give one of them"),
        ({"mpp": 0.5, "kind": "whole"}, "the kind whole have no scale"),
        ({"gsd": 0}, "greater than 0"),
    ],
)
def test_scales_that_cannot_be(views, why):
    with pytest.raises(ConfigError, match=why):
        validate({"dataset": {"root": "x"}, "features": {"views": views}})
