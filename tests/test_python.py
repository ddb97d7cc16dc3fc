"""The package as a notebook uses it: names, runs, what they hold, and README.md's own lines."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from corpora import CLASSES, small, write_corpus
from PIL import Image

import pipeline
from pipeline.api import open_features, open_run, run
from pipeline.artifacts import masks as stored
from pipeline.artifacts.masks import decode_png, mask_rows, read_masks
from pipeline.artifacts.scores import ANNOTATED, NAMES
from pipeline.config import PipelineConfig, load
from pipeline.core.errors import ConfigError
from pipeline.core.runs import find_run
from pipeline.core.store import Store
from pipeline.numerics.palette import colourise, palette
from pipeline.results import Run

README = Path(__file__).parents[1] / "README.md"
FRONT = ("load", "plan", "run", "segment", "export", "open_run", "open_features")


# The names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [f"from pipeline import {', '.join(FRONT)}", "import pipeline"])
def test_the_front_door_opens_in_a_fresh_interpreter(line: str):
    """By `from` and by attribute, whatever else was imported before; importing alone loads no torch."""
    by_name = [name if line.startswith("from") else f"pipeline.{name}" for name in FRONT]
    code = f"""
import sys
{line}
{"assert 'torch' not in sys.modules" if line == "import pipeline" else ""}
import pipeline.cli.main, pipeline.planning, pipeline.results
print([callable(each) for each in ({", ".join(by_name)})])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str([True] * len(FRONT)), done.stderr


def test_no_public_name_is_a_submodules():
    folder = Path(pipeline.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    assert not modules & set(pipeline.__all__)
    assert set(pipeline.__all__) <= set(dir(pipeline))
    with pytest.raises(AttributeError, match="nothing"):
        _ = pipeline.nothing  # type: ignore[attr-defined]


def test_a_config_is_loaded_with_changes(corpus: Path, vit: Path, tmp_path: Path):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(small(corpus, "ignored", vit)))
    config = load(tmp_path / "my.yaml", set=["clusters.k=3", "masks.crf=false"], store=str(tmp_path / "other"))
    assert (config.clusters.k, config.masks.crf, config.store) == (3, False, str(tmp_path / "other"))


# What a run holds -----------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(finished: Run) -> Run:
    """The finished run, opened from its store."""
    return open_run(finished.store.url, finished.id)


def test_an_opened_run_is_the_one_that_was_made(finished: Run, opened: Run):
    assert (opened.id, opened.names, opened.date) == (finished.id, [], finished.date)
    assert opened.config == finished.config
    assert opened.scores == finished.scores
    assert opened.report == finished.report
    assert {row.status for row in finished.stages} == {"ran"}
    assert {row.status for row in opened.stages} == {"finished"}
    assert [(row.stage, row.fingerprint, row.parts_total) for row in opened.stages] == [
        (row.stage, row.fingerprint, row.parts_total) for row in finished.stages
    ]
    assert [row.seconds for row in opened.stages] == [row.seconds for row in finished.stages]


def test_masks_are_those_of_the_store(opened: Run, corpus: Path):
    rows = {row["id"]: row for row in read_masks(opened.artifact("masks"))}
    assert list(opened.masks) == sorted(rows)
    assert len(opened.masks) == 4
    for name, mask in opened.masks.items():
        np.testing.assert_array_equal(mask, decode_png(rows[name]["mask_crf"]))
        np.testing.assert_array_equal(opened.masks["val/" + name], mask)
        np.testing.assert_array_equal(opened.masks["val", name], mask)
        assert opened.image(name).shape == (*mask.shape, 3)
        np.testing.assert_array_equal(opened.image(name), np.asarray(Image.open(corpus / "images/val" / name)))
        np.testing.assert_array_equal(opened.labels[name], np.asarray(Image.open(corpus / "labels/val" / name)))
    assert "no.png" not in opened.masks
    with pytest.raises(KeyError, match=r"no\.png: no image of val"):
        opened.masks["no.png"]


def test_an_id_of_two_splits_wants_its_split(opened: Run, corpus: Path):
    """Training and validation images have the same names here."""
    assert opened.images.splits == ["train", "val"]
    assert list(opened.images)[:2] == ["train/00.png", "train/01.png"]
    assert list(opened.images.split("val")) == ["00.png", "01.png", "02.png", "03.png"]
    with pytest.raises(KeyError, match=r"write train/00\.png or val/00\.png"):
        opened.images["00.png"]
    assert opened.image("train/05.png").shape == opened.image("05.png").shape
    pixels = np.asarray(Image.open(corpus / "images/train/00.png"))
    np.testing.assert_array_equal(opened.image("train/00.png"), pixels)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """No part of masks is remembered from before, or afterwards."""
    stored._part.cache_clear()
    yield
    stored._part.cache_clear()


def test_one_mask_reads_one_part(opened: Run, monkeypatch: pytest.MonkeyPatch, forgetful: None):
    """Of masks in parts of two images."""
    masks = opened.artifact("masks")
    (part,) = masks.markers()
    table = masks.read_table(f"masks/{part}.parquet")
    read: list[str] = []
    monkeypatch.setitem(masks.manifest, "part", 2)

    def some(self, name: str, columns=None):
        read.append(name)
        start = int(name.split("/")[1].split("-")[0])
        return table.slice(start, 2)

    monkeypatch.setattr(type(masks), "read_table", some)
    wanted = table.to_pylist()
    assert mask_rows(masks, 3, 4) == wanted[3:]
    assert read == ["masks/00000002-00000004.parquet"]
    assert mask_rows(masks, 1, 3) == wanted[1:3]
    assert mask_rows(masks, 0, 4) == wanted
    assert mask_rows(masks, 2, 2) == []


def test_scores_have_names(opened: Run):
    content, scores = opened.artifact("scores").read_json("scores.json"), opened.scores
    assert scores is not None
    assert (scores.protocol, scores.images, scores.classes) == ("full", 4, CLASSES)
    assert (scores.annotation, scores.annotated, scores.annotated_crf) == (None, None, None)
    for name in (name for name in NAMES if name not in ANNOTATED):
        score, wanted = getattr(scores, name), content["scores"][name]
        assert (score.accuracy, score.miou, list(score.iou)) == (wanted["accuracy"], wanted["miou"], wanted["iou"])
        assert list(score.matching) == content["matching"][name]
        assert score.confusion.tolist() == content["confusion"][name]
    assert scores.result == scores.cluster_crf != scores.cluster


def test_the_baselines_maps_are_those_that_were_scored(opened: Run):
    matching = np.asarray(opened.scores.baseline.matching)  # type: ignore[union-attr]
    right = labelled = 0
    for name, mask in opened.baseline.items():
        assert (mask.dtype, mask.shape) == (np.uint8, opened.masks[name].shape)
        label = opened.labels[name]
        right += int((matching[mask] == label).sum())
        labelled += label.size
    assert 100 * right / labelled == pytest.approx(opened.scores.baseline.accuracy, abs=0.1)  # type: ignore[union-attr]


def test_what_lies_between_images_and_masks(opened: Run):
    near = opened.neighbours
    assert near.neighbours.shape == near.similarities.shape == (6, 5)
    table = opened.artifact("neighbours").read_table("neighbours.parquet")
    assert near.view.tolist() == table["view"].to_pylist()
    assert near.neighbours.tolist() == table["neighbours"].to_pylist()
    assert (np.diff(near.similarities) <= 0).all()
    assert opened.head(opened.features.tokens[:2]).compared.shape == (2, 4, 4, 8)
    assert opened.clusters.k == 4 <= len(opened.clusters.vectors)
    pixels = np.concatenate([decode_png(row["mask"]).ravel() for row in read_masks(opened.artifact("masks"))])
    np.testing.assert_allclose(opened.shares, np.bincount(pixels, minlength=4) / pixels.size)
    assert open_features(opened.store.url, opened.id).artifact == opened.features.artifact


def test_a_run_shows_itself_in_a_line_and_in_html(opened: Run):
    for line in (repr(opened), repr(opened.features), repr(opened.neighbours), repr(opened.masks)):
        assert "\n" not in line
        assert len(line) < 150
    assert opened.id in repr(opened)
    assert "K 4" in repr(opened)
    page = opened._repr_html_()
    assert f"{opened.scores.baseline.miou:.1f}" in page  # type: ignore[union-attr]
    assert "data:image/jpeg;base64," in page


def test_a_figure_has_the_masks_in_their_colours(opened: Run):
    """The largest group's colour fills the middle column as it fills the masks; a legend stands below."""
    few, more = opened.show(1), opened.show(3)
    assert few.height < more.height
    pixels = np.asarray(opened.show(4))
    colours = palette(4)  # as in exported masks
    wanted = np.concatenate([colourise(mask, colours).reshape(-1, 3) for mask in opened.masks.values()])
    for colour in colours:
        assert (pixels == colour).all(-1).any() == (wanted == colour).all(-1).any()
    with pytest.raises(ConfigError, match="no image to show"):
        opened.show(0)


def test_odd_names_are_text_in_html(make_config: Callable[..., PipelineConfig], corpus: Path, tmp_path: Path):
    root = tmp_path / "<b>\x1b[31m"
    shutil.copytree(corpus / "images/val", root)
    done = run(make_config(root=root, masks={"crf": False}))
    assert done.scores is None
    assert done.labels == {}
    assert "<b>" not in done._repr_html_()
    assert "\x1b" not in repr(done)
    shutil.rmtree(root)
    assert "<img" not in done._repr_html_(), "the images are gone: the rest is shown"


# Which run `latest` is ------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Path:
    """A copy of the finished run's store."""
    return Path(shutil.copytree(finished.config.store, tmp_path / "store"))


def test_latest_is_the_newest_run_that_changed_something(
    finished: Run, copied: Path, make_config: Callable[..., PipelineConfig], corpus: Path, tmp_path: Path
):
    again = run(make_config())
    assert {row.status for row in again.stages} == {"reused"}
    assert again.id > finished.id
    assert open_run(copied).id == finished.id
    other = run(make_config(report={"images": 1}))
    assert open_run(copied).id == other.id
    run(make_config())
    other.segment(corpus / "images/val", tmp_path / "new")
    assert open_run(copied).id == other.id
    facts = pipeline.export(copied, "latest", tmp_path / "out")
    assert facts["run"] == other.id, "it says which run it is"


def test_latest_has_what_is_asked_for(
    finished: Run, copied: Path, make_config: Callable[..., PipelineConfig], tmp_path: Path
):
    """A run of some stages, or one that was killed, hides no masks; asked for by its id, the error names the other."""
    partial = run(make_config(neighbours={"k": 2}), until="neighbours")
    assert find_run(Store(copied), "latest")["run"] == partial.id
    assert open_run(copied).id == finished.id
    assert pipeline.export(copied, "latest", tmp_path / "out")["run"] == finished.id
    with pytest.raises(ConfigError, match="no finished masks") as raised:
        pipeline.export(copied, partial.id, tmp_path / "other")
    assert finished.id in str(raised.value.next)


def test_latest_of_damaged_records(finished: Run, copied: Path, make_config: Callable[..., PipelineConfig]):
    """An old record that is damaged says nothing of newer runs; the newest one may have been wanted."""
    newest = run(make_config(report={"images": 1}))
    (copied / f"runs/{finished.id}.json").write_text("{")
    assert find_run(Store(copied), "latest")["run"] == newest.id
    (copied / f"runs/{newest.id}.json").write_text("{")
    with pytest.raises(Exception, match="damaged"):
        open_run(copied)


def test_the_newest_report_lies_at_the_top(finished: Run, copied: Path, make_config: Callable[..., PipelineConfig]):
    newest = copied / "report.html"
    assert newest.read_bytes() == Path(finished.report).read_bytes()
    other = run(make_config(report={"images": 1}))
    assert newest.read_bytes() == Path(other.report).read_bytes() != Path(finished.report).read_bytes()
    run(make_config(), stage="dataset")
    assert newest.read_bytes() == Path(other.report).read_bytes()
    run(make_config())
    assert newest.read_bytes() == Path(finished.report).read_bytes(), "also where it was reused"


# README ---------------------------------------------------------------------------------------------------------------


def test_the_python_of_the_readme_runs_as_written(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One block after the other, in a folder with `my.yaml`, a finished run in `store`, and `photos/a/b.jpg`."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "made", train=4, val=0, labels=False)
    for number, path in enumerate(sorted((tmp_path / "made").rglob("*.png"))):
        for folder in ("photos", "new_photos"):
            target = tmp_path / folder / "a" / ("b.jpg" if number == 0 else f"{number}.jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).save(target)
    data = small(Path("photos"), "store", vit, features={"views": {"size": [224, 224]}}, masks={"crf": False})
    Path("my.yaml").write_text(yaml.safe_dump(data))
    run(load("my.yaml"))
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert blocks
