"""Named cuts, borders and ten lines of colour: by hand, and against cuts that are computed afresh."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.api import run
from pipeline.config import PipelineConfig
from pipeline.cuts import cut_maps
from pipeline.numerics.metrics import confusion, scores
from pipeline.numerics.tree import cut, ward

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import quality_colour
from quality_named import Labelled, coarser, majority, named, named_cuts, near_border, share, worth


def test_coarser_counts_are_those_of_the_coarser_cut():
    rng = np.random.default_rng(0)
    tree = ward(rng.normal(size=(30, 4)), rng.integers(1, 9, 30))
    prototype, label = rng.integers(0, 31, 5000), rng.integers(0, 5, 5000)  # 30 is no prototype
    for n in (1, 10, 25):
        fine, coarse = (np.append(cut(tree, size).group, size)[prototype] for size in (25, n))
        counts = confusion(fine, label, 25, 5)
        expected = confusion(coarse, label, n, 5)
        assert np.array_equal(coarser(counts, cut(tree, 25), cut(tree, n)), expected)
        assert np.array_equal(coarser(counts[:-1], cut(tree, 25), cut(tree, n)), expected[:-1])
    counts = confusion(np.append(cut(tree, 25).group, 25)[prototype], label, 25, 5)
    curve = named_cuts(tree, cut(tree, 25), counts[:-1], counts)
    assert list(curve) == ["10", "25"]
    assert curve["25"] == scores(counts, counts[:-1].argmax(1))["miou"]


def test_groups_are_named_by_training_labels_alone():
    train = np.array([[9, 1], [0, 3], [0, 0]])
    assert majority(train).tolist() == [0, 1, -1], "nothing names a group that no training token is in"
    val = np.array([[40, 10], [30, 20], [10, 0], [0, 0]])
    assert named(train, val) == pytest.approx((100 * 40 / 90 + 100 * 20 / 60) / 2)


def test_the_share_is_the_area_over_the_logarithm():
    assert share({"10": 20.0, "100": 40.0}, 10.0, 50.0) == pytest.approx(50)
    first, second = np.log(5), np.log(2)  # from 10 to 50, from 50 to 100
    mean = (20 * first + 40 * second) / np.log(10)
    assert share({"10": 20.0, "50": 20.0, "100": 60.0}, 10.0, 50.0) == pytest.approx(100 * (mean - 10) / 40)
    assert share({"10": 20.0, "50": None}, 10.0, 50.0) is None
    assert share({"10": 20.0, "50": 30.0}, 50.0, 50.0) is None
    assert share({"10": 20.0, "50": 30.0}, 10.0, None) is None


def test_a_border_is_five_pixels_wide_at_each_side():
    label = np.zeros((30, 30), np.uint8)
    assert not near_border(label).any()
    label[:, 10:] = 1
    assert np.flatnonzero(near_border(label).all(0)).tolist() == list(range(5, 15))
    assert near_border(label).sum() == 10 * 30
    label[20:] = 255
    assert near_border(label)[15:25].all(), "pixels to ignore have a border"


def test_colour_and_contrast_of_a_pixel():
    image = np.full((100, 200, 3), (255, 0, 51), np.uint8)
    image[:, 100:] = np.where(np.indices((100, 100)).sum(0)[..., None] % 2, 60, 0)
    found = quality_colour.colours(image)
    assert found.shape == (100, 200, 4)
    assert found.dtype == np.float32
    assert found[50, 30] == pytest.approx([1, 0, 0.2, 0], abs=1e-3)
    assert found[50, 170, 3] == pytest.approx(30 / 255, rel=0.02), "half of the step between the squares"
    blobs = found[::3, ::3].reshape(-1, 4)
    centroids = quality_colour.kmeans(blobs, 2, 0)
    nearest = np.linalg.norm(blobs[:, None] - centroids, axis=-1).argmin(1)
    assert np.array_equal(quality_colour.groups(blobs, centroids), nearest)
    sides = nearest.reshape(34, 67)
    assert len({*sides[:, :30].ravel()}) == len({*sides[:, 37:].ravel()}) == 1
    assert sides[0, 0] != sides[0, -1]


def test_one_map_of_an_image_serves_all_cuts(make_config: Callable[..., PipelineConfig]):
    found = run(
        make_config(clusters={"prototypes": 30}, masks={"upsampling": "bilinear", "crf": False}), until="scores"
    )
    data = Labelled(found)
    assert (len(data.train), len(data.val)) == (6, 4)
    tree, fine = found.clusters.tree, cut(found.clusters.tree, 25)
    counts = data.counts(data.val, cut_maps(found.store, found.record, 25).read, 25)
    afresh = data.counts(data.val, cut_maps(found.store, found.record, 10).read, 10)
    assert np.array_equal(coarser(counts, fine, cut(tree, 10)), afresh)
    result = worth(found, data, found)
    assert result["named"]["10"] == named(coarser(data.training_counts(fine), fine, cut(tree, 10)), afresh)
    patches = data.training_counts(fine)
    assert patches.sum() == pytest.approx(6 * 16, abs=1), "every patch of six images, none of them ignored"

    # Borders: of all pixels the run's own score comes out, of those near a border the counts of these alone.
    matching = np.asarray(found.scores.cluster.matching)
    assert scores(data.counts(data.val, found.masks.read, 4), matching)["miou"] == found.scores.cluster.miou
    band = data.counts(data.val, found.masks.read, 4, near_border)
    assert band.sum() == sum(int(near_border(data.label(row)).sum()) for row in data.val)
    assert result["boundary"] == scores(band, matching)["miou"]


def test_what_a_tree_lacks_is_not_there(make_config: Callable[..., PipelineConfig]):
    found = run(make_config(masks={"crf": False}), until="scores")
    result = worth(found, Labelled(found), found)
    assert (result["named"], result["share"]) == ({}, None)
    assert result["boundary"] > 0


def test_a_finer_tree_of_the_same_head_names_cuts(make_config: Callable[..., PipelineConfig]):
    """It was made up to its masks alone: labels are those of the run that is scored."""
    found = run(make_config(masks={"crf": False}), until="scores")
    finer = run(make_config(masks={"crf": False}, clusters={"prototypes": 30}), until="masks")
    assert not finer.has("labels")
    result = worth(found, Labelled(found), finer)
    assert 0 < result["named"]["10"] <= 100
