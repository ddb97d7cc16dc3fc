"""The benchmark of a person's minutes: its person, its page, and a tiny set through the pipeline itself."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from corpora import small, write_corpus

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import annotate as annotate_module
from annotate import on_grid
from annotate_page import page, plot, share
from annotate_person import MODES, Corpus, Person, curve, largest

from pipeline.artifacts.clusters import Clusters, find_tree
from pipeline.numerics.kmeans import normalise

RNG = np.random.default_rng(0)


def corpus() -> Corpus:
    """Twenty images of 6 × 8 patches of three classes; six prototypes, of which the tree merges wrong pairs first."""
    middles = normalise(RNG.normal(size=(3, 12))).astype(np.float32)
    truth = RNG.integers(0, 3, (20, 6, 8))
    codes = normalise(middles[truth] + 0.3 * RNG.normal(size=(20, 6, 8, 12))).astype(np.float32)
    vectors = normalise(np.repeat(middles, 2, 0) + 0.1 * RNG.normal(size=(6, 12))).astype(np.float32)
    tree = find_tree(vectors, codes.reshape(-1, 12), np.array([0, 1, 0, 2, 1, 2]))
    return Corpus(Clusters(vectors, tree, 3), 3, codes.astype(np.float16), truth)


def test_the_largest_region_is_clicked_in_its_middle():
    mask = np.zeros((9, 9), bool)
    mask[0, 0] = mask[2:7, 3:8] = True
    assert largest(mask) == (25, (4, 5))


def test_the_person_counts_what_it_does_and_splits_what_is_mixed():
    person = Person(corpus(), 0)
    person.name(9)
    assert person.spent <= 9
    assert len(person.groups) > 3
    before = person.spent
    for _ in range(4):
        person.click(where_next=True)
    assert person.spent == before + 4
    assert len(person.points) <= 4
    assert all(person.corpus.truth[at] == said for at, said in zip(person.points, person.wanted, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_more_interactions_are_worth_more(mode: str):
    made = corpus()

    def right(found) -> float:
        values = found.values(made.codes.astype(np.float32))
        return float((values.argmax(-1) == made.truth).mean())

    found = curve(made, mode, 0, (2, 30), right)
    assert found[30] > max(0.7, found[2] - 0.05)


def test_labels_are_read_in_the_middle_of_places():
    label = np.arange(8)[:, None] * 10 + np.arange(8)
    assert on_grid(label, (2, 2), 1, None, 100).tolist() == [[22, 26], [62, 66]]
    assert on_grid(label, (2, 2), 2, 11, 70).tolist()[0] == [-1, 13, 15, 17]
    assert on_grid(label, (2, 2), 2, 11, 70).tolist()[3] == [-1, -1, -1, -1]


def test_the_page_holds_the_share_of_the_distance():
    cell = {"ends": {"kmeans": 20.0, "probe": 60.0}, "commit": "c0ffee", "curves": {"next": {"50": 44.0, "200": 60.0}}}
    assert share(cell, "next", "50") == pytest.approx(60)
    results = {"sets": {"<tiny>": {"0": cell}}}
    text = page(results)
    assert "| both, and where next | 60 | 100 |" in text
    assert "50 interactions come to 60 %" in text
    ElementTree.fromstring(plot(results))


def test_a_tiny_set_through_the_pipeline(tmp_path, vit, monkeypatch):
    data = write_corpus(tmp_path / "sets/tiny").parent
    base = small(Path("x"), "x", vit, execution={"executor": "serial"})
    base = {key: value for key, value in base.items() if key not in ("store", "dataset")}
    monkeypatch.setattr(annotate_module, "BASE", base)
    monkeypatch.setattr(annotate_module, "COUNTS", (2, 6))
    monkeypatch.setattr(annotate_module, "HEAD", "pca+guided")
    assert annotate_module.annotate(data=data, seeds="0", store=str(tmp_path / "store"), out=tmp_path) == 0
    cell = json.loads((tmp_path / "annotate.json").read_text())["sets"]["tiny"]["0"]
    assert set(cell["curves"]) == set(MODES)
    assert all(0 <= value <= 100 for values in cell["curves"].values() for value in values.values())
    assert (tmp_path / "annotate.md").is_file()
    ElementTree.parse(tmp_path / "annotate.svg")
