"""Names of one tree for another one."""

import numpy as np
import pytest

from pipeline.artifacts.annotation import naming
from pipeline.numerics.carry import carry
from pipeline.numerics.tree import ward


@pytest.fixture
def tree():
    rng = np.random.default_rng(5)
    return ward(rng.normal(size=(20, 4)), rng.integers(1, 9, 20))


def test_every_prototype_has_the_class_of_most_of_its_patches(tree):
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 50, (20, 4))
    groups = carry(tree, counts)
    named = [groups.get(node, 3) for node in naming(tree, groups)[:20].tolist()]
    assert named == counts.argmax(1).tolist()


def test_what_is_alike_is_one_name_and_nothing_is_none(tree):
    counts = np.zeros((20, 3), int)
    counts[:, 1] = 5
    assert carry(tree, counts) == {38: 1}
    counts[:, 2] = 9
    assert carry(tree, counts) == {}


def test_a_prototype_without_patches_goes_with_its_sibling(tree):
    counts = np.zeros((20, 3), int)
    counts[:, 0] = 5
    counts[int(tree.merges[0][0])] = 0
    assert carry(tree, counts) == {38: 0}
    assert carry(tree, np.zeros((20, 3), int)) == {}
