"""A corpus whose tables lie in many pieces gives what one in single pieces does."""

import shutil
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpora import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.api import run
from pipeline.artifacts import features
from pipeline.artifacts.features import Tokens, training_views, view_pieces
from pipeline.artifacts.images import Images, Ranges
from pipeline.artifacts.planes import Views
from pipeline.config import PipelineConfig
from pipeline.core.pieces import Pieces
from pipeline.results import Run

Make = Callable[..., PipelineConfig]


@pytest.fixture
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images in a piece of any table, a few in a part."""
    monkeypatch.setattr("pipeline.datasets.remembered.MEAN", 1)
    monkeypatch.setattr("pipeline.artifacts.view_listing.IMAGES", 3)
    monkeypatch.setattr("pipeline.artifacts.views.IMAGES", 3)
    monkeypatch.setattr("pipeline.artifacts.features.MOST_VIEWS", 2)
    monkeypatch.setattr("pipeline.artifacts.known_rows.ROWS", 2)
    monkeypatch.setattr("pipeline.stages.masks.MOST_IMAGES", 1)


def results(done: Run) -> dict:
    scores = done.artifact("scores").read_json("scores.json")
    return {"scores": scores, "masks": {key: done.masks[key].tolist() for key in done.masks}}


def test_values_do_not_depend_on_the_pieces(make_config: Make, tmp_path: Path, many_pieces, monkeypatch):
    config = {"features": {"mirror": "none"}, "masks": {"splits": ["train", "val"], "crf": False}}
    pieces = run(make_config(store=tmp_path / "pieces", **config))
    counts = [Pieces(pieces.artifact(*at[:1]), at[1]).count for at in (("dataset", "images"), ("features", "views"))]
    assert min(counts) >= 4
    assert pieces.artifact("masks").manifest["parts"] == 10
    monkeypatch.undo()
    monkeypatch.setattr("pipeline.core.retries.PAUSES", (0.05,))
    whole = run(make_config(store=tmp_path / "whole", **config))
    assert Pieces(whole.artifact("features"), "views").count == 1
    assert results(pieces) == results(whole)
    for key in whole.images:
        assert np.array_equal(pieces.labels[key], whole.labels[key])


def test_mirrored_views_follow_in_their_piece(make_config: Make, many_pieces):
    done = run(make_config(features={"mirror": "all"}), until="features")
    table = view_pieces(done.artifact("features"))
    assert table.read()["view"].to_pylist() == list(range(20))
    for number in range(table.count):
        mirrored, images = (table.piece(number)[name].to_pylist() for name in ("mirrored", "image"))
        half = len(mirrored) // 2
        assert mirrored == [False] * half + [True] * half
        assert images[:half] == images[half:] == sorted(images[:half])
    views = Views(done.artifact("features"))
    assert [sorted(views.of(image)["mirrored"].to_pylist()) for image in range(10)] == [[False, True]] * 10
    assert [set(views.of(image)["image"].to_pylist()) for image in range(10)] == [{image} for image in range(10)]


def test_a_grown_corpus_copies_from_every_piece(make_config: Make, corpus: Path, tmp_path: Path, many_pieces):
    root = shutil.copytree(corpus, tmp_path / "corpus")
    before = run(make_config(root=root), until="features").artifact("features")
    Image.fromarray(picture(99, (72, 96))[0]).save(root / "images/train/00a.png")
    (root / "images/train/04.png").rename(root / "images/train/renamed.png")
    after = run(make_config(root=root), until="features").artifact("features")
    assert after.manifest["copied"] == before.manifest["items"] == after.manifest["items"] - 1
    assert after.manifest["copied_from"] == [before.fingerprint]

    def by_content(artifact) -> dict:
        rows = view_pieces(artifact).read().to_pylist()
        tokens = Tokens(artifact).read(np.arange(len(rows)))
        return {(row["sha256"], row["mirrored"]): tokens[row["view"]] for row in rows}

    old, new = by_content(before), by_content(after)
    assert len(new) == len(old) + 1
    for key in old:
        assert np.array_equal(old[key], new[key])


def test_training_views_are_a_sample_of_a_large_corpus(make_config: Make, many_pieces, monkeypatch):
    artifact = run(make_config(), until="features").artifact("features")
    every = training_views(artifact).tolist()
    table = view_pieces(artifact).read()
    assert every == np.flatnonzero(np.asarray(table["training"])).tolist()
    assert len(every) == 6
    some = training_views(artifact, 4).tolist()
    assert some == training_views(artifact, 4).tolist() == sorted(set(some) & set(every))
    assert len(some) == 4
    monkeypatch.setattr(features, "PIECES", 1)
    within = training_views(artifact, 4).tolist()
    assert len(set(np.asarray(table["image"])[within] // 3)) == 1, "of one piece"


def test_an_image_is_found_in_its_piece(make_config: Make, many_pieces):
    dataset = run(make_config(), until="dataset").artifact("dataset")
    images = Images(dataset)
    assert images.splits == {"train": range(6), "val": range(6, 10)}
    every = Ranges(range(10))
    for row in range(10):
        assert images.find(*images.name(row), every) == row
        assert images.find(*images.name(row), Ranges(range(row))) is None
    for split, id in (("val", "04.png"), ("train", "00.pn"), ("train", "zz"), ("a", "00.png"), ("zz", "00.png")):
        assert images.find(split, id, every) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=5), st.data())
def test_ranges_are_the_list_of_their_rows(gaps: list[tuple[int, int]], data):
    ranges, at = [], 0
    for gap, length in gaps:
        ranges.append(range(at + gap, at + gap + length))
        at += gap + length
    rows, plain = Ranges(*ranges), [row for one in ranges for row in one]
    assert list(rows) == plain
    assert [rows[n] for n in range(-len(plain), len(plain))] == plain + plain
    start, stop = (data.draw(st.integers(-1, len(plain) + 1)) for _ in range(2))
    assert list(rows[start:stop]) == plain[start:stop]
    assert all(rows[bisect_left(rows, row)] == row for row in plain)
    with pytest.raises(IndexError):
        rows[len(plain)]
