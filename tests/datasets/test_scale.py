"""What a pixel measures: from the file, from the config, or from a table."""

from pathlib import Path

import pytest
from corpora import small
from raster_files import BANDS, geotiff

from pipeline.api import run
from pipeline.config import validate
from pipeline.core.errors import ConfigError
from pipeline.datasets.scale import configured
from pipeline.images.source import PixelSize


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
