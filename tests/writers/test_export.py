"""An export from a run to files: every format, which is the default, and what happens when it is cut short."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from corpora import picture
from PIL import Image

from pipeline.api import run
from pipeline.config import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.results import Run
from pipeline.writers import FORMATS, folder
from pipeline.writers.folder import WORK
from pipeline.writers.raster import png


def files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_exports_a_run(format: str, finished: Run, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    facts = finished.export(
        tmp_path / "out", format=format, progress=lambda stage, done, total, unit: seen.append((done, total))
    )
    assert facts == {
        "run": finished.id,
        "format": format,
        "written": 4,
        "skipped": [],
        "out": str(tmp_path / "out"),
    }
    assert seen == [(number, 4) for number in range(1, 5)]
    legend = json.loads((tmp_path / "out/classes.json").read_text())
    shares = np.bincount(np.concatenate([mask.ravel() for mask in finished.masks.values()]), minlength=4)
    np.testing.assert_allclose([row["share"] for row in legend["classes"]], shares / shares.sum(), atol=1e-6)
    assert [row["node"] for row in legend["classes"]] == finished.clusters.cut().nodes.tolist()
    assert legend["provenance"]["run"] == finished.id
    assert legend["provenance"]["fingerprint"] == finished.artifact("masks").fingerprint
    assert not (tmp_path / "out" / WORK).exists()


def test_images_of_several_splits_are_told_apart(finished: Run, tmp_path: Path):
    finished.export(tmp_path / "out", format="coco", cut=3, splits=["train", "val"])
    images = json.loads((tmp_path / "out/annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images][5:8] == ["train/05.png", "val/00.png", "val/01.png"]
    finished.export(tmp_path / "one", format="coco", cut=3, splits=["train"])
    images = json.loads((tmp_path / "one/annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"{number:02d}.png" for number in range(6)]


def test_scores_are_those_that_the_masks_are_made_of(finished: Run, tmp_path: Path):
    finished.export(tmp_path / "plain", format="png", crf=False)
    finished.export(tmp_path / "sure", format="geotiff", scores=True)
    for name in finished.masks:
        path = (tmp_path / "sure" / name).with_suffix(".scores.tif")
        with rasterio.Env(), pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            opened = rasterio.open(path)
        with opened as file:
            scores = file.read().astype(int)
        mask = np.asarray(Image.open(tmp_path / "plain" / name))
        assert abs(scores.sum(0) - 255).max() <= 4, "they are probabilities"
        assert (np.take_along_axis(scores, mask[None].astype(int), 0)[0] == scores.max(0)).all()
    finished.export(tmp_path / "table", format="table", scores=True)
    assert "0." in (tmp_path / "table/table.csv").read_text()
    with pytest.raises(ConfigError, match="coco has no room"):
        finished.export(tmp_path / "none", format="coco", scores=True)
    with pytest.raises(ConfigError, match="without CRF alone"):
        finished.export(tmp_path / "none", format="fits", scores=True, matched=True)
    assert not (tmp_path / "none").exists()


def test_tiffs_are_exported_as_tiffs_and_a_mixture_as_pictures(
    make_config: Callable[..., PipelineConfig], tmp_path: Path
):
    images = tmp_path / "data/images"
    images.mkdir(parents=True)
    for number in range(3):
        tifffile.imwrite(images / f"{number}.tif", picture(number, (64, 80))[0], photometric="rgb")
    done = run(make_config(root=tmp_path / "data", masks={"crf": False}))
    assert done.export(tmp_path / "own")["format"] == "ome-tiff"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "own/0.ome.tif"), done.masks["0.tif"])
    Image.fromarray(picture(3, (64, 80))[0]).save(images / "3.png")
    mixed = run(make_config(root=tmp_path / "data", masks={"crf": False}))
    assert mixed.export(tmp_path / "mixed")["format"] == "palette"


def cut_short(finished: Run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that ends in an error after two PNGs."""
    left, original = [2], png

    def write(*args: np.ndarray) -> bytes:
        if not left[0]:
            raise OSError("No space left on device")
        left[0] -= 1
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.writers.fiftyone.png", write)
        with pytest.raises(OSError, match="No space"):
            finished.export(out, format="fiftyone")


@pytest.mark.parametrize("torn", [False, True])
def test_an_export_that_was_cut_short_goes_on(torn: bool, finished: Run, tmp_path: Path, monkeypatch):
    """torn: the process was killed while it wrote the last line of the journal."""
    finished.export(tmp_path / "whole", format="fiftyone")
    out = tmp_path / "out"
    cut_short(finished, out, monkeypatch)
    journal = out / WORK / "journal.jsonl"
    assert sorted(files(out)) == [f"{WORK}/journal.jsonl", "labels/00.png", "labels/01.png"]
    if torn:
        journal.write_bytes(journal.read_bytes()[:-9])
    before = {name: (out / f"labels/{name}.png").stat().st_ino for name in ("00", "01")}
    for other in ({"format": "coco"}, {"format": "fiftyone", "crf": False}, {"format": "fiftyone", "cut": 3}):
        with pytest.raises(ConfigError, match="holds another export"):
            finished.export(out, **other)
    assert finished.export(out, format="fiftyone")["written"] == 4
    kept = [name for name, number in before.items() if (out / f"labels/{name}.png").stat().st_ino == number]
    assert kept == (["00"] if torn else ["00", "01"])
    assert files(out) == files(tmp_path / "whole")
    with pytest.raises(ConfigError, match="is not empty"):
        finished.export(out, format="fiftyone")


def test_an_export_can_be_begun_again(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    cut_short(finished, out, monkeypatch)
    finished.export(out, format="palette", overwrite=True)
    assert not (out / WORK).exists()
    assert len(list(out.glob("*.png"))) == 4


def test_unfinished_files_lie_in_no_linked_folder(finished: Run, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / WORK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="leads out of"):
        finished.export(tmp_path / "out", overwrite=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_in_the_place_of_a_file_is_replaced(finished: Run, tmp_path: Path):
    """An OME-Zarr of an older export, all of it."""
    finished.export(tmp_path / "out", format="ome-zarr")
    (tmp_path / "out/00.zarr/stale").write_text("stale")
    finished.export(tmp_path / "out", format="ome-zarr", overwrite=True)
    assert not (tmp_path / "out/00.zarr/stale").exists()


def test_names_for_files_are_distinct_whatever_their_ending():
    names = [("val", "a.jpg"), ("val", "a.png"), ("val", "b.zarr/x.png"), ("val", "b.png"), ("val", "n" * 251 + ".png")]
    found = folder.file_names(names, ".scores.zarr", folders=False)
    assert found[:3] == ["a.jpg", "a.png", "b.zarr/x"]
    assert len({name + ".zarr" for name in found}) == 5
    assert all(len((name.rpartition("/")[2] + ".scores.zarr").encode()) <= 255 for name in found)


def test_the_command_line_takes_a_format(call, finished: Run, tmp_path: Path):
    store = shutil.copytree(finished.config.store, tmp_path / "store")
    where = ("--out", str(tmp_path / "out"), "--store", str(store))
    status, out, _ = call("export", finished.id, "--as", "coco", *where)
    assert status == 0
    assert "as coco" in out
    assert (tmp_path / "out/annotations.json").is_file()
    status, _, err = call("export", finished.id, "--as", "jpeg", *where, "--overwrite")
    assert status == 2
    assert "the formats are " + ", ".join(FORMATS) in " ".join(err.split())
    shown = call("export", "--help")[1]
    assert all(name in shown for name in FORMATS)
