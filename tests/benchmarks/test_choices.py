"""The benchmark of choices without labels: its criterion, its page, and a tiny set through the pipeline itself."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import CLASSES, small, write_corpus

from pipeline.core.errors import ConfigError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import choices as choices_module
import quality_cell
from choices import colour, page

RNG = np.random.default_rng(0)


def test_colour_is_what_the_segments_explain_beyond_the_mirrored_mask():
    left = np.zeros((20, 30), np.uint8)
    left[:, :10] = 1
    image = np.where(left[..., None] == 1, 200, 50).astype(np.uint8) * np.ones(3, np.uint8)
    mirrored = 0.25  # the variance of the mirrored third that the true third explains: correlation −1/2, squared
    assert colour(image, left) == pytest.approx(1 - mirrored)
    assert colour(image, left[:, ::-1]) == pytest.approx(mirrored - 1)
    noise = RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert abs(colour(noise, RNG.integers(0, 5, (200, 200)))) < 0.001
    assert colour(np.full((5, 5, 3), 9, np.uint8), np.eye(5, dtype=np.uint8)) == 0


def cell(clusters: float, probe: float, silhouette: float, stability: float, colour: float) -> dict:
    criteria = {"silhouette": silhouette, "stability": stability, "colour": colour}
    return {"clusters": clusters, "probe": probe, **criteria, "date": "2026-01-01"}


def test_the_page_says_what_each_criterion_is_worth():
    features = {"block 8": cell(30.5, 50, 0.1, 0.9, 0.3), "block 2": cell(20.5, 60, 0.2, 0.8, 0.4)}
    entry = {"features": features, "views": {"whole": cell(33.0, 1, 1, 1, 1)}}
    facts = {"seed": 0, "date": "2026-01-01", "machine": "2 cores", "commit": "c0ffee"}
    text = page({**facts, "sets": {"tiny": entry}})
    assert "silhouette 20.5, stability 30.5, colour 20.5; of the best variant 30.5" in text
    assert "| block 8 | **30.5** | 50 | 0.1 | **0.9** | 0.3 |" in text
    assert "| whole | 33.0 |" in text


def test_a_tiny_set_through_the_pipeline(tmp_path, vit, monkeypatch, capsys):
    data = tmp_path / "sets"
    write_corpus(data / "tiny", train=6, val=3)
    base = small(Path("x"), "x", vit, execution={"executor": "serial"})
    base = {key: value for key, value in base.items() if key not in ("store", "dataset")}
    monkeypatch.setattr(choices_module, "BASE", base)
    monkeypatch.setattr(choices_module, "ROOT", tmp_path)
    monkeypatch.setattr(choices_module, "variants", lambda size: {"block 1": {"block": 1}, "block 0": {"block": 0}})
    monkeypatch.setitem(quality_cell.VIEWS, "tiny", [64, 64])
    monkeypatch.setattr(choices_module, "kinds", lambda size: {"five": {"views": {"kind": "crops", "size": [32, 32]}}})
    store = str(tmp_path / "store")
    assert choices_module.choices(data=data, store=store) == 0
    results = json.loads((tmp_path / "benchmarks/choices.json").read_text())
    entry = results["sets"]["tiny"]
    assert list(entry["features"]) == ["block 1", "block 0"]
    assert entry["features"]["block 1"] != entry["features"]["block 0"]
    assert 0 < entry["views"]["five"]["clusters"] < 100
    assert entry["k"]["classes"] == len(CLASSES)
    assert f"| tiny | {len(CLASSES)} | {entry['k']['k']} |" in (tmp_path / "docs/choices.md").read_text()
    assert "### tiny" in (tmp_path / "docs/choices.md").read_text()
    monkeypatch.setattr(choices_module, "measure", lambda *_: pytest.fail("everything is known"))
    assert choices_module.choices(data=data, store=store) == 0
    with pytest.raises(ConfigError, match="holds seed 0"):
        choices_module.choices(data=data, store=store, seed=1)
