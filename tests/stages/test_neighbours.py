"""Nearest views of other images: against brute force, exact and with an IVF index."""

import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest

from pipeline.api import open_features, run
from pipeline.numerics.kmeans import normalise
from pipeline.stages.neighbours import RECALL, build_index, search_others


def vectors(n: int, channels: int = 16, groups: int = 0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, channels))
    if groups:
        values = 2 * rng.normal(size=(groups, channels))[rng.integers(0, groups, n)] + values
    return normalise(values)


def brute_force(values: np.ndarray, images: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    found, similarity = np.full((len(values), k), -1), np.full((len(values), k), np.nan)
    for i, value in enumerate(values):
        cosines = [(float(value @ other), j) for j, other in enumerate(values) if images[j] != images[i]]
        for rank, (cosine, j) in enumerate(sorted(cosines, reverse=True)[:k]):
            found[i, rank], similarity[i, rank] = j, cosine
    return found, similarity


def most(images: np.ndarray) -> int:
    return int(np.bincount(images).max())


@pytest.mark.parametrize(
    ("n", "of_each", "k"),
    [(60, 1, 7), (60, 5, 7), (60, 5, 50), (6, 3, 7), (4, 4, 2), (1, 1, 7), (3, 1, 7)],
)
def test_exact_search_is_brute_force(n: int, of_each: int, k: int):
    values, images = vectors(n), np.arange(n) // of_each
    index, facts = build_index(values, exact_below=1000)
    assert facts == {"index": "exact", "recall": 1.0}
    found, similarity = search_others(index, values, images, k, most(images))
    wanted, cosines = brute_force(values, images, k)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(similarity, cosines, atol=1e-5)


def test_one_image_with_many_views():
    """The views of the largest image must not push the others' out of the candidates."""
    images = np.array([0] * 40 + [1, 2, 3])
    values = vectors(43)
    values[:40] = normalise(values[:1] + 0.01 * values[:40])  # each other's nearest by far
    found, _ = search_others(build_index(values, 100)[0], values, images, 3, most(images))
    assert set(map(frozenset, found[:40].tolist())) == {frozenset({40, 41, 42})}


def test_more_views_than_one_block():
    values = vectors(4500, channels=4)
    images = np.arange(4500) // 2
    found, _ = search_others(build_index(values, 10_000)[0], values, images, 2, 2)
    rows = np.array([0, 4095, 4096, 4499])
    cosines = values[rows] @ values.T
    cosines[images[rows][:, None] == images] = -2
    np.testing.assert_array_equal(found[rows], np.argsort(-cosines, 1)[:, :2])


def test_an_ivf_index_reaches_its_recall():
    values = vectors(3000, groups=30)
    index, facts = build_index(values, exact_below=0)
    assert facts["index"] == f"ivf{int(4 * np.sqrt(3000))}"
    assert RECALL <= facts["recall"] <= 1
    assert 1 <= facts["nprobe"] < 219, "a share of the lists, or it would be an exact search"
    exact = faiss.knn(values, values, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    got = index.search(values, 10)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(got, exact, strict=True)])
    assert recall == pytest.approx(facts["recall"], abs=0.02), "what was measured holds for all of them"


def test_an_ivf_index_finds_views_of_other_images():
    values, images = vectors(2000, groups=20), np.arange(2000) // 5
    index, facts = build_index(values, exact_below=1999)
    assert facts["index"].startswith("ivf")
    found, similarity = search_others(index, values, images, 7, 5)
    assert not (images[np.maximum(found, 0)] == images[:, None])[found >= 0].any()
    assert (found >= 0).mean() > 0.99
    assert np.isnan(similarity[found < 0]).all()
    exact = search_others(build_index(values, 2000)[0], values, images, 7, 5)[0]
    assert np.mean([len(set(a) & set(b)) / 7 for a, b in zip(found, exact, strict=True)]) > 0.96


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_an_ivf_index_of_very_few_views(n: int):
    values = vectors(n)
    index, facts = build_index(values, exact_below=0)
    assert facts["recall"] >= RECALL
    found, _ = search_others(index, values, np.arange(n), 3, 1)
    np.testing.assert_array_equal(found, brute_force(values, np.arange(n), 3)[0])


def test_the_same_vectors_give_the_same_index():
    values = vectors(1500, groups=10)
    one, other = (build_index(values, 0)[0] for _ in range(2))
    for mine, theirs in zip(one.search(values, 5), other.search(values, 5), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# The stage ------------------------------------------------------------------------------------------------------------


def test_the_stage_is_brute_force_on_centred_pooled_features(make_config):
    for center in ("dataset", "none"):
        config = make_config(
            neighbours={"k": 3}, head={"center": center}, features={"views": {"kind": "crops", "size": [64, 64]}}
        )
        result = run(config)
        table = result.artifact("neighbours").read_table("neighbours.parquet")
        opened = result.features
        rows = np.flatnonzero(np.asarray(opened.views["training"]))
        assert table["view"].to_pylist() == rows.tolist()
        mean = np.asarray(opened.tokens[:], np.float32).mean((1, 2))[rows]
        values = normalise(mean - opened.center if center == "dataset" else mean)
        images = np.asarray(opened.views["image"])[rows]
        wanted, cosines = brute_force(values, images, 3)
        found = np.asarray(table["similarities"].to_pylist())
        np.testing.assert_allclose(found, cosines, atol=5e-3)
        assert np.mean(np.asarray(table["neighbours"].to_pylist()) == rows[wanted]) > 0.9, "but for near ties"


def test_a_copy_of_an_image_is_not_its_neighbour(make_config, corpus: Path, tmp_path: Path):
    root = tmp_path / "copies"
    for name in ("00.png", "01.png", "02.png"):
        for copy in ("a", "b"):
            target = root / copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(corpus / "images/train" / name, target)
    config = make_config(root=root, neighbours={"k": 7})
    result = run(config, stage="dataset") and run(config, stage="features") and run(config, stage="neighbours")
    table = result.artifact("neighbours").read_table("neighbours.parquet")
    content = open_features(config.store).views["sha256"].to_pylist()
    for view, near in zip(table["view"].to_pylist(), table["neighbours"].to_pylist(), strict=True):
        assert len(near) == 4
        assert content[view] not in {content[other] for other in near}


def test_the_search_says_how_it_was_made(finished):
    manifest = finished.artifact("neighbours").manifest
    assert (manifest["index"], manifest["recall"], list(manifest["files"])) == ("exact", 1.0, ["neighbours.parquet"])
