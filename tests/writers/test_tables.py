"""Tables, PNGs, the legend, and what every format has in common."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_grids import GRID, STARS, scores
from written import LEGEND, MANY, NAMES, blobs, facts, write_maps

from pipeline.core import extras
from pipeline.core.errors import ConfigError
from pipeline.images.source import PixelSize
from pipeline.numerics.palette import colourise
from pipeline.writers import FORMATS, check, interface, levels
from pipeline.writers.interface import LabelMap


@pytest.mark.parametrize(
    ("image", "area", "unit"),
    [
        (facts(), 1, "px"),
        (facts(pixel_size=PixelSize(0.25, 0.5, "µm")), 0.125, "µm²"),
        (facts(georeference=GRID), 0.09, "m²"),
        (facts(georeference=STARS), 0.04**2, "arcsec²"),
    ],
)
def test_a_table_has_pixels_shares_and_areas_in_the_unit_of_the_image(image, area: float, unit: str, tmp_path: Path):
    ids = blobs(60, 80)
    write_maps("table", tmp_path, [(image, ids)])
    rows = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["name"] for row in rows] == NAMES
    assert [row["pixels"] for row in rows] == [(ids == number).sum() for number in range(8)]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert {row["unit"] for row in rows} == {unit}
    np.testing.assert_allclose([row["area"] for row in rows], [row["pixels"] * area for row in rows], rtol=1e-3)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        same = list(csv.DictReader(file))
    assert [int(row["pixels"]) for row in same] == [row["pixels"] for row in rows]
    assert [row["name"] for row in same] == [*NAMES[:5], "'=1+1", *NAMES[6:]], "no formula for a spreadsheet"


def test_a_table_says_how_sure_each_class_is(tmp_path: Path):
    ids = blobs(60, 80)
    half = facts(scores=lambda: (score // 2 for score in scores(ids)))
    write_maps("table", tmp_path, [(half, ids)])
    rows = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["confidence"] for row in rows] == pytest.approx([127 / 255] * 8)


@pytest.mark.parametrize("format", ["png", "palette"])
def test_png_and_palette_hold_ids(format: str, tmp_path: Path):
    ids, many = blobs(60, 80), blobs(60, 80, 300)
    write_maps(format, tmp_path / "few", [(facts(), ids)])
    write_maps(format, tmp_path / "many", [(facts(), many)], MANY)
    with Image.open(tmp_path / "few/a/image.png") as image:
        assert image.mode == {"png": "L", "palette": "P"}[format]
        np.testing.assert_array_equal(np.asarray(image), ids)
        if format == "palette":
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colourise(ids, LEGEND.colours))
    with Image.open(tmp_path / "many/a/image.png") as image:
        np.testing.assert_array_equal(np.asarray(image), many)


class Windowed:
    """A label map that is too large to be read at once."""

    def __init__(self, ids: np.ndarray, limit: int) -> None:
        self.ids, self.limit, self.shape, self.dtype = ids, limit, ids.shape, ids.dtype

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        part = self.ids[window]
        assert part.size <= self.limit, "a strip at a time"
        return part


@pytest.mark.parametrize("format", ["geotiff", "ome-zarr", "ome-tiff", "fits", "geojson", "gpkg", "table"])
def test_the_formats_of_large_images_read_a_label_map_by_windows(format, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(interface, "STRIP", 2**15)
    monkeypatch.setattr(levels, "STRIP", 2**15)
    for name, value in {"LARGE": 2**15, "TILE": 128}.items():
        monkeypatch.setattr(f"pipeline.writers.outlines.{name}", value)
    ids = blobs(1200, 700)
    large: LabelMap = Windowed(ids, 512 * 700)
    write_maps(format, tmp_path / "windows", [(facts(georeference=GRID), large)])
    assert (tmp_path / "windows/classes.json").is_file()


@pytest.mark.parametrize("format", FORMATS)
def test_names_become_neither_paths_nor_html(format: str, tmp_path: Path):
    out = tmp_path / "out"
    write_maps(format, out, [(facts(), blobs(60, 80))])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    page = (out / "legend.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    legend = json.loads((out / "classes.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in legend["classes"]] == NAMES
    assert [row["color"] for row in legend["classes"]] == [LEGEND.css(number) for number in range(8)]
    assert legend["provenance"] == LEGEND.provenance
    first = legend["classes"][0]["value"]
    assert [row["value"] for row in legend["classes"]] == list(range(first, first + 8))
    assert legend["nothing"] == (0 if first else 255)


def test_a_format_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="--as jpeg: the formats are palette, png"):
        check("jpeg")
    with pytest.raises(ConfigError, match="coco has no room for them"):
        check("coco", scores=True)
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "pyogrio" else found(name))
    with pytest.raises(ConfigError, match=r"pip install 'stegoflow\[geo\]'"):
        check("gpkg")


@pytest.mark.parametrize("format", FORMATS)
def test_any_size_and_a_map_without_classes_are_written(format: str, tmp_path: Path):
    maps = {
        "nothing": np.full((30, 40), 255, np.uint8),
        "pixel": np.zeros((1, 1), np.uint8),
        "line": np.arange(700, dtype=np.uint8)[None] % 8,
        "column": np.arange(700, dtype=np.uint8)[:, None] % 8,
    }
    done = write_maps(format, tmp_path, [(facts(name, georeference=GRID), ids) for name, ids in maps.items()])
    assert len(done) == 4
