"""The tree of prototypes: SciPy's Ward tree, groups kept together, what a cut says."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from pipeline.numerics.tree import Tree, cut, members, parents, shares, ward

RNG = np.random.default_rng(0)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labellings make the same groups."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a)) == len(set(b))


def planted(groups: int = 4, count: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return RNG.normal(size=(count, 6)), RNG.integers(1, 50, count), RNG.permutation(np.arange(count) % groups)


def test_of_single_tokens_it_is_scipys_tree():
    points = RNG.normal(size=(30, 5))
    tree, wanted = ward(points, np.ones(30, int)), linkage(points, "ward")
    np.testing.assert_array_equal(tree.merges, np.sort(wanted[:, :2].astype(int), 1))
    loss = np.square(wanted[:, 2]) / 2
    np.testing.assert_allclose(tree.heights, np.cumsum(loss) / loss.sum())
    for n in (1, 2, 7, 30):
        assert same(cut(tree, n).group, fcluster(wanted, n, "maxclust"))


def test_a_prototype_counts_by_its_tokens():
    """Merging prototypes of many tokens costs what merging the tokens one by one would."""
    means, sizes, _ = planted(count=6)
    tokens = ward(np.repeat(means, sizes, axis=0), np.ones(sizes.sum(), int))
    owner = np.repeat(np.arange(6), sizes)
    for n in (2, 3, 5):
        assert same(cut(ward(means, sizes), n).group[owner], cut(tokens, n).group)


def test_the_cut_at_k_is_the_groups_that_were_given():
    means, sizes, groups = planted()
    tree = ward(means, sizes, groups)
    assert same(cut(tree, 4).group, groups)
    for n in range(1, 25):
        finer, coarser = cut(tree, max(n, 4)).group, cut(tree, min(n, 4)).group
        assert all(len(set(groups[finer == one])) == 1 for one in range(max(n, 4)))
        assert all(len(set(coarser[groups == one])) == 1 for one in range(4))
    assert (np.diff(tree.heights) >= 0).all()
    assert tree.heights[-1] == pytest.approx(1)


def test_cuts_are_nested_and_nodes_keep_their_numbers():
    means, sizes, groups = planted()
    tree = ward(means, sizes, groups)
    above = parents(tree)
    for n in range(2, 25):
        fine, coarse = cut(tree, n), cut(tree, n - 1)
        gone, new = set(fine.nodes) - set(coarse.nodes), set(coarse.nodes) - set(fine.nodes)
        assert (len(gone), len(new)) == (2, 1)
        assert {above[node] for node in gone} == new
    assert cut(tree, 1).nodes.tolist() == [46]
    assert above[46] == -1


def test_groups_stand_by_share():
    means, sizes, groups = planted()
    tree = ward(means, sizes, groups)
    found = cut(tree, 9)
    for position, node in enumerate(found.nodes.tolist()):
        np.testing.assert_array_equal(np.flatnonzero(found.group == position), members(tree, node))
        assert shares(tree)[node] == pytest.approx(sizes[found.group == position].sum() / sizes.sum())
    assert (np.diff(shares(tree)[found.nodes]) <= 0).all()
    equal = ward(means, np.full(24, 7))
    assert cut(equal, 24).nodes.tolist() == list(range(24))


def test_a_group_is_as_good_as_its_best_prototype():
    means, sizes, groups = planted()
    found = cut(ward(means, sizes, groups), 5)
    values = RNG.normal(size=(3, 2, 24))
    best = found.best(values)
    assert best.shape == (3, 2, 5)
    for position in range(5):
        np.testing.assert_array_equal(best[..., position], values[..., found.group == position].max(-1))
    np.testing.assert_array_equal(found.group[values.argmax(-1)], best.argmax(-1))


def test_prototypes_without_tokens_merge_first_and_break_nothing():
    means, sizes, _ = planted()
    sizes[[3, 8]] = 0
    tree = ward(means, sizes)
    assert np.isfinite(tree.heights).all()
    assert sorted(np.concatenate([members(tree, node) for node in cut(tree, 20).nodes])) == list(range(24))
    none = ward(np.zeros((3, 2)), np.zeros(3, int))
    assert shares(none).tolist() == [0] * 5


def test_one_prototype():
    tree = ward(np.ones((1, 3)), np.array([9]))
    assert tree.merges.shape == (0, 2)
    found = cut(tree, 1)
    assert (found.nodes.tolist(), found.group.tolist()) == ([0], [0])
    assert parents(tree).tolist() == [-1]


@pytest.mark.parametrize("n", [0, -1, 25])
def test_a_tree_has_as_many_groups_as_prototypes_at_most(n: int):
    means, sizes, _ = planted()
    with pytest.raises(ValueError, match="24 prototypes"):
        cut(Tree(*ward(means, sizes)), n)
