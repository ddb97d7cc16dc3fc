"""What is compared by eye has one colour."""

import numpy as np

from pipeline.numerics.palette import palette
from pipeline.report.colouring import colouring, tones

NO_OVERLAP = np.zeros((0, 3), np.int64)


def test_groups_have_the_colours_of_exported_masks():
    found = colouring(3, [], [], [], NO_OVERLAP)
    assert (found.colours == palette(3)).all()
    assert found.names == ["group 0", "group 1", "group 2"]


def test_a_class_has_the_colour_of_its_group_and_one_without_a_group_its_own():
    found = colouring(3, ["sky", "sea", "sand", "sun"], [2, -1, 0], [], NO_OVERLAP)
    assert found.classes.tolist() == [2, 3, 0, 4]
    assert found.names == ["sand", "group 1", "sky", "sea", "sun"]
    assert len({tuple(colour) for colour in found.colours.tolist()}) == 5


def test_the_baseline_is_paired_with_groups_by_overlap_one_to_one():
    overlap = np.array([[9, 8, 0], [10, 0, 1], [0, 0, 5]])
    assert colouring(3, [], [], [], overlap).baseline.tolist() == [1, 0, 2]


def test_the_baselines_classes_come_before_overlap():
    overlap = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9]])
    found = colouring(3, ["sky", "sea"], [0, 1, -1], [1, -1, 0], overlap)
    assert found.baseline.tolist() == [1, 2, 0], "cluster 0 is sea, 2 is sky; the last group is left for cluster 1"


def test_clusters_of_the_baseline_without_a_group_have_colours_of_their_own():
    found = colouring(1, [], [], [], np.array([[1], [5], [2]]))
    assert found.baseline.tolist() == [1, 0, 2]
    assert found.names == ["group 0", "k-means cluster 0", "k-means cluster 2"]
    assert len(found.colours) == 3


def test_ids_that_name_nothing_have_no_tone():
    ids = np.array([[0, 1, 2], [255, -1, 65535]], np.int32)
    assert tones(ids, np.array([4, 7])).tolist() == [[4, 7, -1], [-1, -1, -1]]
    assert tones(ids.astype(np.uint16), np.array([4, 7])).tolist() == [[4, 7, -1], [-1, -1, -1]]
