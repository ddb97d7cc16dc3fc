"""From named prototypes and points to a classifier."""

import time

import numpy as np
import pytest

from pipeline.numerics import classify
from pipeline.numerics.classify import logistic, trust
from pipeline.numerics.kmeans import nearest, normalise

D = 40


def blobs(centres: np.ndarray, count: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (count, D) around unit centres (k, D), and the number of each one's centre."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, len(centres), count)
    noise = generator.normal(size=(count, centres.shape[1])) / np.sqrt(centres.shape[1])
    return normalise(centres[label] + spread * noise).astype(np.float32), label


def centres(k: int, seed: int = 0) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(k, D))).astype(np.float32)


def says(found: tuple[np.ndarray, np.ndarray], codes: np.ndarray) -> np.ndarray:
    vectors, member = found
    return member[(codes @ vectors.T).argmax(1)]


def fit(
    vectors: np.ndarray, named: np.ndarray, points: np.ndarray, wanted: np.ndarray, group: np.ndarray | None = None
):
    """Every prototype is named for itself, unless told otherwise."""
    return classify.fit(vectors, named, np.arange(len(vectors)) if group is None else group, points, wanted)


NO_POINTS = np.zeros((0, D), np.float32), np.zeros(0, np.int64)


def test_names_alone_are_the_nearest_prototype():
    prototypes, named = centres(9), np.array([0, 0, 3, 3, -1, 1, 1, -1, 0])
    codes, _ = blobs(prototypes, 500, 1.5, 1)
    assert np.array_equal(says(fit(prototypes, named, *NO_POINTS), codes), named[nearest(codes, prototypes)[0]])


def test_nothing_said_is_no_classifier():
    vectors, member = fit(centres(4), np.full(4, -1), *NO_POINTS)
    assert (len(vectors), len(member)) == (0, 0)


def test_points_alone_tell_classes_apart():
    middle = centres(5)
    points, wanted = blobs(middle, 60, 1.0, 1)
    codes, truth = blobs(middle, 1000, 1.0, 2)
    found = fit(centres(9, 5), np.full(9, -1), points, wanted)
    assert (says(found, codes) == truth).mean() > 0.95
    assert found[0].shape == (5, D), "unnamed prototypes play no part"


def test_both_are_better_than_either():
    """Prototypes named by the half of classes, points of the other half and of one that was named wrongly."""
    middle = centres(6)
    codes, truth = blobs(middle, 2000, 1.2, 2)
    named = np.array([0, 1, 2, 3, 4, 4])  # the last is 5
    points, wanted = blobs(middle, 30, 1.2, 3)
    alone = (says(fit(middle, named, *NO_POINTS), codes) == truth).mean()
    few = (says(fit(middle, np.full(6, -1), points[:8], wanted[:8]), codes) == truth).mean()
    both = (says(fit(middle, named, points[:8], wanted[:8]), codes) == truth).mean()
    assert both > max(alone, few) - 0.02
    assert (says(fit(middle, named, points, wanted), codes) == truth).mean() > alone + 0.05


def test_one_point_changes_a_named_classifier_little():
    middle = centres(12)
    named = np.arange(12) % 3
    codes, truth = blobs(middle, 2000, 1.2, 2)
    before = says(fit(middle, named, *NO_POINTS), codes)
    after = says(fit(middle, named, codes[:1], (named[truth[:1]] + 1) % 3), codes)
    assert (before == after).mean() > 0.97
    assert after[0] == (named[truth[0]] + 1) % 3, "but what was clicked is what was said"


def test_points_of_one_side_alone_do_not_undo_the_names():
    """A person clicks what is wrong: here patches of one class, all where the names say the other."""
    middle = centres(2)
    codes, truth = blobs(middle, 3000, 2.5, 2)
    before = says(fit(middle, np.arange(2), *NO_POINTS), codes)
    wrong = np.flatnonzero((before != truth) & (truth == 0))
    right = (before == truth).mean()
    for count in (1, 2, 3, 5, 10):
        after = says(fit(middle, np.arange(2), codes[wrong[:count]], truth[wrong[:count]]), codes)
        assert (after == truth).mean() > right - 0.02, count


def test_a_class_without_evidence_wins_nothing():
    middle = centres(4)
    points, wanted = blobs(middle, 30, 1.0, 1)
    found = fit(middle, np.array([7, 7, 2, 2]), points[wanted < 2], wanted[wanted < 2])
    assert set(found[1]) == {0, 1, 2, 7}
    assert set(says(found, blobs(middle, 500, 2.0, 3)[0])) <= {0, 1, 2, 7}


def test_what_no_name_and_no_point_claims_has_no_class():
    middle = centres(6)
    named = np.array([0, -1, -1, -1, -1, -1])
    points, wanted = blobs(middle[1:2], 5, 0.3, 1)
    found = fit(middle, named, points, wanted + 4)
    codes, truth = blobs(middle, 1000, 0.5, 2)
    said = says(found, codes)
    assert (said[truth == 0] == 0).mean() > 0.95
    assert (said[truth == 1] == 4).mean() > 0.95
    assert (said[truth > 1] == -1).mean() > 0.95


def test_a_name_that_points_disagree_with_counts_less():
    middle = centres(4)
    points, wanted = middle[[0, 1, 1, 2]], np.array([5, 6, 6, 7])
    named, group = np.array([5, 5, 7, -1]), np.array([10, 10, 12, 3])
    found = trust(middle, named, group, points, wanted)
    assert found.tolist() == [2 / 8, 2 / 8, 1, 1], "one of three points agrees with the first group"


@pytest.mark.parametrize("named", [[-1, -1, -1], [2, 2, 2]])
def test_one_class_wins_everywhere(named: list[int]):
    points = blobs(centres(3), 5, 1.0, 1)[0]
    found = fit(centres(3), np.array(named), points, np.full(5, 2))
    assert set(says(found, blobs(centres(3), 50, 1.0, 2)[0])) == {2}


def test_it_is_the_same_every_time_and_in_any_order():
    middle = centres(6)
    points, wanted = blobs(middle, 40, 1.0, 1)
    order = np.random.default_rng(3).permutation(40)
    one, two = (fit(middle, np.arange(6), points[rows], wanted[rows]) for rows in (np.arange(40), np.arange(40)))
    assert np.array_equal(one[0], two[0])
    codes = blobs(middle, 2000, 1.5, 2)[0]
    other = fit(middle, np.arange(6), points[order], wanted[order])
    assert (says(one, codes) == says(other, codes)).mean() > 0.995


def test_the_optimum_is_found():
    """Against scikit-learn's solver, which has no basis of rows and no weights of its own."""
    from sklearn.linear_model import LogisticRegression

    data, target = blobs(centres(4), 30, 1.0, 1)
    weight = np.linspace(0.2, 2, 30)
    ours = logistic(5.0 * data.astype(np.float64), target, weight, 2.0)
    theirs = LogisticRegression(C=1 / 2.0, fit_intercept=False, tol=1e-8, max_iter=5000)
    theirs.fit(5.0 * data.astype(np.float64), target, sample_weight=weight)
    assert np.allclose(ours, theirs.coef_, atol=0.02 * np.abs(ours).max())


def test_a_thousand_points_take_less_than_a_second():
    middle = normalise(np.random.default_rng(0).normal(size=(21, 454))).astype(np.float32)
    points, wanted = blobs(middle, 1000, 1.0, 1)
    prototypes, named = blobs(middle, 168, 1.0, 2)
    start = time.process_time()
    fit(prototypes, named, points, wanted)
    assert time.process_time() - start < 1
