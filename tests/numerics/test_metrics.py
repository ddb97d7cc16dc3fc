"""Metrics against the same definitions written as loops over pixels and permutations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.numerics.metrics import confusion, match, scores, stability, stego_crop

IGNORE = 3  # lies among the classes, so that it must be asked for by name


@st.composite
def labelled(draw):
    """(predicted, label, k, classes) with invalid predictions, ignored labels and any k."""
    k, classes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pixels = draw(st.lists(st.tuples(st.sampled_from([-1, *range(6), 255]), st.integers(-2, 6)), max_size=40))
    predicted, label = np.array(pixels, np.int64).reshape(-1, 2).T
    return predicted, label, k, classes


def count(predicted, label, k, classes, ignore):
    counts = [[0] * classes for _ in range(k + 1)]
    for p, c in zip(predicted.tolist(), label.tolist(), strict=True):
        if 0 <= c < classes and c != ignore:
            counts[p if 0 <= p < k else k][c] += 1
    return np.array(counts)


def matchings(k, classes):
    """Every one-to-one matching of min(k, classes) clusters, as tuples of k class ids or -1."""
    fillers = list(range(classes)) + [-1] * max(0, k - classes)
    return set(itertools.permutations(fillers, k))


@given(labelled(), st.sampled_from([None, IGNORE, 255]))
def test_confusion_counts_pixels(case, ignore):
    predicted, label, k, classes = case
    counts = confusion(predicted, label, k, classes, ignore)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, count(predicted, label, k, classes, ignore))


def test_confusion_of_maps_and_narrow_dtypes():
    predicted = np.array([[0, 1], [255, 2]], np.uint8)
    label = np.array([[0, 1], [1, 255]], np.int32)
    expected = [[1, 0], [0, 1], [0, 1]]
    assert confusion(predicted, label, 2, 2, 255).tolist() == expected
    assert confusion(predicted.astype(np.uint16), label.astype(np.uint8), 2, 2).tolist() == expected
    large = confusion(np.full(9, 200, np.uint8), np.full(9, 250, np.uint8), 255, 255)  # row · classes exceeds uint8
    assert large[200, 250] == large.sum() == 9
    with pytest.raises(ValueError, match="differ in shape"):
        confusion(predicted, label[:1], 2, 2)


@settings(max_examples=60)
@given(labelled())
def test_match_is_the_best_permutation(case):
    predicted, label, k, classes = case
    counts = confusion(predicted, label, k, classes)
    matching = match(counts)
    assert tuple(matching.tolist()) in matchings(k, classes)

    def value(m):
        return sum(counts[cluster, c] for cluster, c in enumerate(m) if c >= 0)

    assert value(matching) == max(map(value, matchings(k, classes)))


@given(labelled(), st.data())
def test_scores_are_the_definition(case, data):
    predicted, label, k, classes = case
    ids = st.integers(-1, classes - 1)
    matching = np.array(data.draw(st.lists(ids, min_size=k, max_size=k)), np.int64)  # many-to-one as well
    found = scores(confusion(predicted, label, k, classes, IGNORE), matching)

    pixels = [
        (int(matching[p]) if 0 <= p < k else -1, c)
        for p, c in zip(predicted.tolist(), label.tolist(), strict=True)
        if 0 <= c < classes and c != IGNORE
    ]
    matrix = np.zeros((classes, classes + 1), int)
    iou: list[float | None] = []
    for p, c in pixels:
        matrix[c, p] += 1  # -1 is the last column
    for c in range(classes):
        both = sum(p == c and t == c for p, t in pixels)
        either = sum(p == c or t == c for p, t in pixels)
        iou.append(100 * both / either if either else None)
    assert np.array_equal(found["confusion"], matrix)
    assert found["iou"] == iou
    if pixels:
        assert found["accuracy"] == pytest.approx(100 * sum(p == c for p, c in pixels) / len(pixels))
        assert found["miou"] == pytest.approx(np.mean([value for value in iou if value is not None]))
    else:
        assert found["accuracy"] is None
        assert found["miou"] is None


@given(labelled(), st.randoms())
def test_the_numbers_of_the_clusters_do_not_matter(case, random):
    predicted, label, k, classes = case
    order = list(range(k))
    random.shuffle(order)
    renamed = np.array([order[p] if 0 <= p < k else p for p in predicted.tolist()], np.int64)
    first, second = (confusion(p, label, k, classes) for p in (predicted, renamed))
    assert scores(first, match(first))["accuracy"] == scores(second, match(second))["accuracy"]


def test_extra_clusters_stay_in_the_metric():
    label = np.array([0, 0, 0, 0])
    predicted = np.array([0, 0, 0, 1])
    counts = confusion(predicted, label, 2, 1)
    assert match(counts).tolist() == [0, -1]
    found = scores(counts, match(counts))
    assert found["accuracy"] == found["miou"] == 75
    assert found["confusion"].tolist() == [[3, 1]]


def test_a_class_seen_nowhere_is_skipped():
    counts = confusion(np.array([0, 1]), np.array([0, 1]), 2, 3)
    found = scores(counts, match(counts))
    assert found["iou"] == [100, 100, None]
    assert found["miou"] == 100


@settings(max_examples=60)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=30))
def test_stability_is_the_best_renaming(k, pairs):
    a, b = np.array(pairs).T
    valid = [(p, q) for p, q in pairs if 0 <= p < k and 0 <= q < k]
    best = max(sum(order[p] == q for p, q in valid) for order in itertools.permutations(range(k)))
    assert stability(a, b, k) == stability(b, a, k) == best / len(pairs)
    order = np.random.default_rng(0).permutation(k)
    assert stability(a % k, order[a % k], k) == 1


def test_stability_of_nothing():
    with pytest.raises(ValueError, match="no items"):
        stability(np.array([], int), np.array([], int), 3)


@pytest.mark.parametrize(
    ("height", "width", "resized"),
    [
        (320, 320, (320, 320)),
        (427, 640, (320, 479)),
        (640, 427, (479, 320)),
        (1024, 2048, (320, 640)),
        (97, 101, (320, 333)),
        (200, 200, (320, 320)),
    ],
)
def test_the_stego_crop_is_the_centre(height: int, width: int, resized: tuple[int, int]):
    """Each pixel comes from where its centre lies in the image, to a rounding; nothing is mixed."""
    label = np.arange(height * width).reshape(height, width)
    crop = stego_crop(label)
    assert crop.shape == (320, 320)
    for axis, (side, whole) in enumerate(zip((height, width), resized, strict=True)):
        found = (crop // width, crop % width)[axis].astype(float).mean(1 - axis)
        wanted = (np.arange(320) + round((whole - 320) / 2) + 0.5) * side / whole
        assert np.abs(found + 0.5 - wanted).max() <= 0.5 + 1e-6


def test_the_stego_crop_keeps_what_is_not_scored():
    assert (stego_crop(np.full((50, 60), -1)) == -1).all()
