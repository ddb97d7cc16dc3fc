"""How many clusters are suggested, what reads the suggestion, and what a given K leaves alone."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.api import run
from pipeline.artifacts.clusters import read_clusters
from pipeline.config import PipelineConfig
from pipeline.core.store import Store
from pipeline.numerics.kmeans import effective_groups, group_counts, likely_groups, normalise
from pipeline.planning import nodes, plan
from pipeline.stages import suggestion
from pipeline.stages.suggestion import agreements, curve_ks, peaks

Make = Callable[..., PipelineConfig]
RNG = np.random.default_rng(0)
BORROWING = {"head": {"method": "stegoflow"}}


def planted(groups: int, views: int = 30, each: int = 60, noise: float = 0.3) -> np.ndarray:
    """Tokens (view, each, 64) around orthogonal directions, each view with all of them."""
    directions = np.linalg.qr(RNG.normal(size=(64, 64)))[0][:groups]
    member = RNG.integers(groups, size=(views, each))
    return normalise(directions[member] + noise * RNG.normal(size=(views, each, 64)) / 8)


@pytest.mark.parametrize("groups", [2, 5, 12])
def test_planted_groups_are_counted_and_most_stable(groups: int):
    vectors = planted(groups)
    assert groups * 0.98 < effective_groups(vectors) < groups * 1.2, "noise adds a little"
    ks = sorted({*curve_ks(20, 400), groups})
    curve = agreements(vectors, ks, 0)
    at = ks.index(groups)
    assert curve[at] > 0.95
    assert curve[at] > curve[at + 1] > curve[at + 2], "more are cut at random"
    assert at == 0 or curve[at] > curve[at - 1], "one fewer joins two at random"


@pytest.mark.parametrize("views", [12, 24, 96])
def test_k_does_not_follow_the_number_of_images(views: int):
    """Every image has four of 24 groups: all images have some 24, and one has four, however many there are."""
    directions = np.linalg.qr(RNG.normal(size=(64, 64)))[0][:24]
    own = np.stack([RNG.choice(24, 4, replace=False) for _ in range(views)])
    vectors = directions[np.take_along_axis(own, RNG.integers(4, size=(views, 60)), 1)]
    vectors = normalise(vectors + 0.3 * RNG.normal(size=vectors.shape) / 8)
    groups, within = group_counts(vectors)
    assert 18 < groups < 34
    assert 3.5 < within < 5
    assert 8 <= likely_groups(vectors) <= 12


def test_tokens_without_structure_agree_by_chance_alone():
    vectors = normalise(RNG.normal(size=(30, 60, 64)))
    assert abs(agreements(vectors, [6], 0)[0]) < 0.2


def test_the_numbers_on_the_curve():
    found = curve_ks(48, 10_000)
    assert found[:7] == list(range(2, 9))
    assert found == sorted(set(found))
    assert 36 <= found[-1] <= 48
    assert curve_ks(48, 5) == [2, 3, 4, 5]
    assert curve_ks(48, 1) == []


def test_the_highest_peaks():
    assert peaks([2, 3, 4, 5, 6, 7], [0.9, 0.5, 0.7, 0.6, 0.6, 0.8]) == [(2, 0.9), (7, 0.8), (4, 0.7)]
    assert peaks([2, 3], [0.5, 0.5]) == peaks([], []) == []


@pytest.mark.parametrize("method", ["stegoflow", "smooseg", "cause", "primaps", "stego"])
def test_a_run_without_k(method: str, make_config: Make):
    """Masks, baseline and report have the suggested number; the head that needs it has it in its file."""
    config = make_config(head={"method": method}, clusters={"k": None}, suggestion={"highest": 6, "draws": 2})
    result = run(config)
    artifact = result.artifact("suggestion")
    k = artifact.read_json("suggestion.json")["k"]
    facts = artifact.manifest
    assert k == facts["k"] == round((facts["groups"] * facts["within"]) ** 0.5)
    assert 1 <= facts["within"] <= facts["groups"] * 1.5
    assert 2 <= k <= 64
    curve = artifact.read_table("curve.parquet")
    assert curve["k"].to_pylist() == [2, 3, 4, 5, 6]
    assert all(-0.5 <= value <= 1 for value in curve["stability"].to_pylist())
    assert result.artifact("masks").manifest["clusters"] == k
    assert len(read_clusters(result.artifact("baseline")).vectors) == k
    html = result.artifact("report").read("report.html").decode()
    assert f"<b>K = {k}</b> was suggested" in html
    assert "The highest peaks" in html
    reads = "suggestion" in result.artifact("head").manifest["inputs"]
    assert reads == (method not in ("stego", "stegoflow")), "a head that needs no K does not wait for one"
    assert {row.status for row in run(config).stages} == {"reused"}


def test_two_runs_suggest_the_same(make_config: Make, tmp_path):
    found = []
    for name in ("a", "b"):
        config = make_config(store=tmp_path / name, clusters={"k": None}, suggestion={"highest": 5})
        artifact = run(config, until="suggestion").artifact("suggestion")
        found.append((artifact.read_json("suggestion.json"), artifact.read_table("curve.parquet").to_pylist()))
    assert found[0] == found[1]


def test_new_images_through_a_run_without_k(make_config: Make):
    """`segment` takes head and clusters as they are."""
    config = make_config(clusters={"k": None}, suggestion={"highest": 3})
    names = {node.stage.name: node.fingerprint for node in nodes(config, Store(config.store))}
    pinned = {name: names[name] for name in ("head", "clusters")}
    assert {node.stage.name for node in nodes(config, Store(config.store), pins=pinned)} >= {"features", "masks"}


def test_a_given_k_leaves_the_stage_out(make_config: Make):
    config = make_config(**BORROWING, clusters={"k": 3})
    assert "suggestion" not in {node.stage.name for node in nodes(config, Store(config.store))}


def test_plan_says_what_a_number_instead_of_the_suggestion_runs(make_config: Make):
    run(make_config(**BORROWING, clusters={"k": None}, suggestion={"highest": 3}))
    rows = {row.stage: row.action for row in plan(make_config(**BORROWING, clusters={"k": 3}))}
    again = {name for name, action in rows.items() if action == "run"}
    assert again == {"clusters", "baseline", "masks", "scores", "report"}
    assert "suggestion" not in rows


def test_few_and_broken_images(make_config: Make, tmp_path, corpus):
    """One image of two can be decoded."""
    root = tmp_path / "few"
    root.mkdir()
    first = sorted((corpus / "images/train").iterdir())[0]
    (root / "a.png").write_bytes(first.read_bytes())
    (root / "b.png").write_bytes(b"no picture")
    config = make_config(
        root=root, head={"method": "none"}, clusters={"k": None}, features={"max_failed_fraction": 0.5}
    )
    result = run(config)
    k = result.artifact("suggestion").manifest["k"]
    assert 1 <= k <= suggestion.EACH
    assert result.artifact("masks").manifest["clusters"] == k
