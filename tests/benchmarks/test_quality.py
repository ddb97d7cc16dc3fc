"""The benchmark of data sets × heads × seeds: merging, the page, and a tiny grid through the pipeline itself."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from corpora import small, write_corpus

from pipeline.core.errors import ConfigError
from pipeline.planning import STAGES

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import quality
import quality_results as results_module
from quality_results import merge, page, start

SETTINGS = {
    "backbone": "vit", "weights": "packaged", "block": 8, "weights_sha256": "ab", "protocol": "full", "steps": None
}  # fmt: skip
FACTS = {"views": [28, 42], "images": {"train": 6, "val": 4}, "k": 3, "content": {"dataset": "a", "labels": "b"}}


def cell(miou: float, *, crf: float | None = None, date: str = "2026-01-01", clusters: str = "c") -> dict[str, Any]:
    pair = {"accuracy": miou + 10, "miou": miou}
    return {
        "without": pair,
        "with": None if crf is None else {"accuracy": crf + 10, "miou": crf},
        "probe_codes": {"accuracy": 70.0, "miou": 50.0},
        "probe_tokens": {"accuracy": 80.0, "miou": 60.0},
        "seconds": {"head": 1.0, "clusters": 2.5},
        "clusters": clusters,
        "date": date,
        "machine": "2 cores",
        "commit": "c0ffee",
    }


def named(miou: float, share: float) -> dict[str, Any]:
    """What a cell of today holds beside scores."""
    colour = {"k": 21.0, "named": 22.0, "boundary": 23.0}
    curve = {"10": miou, "25": miou + 5, "50": miou + 10}
    return {"named": curve, "share": share, "boundary": 24.0, "boundary_baseline": 25.0, "colour": colour}


def merged(*cells: tuple[str, int, dict[str, Any]]) -> dict[str, Any]:
    results = start(None, SETTINGS)
    for head, seed, content in cells:
        results = merge(results, "tiny", FACTS, head, seed, content)
    return results


# Merging --------------------------------------------------------------------------------------------------------------


def test_a_cell_is_replaced_and_the_others_keep_their_date():
    before = merged(("pca", 1, cell(30)), ("pca", 0, cell(20)), ("none", 0, cell(10)))
    kept = json.dumps(before)
    after = merge(before, "tiny", FACTS, "pca", 1, cell(40, date="2026-02-02"))
    assert json.dumps(before) == kept, "merging is pure"
    heads = after["sets"]["tiny"]["heads"]
    assert list(heads) == ["none", "pca"]
    assert list(heads["pca"]["seeds"]) == ["0", "1"]
    assert heads["pca"]["mean"]["without"] == {"accuracy": 40, "miou": 30}
    assert heads["pca"]["sd"]["without"]["miou"] == pytest.approx(200**0.5, abs=1e-4)
    assert heads["pca"]["seconds"] == 3.5
    assert heads["none"]["sd"]["without"]["miou"] is None, "one value has none"
    assert [content["date"] for content in heads["pca"]["seeds"].values()] == ["2026-01-01", "2026-02-02"]
    assert after["date"] == "2026-02-02"
    assert heads["none"] == before["sets"]["tiny"]["heads"]["none"]


def test_the_same_values_are_the_same_measurement():
    before = merged(("pca", 0, cell(20, crf=25)))
    assert merge(before, "tiny", FACTS, "pca", 0, cell(20, crf=25, date="2026-02-02")) == before


def test_a_score_with_crf_is_kept_for_the_same_clusters_alone():
    before = merged(("pca", 0, cell(20, crf=25)))
    assert merge(before, "tiny", FACTS, "pca", 0, cell(20, date="2026-02-02")) == before
    for other in (cell(20, clusters="d"), cell(21)):
        after = merge(before, "tiny", FACTS, "pca", 0, other)
        assert after["sets"]["tiny"]["heads"]["pca"]["seeds"]["0"]["with"] is None
        assert after["sets"]["tiny"]["heads"]["pca"]["mean"]["with"] == {"accuracy": None, "miou": None}


def test_nothing_is_kept_of_a_set_that_has_changed():
    before = merged(("pca", 0, cell(20)), ("none", 0, cell(10)))
    facts = {**FACTS, "content": {"dataset": "a", "labels": "others"}}
    assert list(merge(before, "tiny", facts, "none", 0, cell(11))["sets"]["tiny"]["heads"]) == ["none"]


def test_other_settings_are_not_mixed_in():
    with pytest.raises(ConfigError, match="measured with block 8, not 9"):
        start(merged(("none", 0, cell(10))), {**SETTINGS, "block": 9})


# The page -------------------------------------------------------------------------------------------------------------

SCORES = """## mIoU

| head | tiny |
| --- | --- |
| none (k-means on tokens) | 10.0 (seed 0) |
| pca | 25.0 ± 7.1 |
| none (k-means on tokens), CRF | – |
| pca, CRF | 24.0 (seed 0) |
| linear probe on codes of pca (with labels) | 50.0 ± 0.0 |
| linear probe on tokens (with labels) | 60.0 |

## Accuracy

| head | tiny |
| --- | --- |
| none (k-means on tokens) | 20.0 (seed 0) |
| pca | 35.0 ± 7.1 |
| none (k-means on tokens), CRF | – |
| pca, CRF | 34.0 (seed 0) |
| linear probe on codes of pca (with labels) | 70.0 ± 0.0 |
| linear probe on tokens (with labels) | 80.0 |

"""
REST = """## Seconds

Of the stages head and clusters together, mean over seeds: a method's own cost, on the machine below. It is wall time,
and longer where other programs ran at the same time.

| head | tiny |
| --- | --- |
| none (k-means on tokens) | 3.5 |
| pca | 3.5 |

## What was measured

| data set | view in pixels | images | K |
| --- | --- | --- | --- |
| tiny | 28×42 | 6 train, 4 val | 3 |

| date | machine | commit | cells: data set, head, seed |
| --- | --- | --- | --- |
| 2026-01-01 | 2 cores | c0ffee | tiny none 0; tiny pca 0 |
| 2026-02-02 | 2 cores | c0ffee | tiny pca 1 |
"""


def test_the_page_is_written_from_the_file_alone():
    results = merged(("pca", 0, cell(20, crf=24)), ("pca", 1, cell(30, date="2026-02-02")), ("none", 0, cell(10)))
    text = page(json.loads(json.dumps(results)))
    assert text[text.index("## mIoU") : text.index("## Named cuts")] == SCORES
    assert text[text.index("## Seconds") :] == REST
    assert "\npython benchmarks/quality.py --data FOLDER --sets tiny --heads none,pca --seeds 0,1\n" in text
    assert "Backbone vit, weights packaged (trained further for saliency), block 8." in text
    assert "A try" not in text
    assert "**A try with 7 training steps, not results.**" in page({**results, "steps": 7})
    assert "several commits" not in text
    mixed = merged(("none", 0, cell(10)), ("none", 1, cell(12) | {"commit": None}), ("pca", 0, cell(10)))
    assert "(see the last table): tiny none.\n\n## mIoU" in page(mixed)
    without = merged(("none", 2, cell(10)))
    assert "--heads none --seeds 2 --no-crf\n" in page(without)


def test_what_groups_are_worth_has_sections_and_older_cells_a_dash():
    cells = (("stego", 0, cell(20) | named(30, 40)), ("stego", 1, cell(20) | named(32, 50)), ("pca", 0, cell(10)))
    text = page(json.loads(json.dumps(merged(*cells))))
    for row in (
        "| head: share | tiny |\n| --- | --- |\n| pca | – |\n| stego | 45.0 ± 7.1 |\n",
        "| tiny | stego | 31.0 ± 1.4 | 36.0 ± 1.4 | 41.0 ± 1.4 | – | – | 45.0 ± 7.1 |\n\n",
        "| pca | – |\n| stego | 24.0 ± 0.0 |\n| k-means on tokens, bilinear | 25.0 ± 0.0 |\n| colour | 23.0 ± 0.0 |\n",
        "| K = classes, one Hungarian match | 21.0 ± 0.0 |\n| 50 groups, named | 22.0 ± 0.0 |\n",
    ):
        assert row in text
    one = page(merged(("stego", 0, cell(20) | named(30, 40)), ("pca", 1, cell(10))))
    assert "| tiny | stego | 30.0 (seed 0) |" in one
    assert "| head: share | tiny |\n| --- | --- |\n| pca | – |\n" in page(merged(("pca", 0, cell(10))))


def test_a_cell_that_gains_named_cuts_is_another_measurement():
    before = merged(("pca", 0, cell(20)))
    after = merge(before, "tiny", FACTS, "pca", 0, cell(20, date="2026-02-02") | named(30, 40))
    assert results_module.cell_of(after, "tiny", "pca", 0)["date"] == "2026-02-02"
    assert results_module.cell_of(after, "tiny", "pca", 1) is None
    assert results_module.cell_of(after, "huge", "pca", 0) is None


# A real grid ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, vit: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one labelled set, and a base config that takes about a second."""
    base = small(Path(), "", vit)
    base["clusters"] |= {"prototypes": 30}
    monkeypatch.setattr(quality, "BASE", {key: base[key] for key in base if key not in ("store", "dataset")})
    write_corpus(tmp_path / "data/tiny")
    return tmp_path / "data"


def test_a_grid_is_measured_once_and_a_failing_cell_stops_no_other(data: Path, tmp_path: Path, capsys):
    store, out = tmp_path / "store", tmp_path / "out"
    grid = {"data": data, "heads": "none,stego", "seeds": "0,1", "store": str(store), "out": out}
    assert quality.quality(**grid) == 0
    shown = capsys.readouterr()
    assert sum(line.startswith("[") for line in shown.err.splitlines()) == 4  # a log may be beside them
    assert "[4/4] tiny stego 1: mIoU" in shown.err
    made = {stage.name: len(list((store / "artifacts").glob(f"{stage.name}/*/manifest.json"))) for stage in STAGES}
    once = {
        "suggestion": 0,
        "reading": 0,
        "classes": 0,
        "dataset": 1,
        "labels": 1,
        "features": 1,
        "neighbours": 1,
        "baseline": 2,
        "report": 0,
    }
    assert made == {**dict.fromkeys(made, 4), **once}

    text = (out / "quality.json").read_text()
    results = json.loads(text)
    assert {key: results["sets"]["tiny"][key] for key in ("views", "images", "k")} == {
        "views": [64, 64], "images": {"train": 6, "val": 4}, "k": 3,
    }  # fmt: skip
    for head in results["sets"]["tiny"]["heads"].values():
        assert list(head["seeds"]) == ["0", "1"]
        for found in head["seeds"].values():
            assert all(0 < found[kind][key] <= 100 for kind in results_module.KINDS for key in ("accuracy", "miou"))
            assert set(found["seconds"]) == {"head", "clusters"}
            assert list(found["named"]) == ["10", "25"]
            measured = [
                *found["named"].values(),
                *found["colour"].values(),
                found["boundary"],
                found["boundary_baseline"],
            ]
            assert all(0 < value <= 100 for value in measured)
            assert found["colour"]["named"] > 50, "three classes of three greys and contrasts"
    assert (out / "results.md").read_text() == page(results)
    assert str(tmp_path) not in text + (out / "results.md").read_text()

    # Again, without CRF for what is known with it, and with a set that cannot be used. What is known is not measured.
    results["sets"]["tiny"]["heads"]["stego"]["seeds"]["1"]["share"] = 12.5
    text = quality.dump(results) + "\n"
    (out / "quality.json").write_text(text)
    write_corpus(data / "broken")
    (data / "broken/dataset.yaml").write_text("classes: 3\n")
    assert quality.quality(**grid) == 1
    shown = capsys.readouterr()
    assert shown.err.count("FAILED: dataset.yaml: classes must be a list of names") == 4
    assert shown.out.count("FAILED: broken ") == 4
    assert shown.err.count("; all reused") == 4
    assert (out / "quality.json").read_text() == text
    assert quality.quality(**{**grid, "sets": "tiny", "heads": "none", "crf": False, "json": True}) == 0
    assert json.loads(capsys.readouterr().out) == {**results, "failed": []}
    assert (out / "quality.json").read_text() == text

    (out / "results.md").unlink()
    assert quality.quality(render=True, out=out) == 0
    assert (out / "results.md").read_text() == page(results)
    assert (out / "quality.json").read_text() == text


def test_a_try_stays_out_of_the_results(data: Path, tmp_path: Path):
    assert quality.quality(data=data, heads="stego", seeds="0", steps=3, crf=False, store=str(tmp_path / "s")) == 0
    results = json.loads((tmp_path / "s/quality.json").read_text())
    assert results["steps"] == 3
    with pytest.raises(ConfigError, match="measured with steps 3, not None"):
        quality.quality(data=data, heads="none", store=str(tmp_path / "s"), out=tmp_path / "s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": "huge"}, "--sets: there is no huge"),
        ({"heads": "magic"}, "--heads: there is no magic"),
        ({"seeds": "0,x"}, "--seeds 0,x: whole numbers are wanted"),
        ({"data": None}, "--data is missing"),
        ({"data": Path("/nowhere")}, "holds no NAME with images, labels, dataset.yaml"),
        ({"render": True}, "quality.json is not there"),
    ],
)
def test_what_cannot_be_used_is_named(data: Path, tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        quality.quality(**{"data": data, "out": tmp_path / "out", **options})


def test_a_cell_is_a_config_of_its_own(tmp_path: Path):
    for name, size in (("camvid", (364, 476)), ("unknown", None)):
        root = write_corpus(tmp_path / name, train=1, val=1)
        config = quality.config_of(quality.BASE, root, "store", "stego", 3, False, 7)
        assert config.features.views.size == size
        assert (config.head.seed, config.clusters.seed, config.clusters.k) == (3, 3, 3)
        assert (config.head.method, config.head.steps, config.masks.crf) == ("stego", 7, False)
    assert "head" not in quality.BASE


def test_changes_of_a_head_are_those_of_its_name(tmp_path: Path):
    root = write_corpus(tmp_path / "camvid", train=1, val=1)

    def sections(head: str, crf: bool) -> tuple[Any, ...]:
        config = quality.config_of(quality.BASE, root, "store", head, 0, crf, None)
        views = config.features.views
        return config.head.method, config.masks.upsampling, config.masks.crf, views.kind, views.size

    assert sections("stego", True) == ("stego", "bilinear", True, "whole", (364, 476))
    assert sections("stego+guided", True) == ("stego", "guided", False, "whole", (364, 476))
    assert sections("pca+guided+crops", True) == ("pca", "guided", False, "crops", (364, 476))


def test_a_probe_of_crops_is_not_that_of_whole_views():
    other = {**cell(40), "probe_tokens": {"accuracy": 0.0, "miou": 0.0}}
    text = page(merged(("pca", 0, cell(30)), ("pca+guided+crops", 0, other)))
    assert "| linear probe on tokens (with labels) | 60.0 |" in text
    assert "| pca, guided, trained on five crops | 40.0 |" in text
