"""Label maps as files: what is written, in which colours, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.api import open_run, run
from pipeline.artifacts.images import ByImage
from pipeline.config import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.numerics.palette import colourise, palette
from pipeline.results import Run
from pipeline.writers import folder
from pipeline.writers.interface import Legend
from pipeline.writing import Exported, write


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_export_is_the_masks_in_colour_and_a_legend(finished: Run, tmp_path: Path):
    facts = finished.export(tmp_path / "out")
    assert facts == {"run": finished.id, "format": "palette", "written": 4, "out": str(tmp_path / "out"), "skipped": []}
    assert files(tmp_path / "out") == ["00.png", "01.png", "02.png", "03.png", "classes.json", "legend.html"]
    legend = json.loads((tmp_path / "out/classes.json").read_text())
    every = []
    for name, mask in finished.masks.items():
        with Image.open(tmp_path / "out" / name) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), mask)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colourise(mask, palette(4)))
        every.append(mask.ravel())
    shares = np.bincount(np.concatenate(every), minlength=4) / sum(map(len, every))
    assert [entry["id"] for entry in legend["classes"]] == [0, 1, 2, 3]
    assert [entry["color"] for entry in legend["classes"]] == ["#" + bytes(colour).hex() for colour in palette(4)]
    np.testing.assert_allclose([entry["share"] for entry in legend["classes"]], shares, atol=1e-6)
    page = (tmp_path / "out/legend.html").read_text()
    assert all(entry["color"] in page for entry in legend["classes"])


def test_what_there_is_is_exported(finished: Run, make_config: Callable[..., PipelineConfig], tmp_path: Path):
    """With the CRF where the run has it, else without; asked for in vain, it says so."""
    plain = finished.export(tmp_path / "plain", crf=False)
    assert plain["written"] == 4
    different = [name for name in ("00.png", "01.png") if files_differ(tmp_path / "plain" / name, finished.masks[name])]
    assert different, "masks with and without CRF differ"
    shutil.copytree(finished.config.store, tmp_path / "store")
    without = run(make_config(masks={"crf": False}))
    assert without.export(tmp_path / "without")["written"] == 4
    assert (tmp_path / "without/00.png").read_bytes() == (tmp_path / "plain/00.png").read_bytes()
    with pytest.raises(ConfigError, match=r"masks\.crf=false"):
        without.export(tmp_path / "none", crf=True)
    assert not (tmp_path / "none").exists()


def files_differ(path: Path, mask: np.ndarray) -> bool:
    with Image.open(path) as image:
        return bool((np.asarray(image) != mask).any())


def test_a_folder_with_something_in_it_is_refused(finished: Run, corpus: Path, tmp_path: Path):
    done = open_run(shutil.copytree(finished.config.store, tmp_path / "store"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for exported in (done.export, lambda out, **options: done.segment(corpus / "images/val", out, **options)):
        with pytest.raises(ConfigError, match="is not empty"):
            exported(out)
        assert files(out) == ["mine.txt"]
        assert exported(out, overwrite=True)["written"] == 4
        assert (out / "mine.txt").read_text() == "mine"
        for path in [*out.glob("*.png"), out / "classes.json", out / "legend.html"]:
            path.unlink()


def test_several_splits_have_a_folder_each(finished: Run, make_config: Callable[..., PipelineConfig], tmp_path: Path):
    shutil.copytree(finished.config.store, tmp_path / "store")
    both = run(make_config(masks={"splits": ["train", "val"], "crf": False}))
    assert list(both.masks)[:2] == ["train/00.png", "train/01.png"]
    assert both.export(tmp_path / "all", splits=["train", "val"])["written"] == 10
    assert files(tmp_path / "all")[:4] == ["classes.json", "legend.html", "train/00.png", "train/01.png"]
    assert both.export(tmp_path / "one", splits=["train"])["written"] == 6
    assert files(tmp_path / "one")[:2] == ["00.png", "01.png"]
    with pytest.raises(ConfigError, match="--split test: masks exist for train, val"):
        both.export(tmp_path / "none", splits=["val", "test"])


def test_the_baseline_and_matched_classes(finished: Run, tmp_path: Path):
    finished.export(tmp_path / "baseline", baseline=True)
    finished.export(tmp_path / "matched", matched=True)
    matching = np.asarray(finished.scores.cluster_crf.matching)  # type: ignore[union-attr]
    for name, mask in finished.masks.items():
        assert not files_differ(tmp_path / "baseline" / name, finished.baseline[name])
        assert not files_differ(tmp_path / "matched" / name, np.where(matching[mask] < 0, 255, matching[mask]))
    legend = json.loads((tmp_path / "matched/classes.json").read_text())
    assert [entry["name"] for entry in legend["classes"]] == ["low", "high", "striped"]
    assert legend["nothing"] == 255
    with pytest.raises(ConfigError, match="no CRF"):
        finished.export(tmp_path / "none", baseline=True, crf=True)


def test_more_groups_than_a_palette_holds_are_grey(finished: Run, tmp_path: Path):
    legend = Legend([f"<{number}>" for number in range(300)], 65535)
    maps: ByImage[np.ndarray] = ByImage(
        finished.masks.images, finished.masks.rows[:1], lambda row: np.array([[0, 299, 65535]], np.uint16)
    )
    write(Exported(maps, legend, ""), tmp_path, format="palette")
    with Image.open(tmp_path / "00.png") as image:
        assert image.mode.startswith("I")
        assert np.asarray(image).tolist() == [[0, 299, 65535]]
    assert json.loads((tmp_path / "classes.json").read_text())["classes"][299]["name"] == "<299>"
    assert "&lt;299&gt;" in (tmp_path / "legend.html").read_text()


def test_a_file_is_written_whole_or_not_at_all(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    finished.export(tmp_path / "out")
    before = (tmp_path / "out/00.png").read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(folder.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        finished.export(tmp_path / "out", crf=False, overwrite=True)
    assert (tmp_path / "out/00.png").read_bytes() == before
    assert len(files(tmp_path / "out")) == 6, "no half-written file is left"


def test_any_cut_is_exported_of_any_split(finished: Run, tmp_path: Path):
    """At K it is the run's own masks without CRF; a coarser cut merges groups, as the legend says."""
    finished.export(tmp_path / "plain", crf=False)
    finished.export(tmp_path / "same", cut=4)
    facts = finished.export(tmp_path / "coarse", cut=2, splits=["train", "val"])
    assert facts["written"] == 10
    assert files(tmp_path / "coarse")[2:4] == ["train/00.png", "train/01.png"]
    legends = {
        name: json.loads((tmp_path / name / "classes.json").read_text())["classes"] for name in ("same", "coarse")
    }
    node = {entry["node"]: entry["id"] for entry in legends["coarse"]}
    parents = {entry["id"]: node.get(entry["node"], node.get(entry["parent"])) for entry in legends["same"]}
    for name in finished.masks:
        fine, coarse = (np.asarray(Image.open(tmp_path / place)) for place in (f"same/{name}", f"coarse/val/{name}"))
        np.testing.assert_array_equal(fine, np.asarray(Image.open(tmp_path / "plain" / name)))
        wanted = np.array([parents[group] if parents[group] is not None else -1 for group in range(4)])[fine]
        assert (coarse == wanted)[wanted >= 0].mean() > 0.9, "but where groups are upsampled together"
    with pytest.raises(ConfigError, match="has cuts into 1 to"):
        finished.export(tmp_path / "none", cut=10_000)
    with pytest.raises(ConfigError, match="--split test: there are train, val"):
        finished.export(tmp_path / "none", cut=3, splits=["test"])
    with pytest.raises(ConfigError, match="a cut has no CRF"):
        finished.export(tmp_path / "none", cut=3, matched=True)
