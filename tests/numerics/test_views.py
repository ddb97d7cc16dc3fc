"""Windows, bilinear matrices and merging, against loops, torch and known maps."""

from fractions import Fraction
from itertools import pairwise, product
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.numerics.tree import Cut
from pipeline.numerics.views import (
    Window,
    area_fractions,
    bilinear,
    cosine_logits,
    merge,
    resize_matrix,
    upsample,
    windows,
    winner,
)

RNG = np.random.default_rng(0)
ALONE = Cut(np.arange(4), np.arange(4))
"""Each of four prototypes a group of its own."""
SIDES = st.integers(1, 700)
SIZES = st.tuples(st.integers(4, 20), st.integers(4, 20)).map(lambda n: (n[0] * 16, n[1] * 16))


# Windows --------------------------------------------------------------------------------------------------------------


def test_whole():
    assert windows("whole", 427, 640, (64, 64), 0.5) == [Window(0, 0, 427, 640)]


@pytest.mark.parametrize(
    ("height", "width", "wanted"),
    [
        (480, 640, [(0, 0), (0, 320), (240, 0), (240, 320), (120, 160)]),
        (427, 641, [(0, 0), (0, 321), (214, 0), (214, 321), (107, 160)]),  # halves rounded to even: 160.5
        (1, 1, [(0, 0)] * 5),
    ],
)
def test_crops_are_stegos(height: int, width: int, wanted: list[tuple[int, int]]):
    """Top left, top right, bottom left, bottom right, centre; int(0.5 · side) each."""
    found = windows("crops", height, width, (64, 64), 0.25)
    assert [(w.y0, w.x0) for w in found] == wanted
    assert {w[2:] for w in found} == {(max(1, height // 2), max(1, width // 2))}


@given(SIDES, SIDES)
def test_crops_cover_all_but_the_middle_line(height: int, width: int):
    """Of an odd side, int(0.5 · side) leaves one middle line to the centre crop, which does not reach the borders."""
    covered = np.zeros((height, width), bool)
    for y0, x0, h, w in windows("crops", height, width, (64, 64), 0.25):
        assert y0 >= 0
        assert x0 >= 0
        assert y0 + h <= height
        assert x0 + w <= width
        covered[int(y0) : int(y0 + h), int(x0) : int(x0 + w)] = True
    rows, columns = np.nonzero(~covered)
    assert all((rows == height // 2) & (height % 2 == 1) | (columns == width // 2) & (width % 2 == 1))
    assert covered.mean() >= 1 - 1 / height - 1 / width


def check_line(starts: list[float], window: float, length: int, overlap: float) -> None:
    """Windows along one direction: inside, from end to end, neighbours sharing `overlap` to within a pixel."""
    assert starts[0] == 0
    assert starts[-1] + window == pytest.approx(length, abs=1e-6)
    assert starts[-1] + window <= length + 1e-6, "Pillow refuses a window that leaves the image"
    for one, other in pairwise(starts):
        assert 0 < other - one <= window * (1 - overlap) + 1


@given(SIDES, SIDES, SIZES, st.floats(0, 0.75))
@settings(max_examples=300)
def test_sliding_windows_cover_every_pixel(height: int, width: int, size: tuple[int, int], overlap: float):
    found = windows("sliding", height, width, size, overlap)
    tall, wide = found[0].height, found[0].width
    assert {w[2:] for w in found} == {(tall, wide)}
    rows, columns = (sorted({w[axis] for w in found}) for axis in (0, 1))
    assert [(w.y0, w.x0) for w in found] == list(product(rows, columns))
    check_line(rows, tall, height, overlap)
    check_line(columns, wide, width, overlap)
    assert tall / wide == pytest.approx(size[0] / size[1]), "one scale in both directions"
    if height >= size[0] and width >= size[1]:
        assert (tall, wide) == size
        assert all(start == int(start) for start in rows + columns), "native scale, whole pixels: no resampling"
    else:
        assert tall == pytest.approx(height) or wide == pytest.approx(width), "enlarged no more than it needs"


def test_a_window_that_just_fits():
    assert windows("sliding", 64, 64, (64, 64), 0.25) == [Window(0, 0, 64, 64)]
    assert len(windows("sliding", 65, 64, (64, 64), 0.25)) == 2
    assert len(windows("sliding", 112, 64, (64, 64), 0.25)) == 2  # a step of 48 pixels
    assert len(windows("sliding", 113, 64, (64, 64), 0.25)) == 3


# Bilinear -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 90))
@settings(deadline=None)
def test_resizing_is_torchs(n_in: int, n_out: int):
    values = np.random.default_rng(n_in).normal(size=n_in).astype(np.float32)
    wanted = F.interpolate(torch.from_numpy(values)[None, None], n_out, mode="linear", align_corners=False)[0, 0]
    np.testing.assert_allclose(resize_matrix(n_out, n_in) @ values, wanted, atol=1e-5)


@given(st.integers(1, 9), st.lists(st.floats(-5, 15), min_size=1, max_size=5))
def test_bilinear_weights(n: int, positions: list[float]):
    matrix = bilinear(np.asarray(positions), n)
    assert matrix.shape == (len(positions), n)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix @ np.arange(n), np.clip(positions, 0, n - 1), atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "columns", "height", "width"), [(3, 5, 17, 40), (8, 6, 5, 4), (1, 1, 4, 7), (4, 4, 4, 4)]
)
def test_upsampling_is_torchs(rows: int, columns: int, height: int, width: int):
    plane = RNG.normal(size=(rows, columns, 6)).astype(np.float32)
    wanted = F.interpolate(torch.from_numpy(plane).permute(2, 0, 1)[None], (height, width), mode="bilinear")[0]
    np.testing.assert_allclose(list(upsample(plane, height, width)), wanted, atol=1e-5)


def naive_logits(plane: np.ndarray, centroids: np.ndarray, height: int, width: int) -> np.ndarray:
    up = np.stack(list(upsample(plane, height, width)))
    return np.einsum("kd,dhw->khw", centroids, up / np.linalg.norm(up, axis=0))


@pytest.mark.parametrize(
    ("grid", "depth", "size"), [((4, 6), 9, (31, 50)), ((7, 3), 5, (6, 2)), ((3, 2), 1000, (13, 1000))]
)
def test_codes_are_upsampled_before_they_are_normalised(grid, depth, size):
    """The last case is wide enough to be done in several strips."""
    plane = RNG.normal(size=(*grid, depth)).astype(np.float32)
    centroids = RNG.normal(size=(4, depth)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    found = cosine_logits(plane, centroids, ALONE, *size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_logits(plane, centroids, *size), atol=1e-5)
    window = slice(size[0] // 3, size[0]), slice(1, size[1] // 2 + 1)
    np.testing.assert_allclose(cosine_logits(plane, centroids, ALONE, *size, window), found[:, *window], atol=1e-6)
    unit = plane / np.linalg.norm(plane, axis=-1, keepdims=True)
    other = np.stack(list(upsample(unit @ centroids.T, *size)))
    assert np.abs(found - other).max() > 0.01, "the other order would have to show"


def test_a_zero_code_is_no_nan():
    cut = Cut(np.arange(3), np.arange(3))
    assert (cosine_logits(np.zeros((2, 2, 3), np.float32), np.eye(3, dtype=np.float32), cut, 4, 4) == 0).all()


def test_a_pixel_of_a_group_has_the_cosine_to_its_best_prototype():
    plane, vectors = RNG.normal(size=(4, 3, 5)).astype(np.float32), np.eye(5, dtype=np.float32)[[0, 1, 2, 3]]
    each = cosine_logits(plane, vectors, ALONE, 40, 30)
    found = cosine_logits(plane, vectors, Cut(np.array([9, 3]), np.array([0, 0, 1, 0])), 40, 30)
    np.testing.assert_allclose(found, [each[[0, 1, 3]].max(0), each[2]], atol=1e-6)


# Merging --------------------------------------------------------------------------------------------------------------


def sampled_map(box: Window, rows: int, columns: int, value) -> np.ndarray:
    y = box.y0 + (np.arange(rows) + 0.5) * box.height / rows
    x = box.x0 + (np.arange(columns) + 0.5) * box.width / columns
    return value(y[:, None], x[None, :]).astype(np.float32)


def ramp(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(0.03 * y - 0.02 * x + 1, 0.01 * x + 0 * y), -1)


@pytest.mark.parametrize(
    ("height", "width", "overlap"),
    [(64, 64, 0.25), (150, 97, 0.25), (200, 333, 0.5), (70, 64, 0), (40, 190, 0.25), (33, 21, 0.1)],
)
def test_merged_windows_give_the_map_back(height: int, width: int, overlap: float):
    """A ramp, sampled in each window: exact away from windows' borders, and within half a token at them."""
    rows, columns = 8, 8
    boxes = windows("sliding", height, width, (64, 64), overlap)
    merged = merge(np.stack([sampled_map(box, rows, columns, ramp) for box in boxes]), boxes, height, width)
    token = boxes[0].height / rows
    assert merged.shape[:2] == (round(height / token), round(width / token)), "the views' own resolution"
    wanted = sampled_map(Window(0, 0, height, width), *merged.shape[:2], ramp)
    error = np.abs(merged - wanted)
    assert error.max() <= (0.03 + 0.02) * token / 2 + 1e-5
    y, x = ((np.arange(n) + 0.5) * side / n for n, side in zip(merged.shape[:2], (height, width), strict=True))
    far = np.ones(merged.shape[:2], bool)
    for box in boxes:
        for line, start, length, axis in ((y, box.y0, box.height, 0), (x, box.x0, box.width, 1)):
            for border in (start, start + length):
                far &= np.expand_dims(np.abs(line - border) > token / 2, 1 - axis)
    assert far.any()
    assert error[far].max() < 1e-5


def test_merging_weighs_by_the_distance_to_the_border():
    boxes = [Window(0, 0, 10, 10), Window(0, 5, 10, 10)]
    maps = np.stack([np.zeros((10, 10, 1)), np.ones((10, 10, 1))]).astype(np.float32)
    line = merge(maps, boxes, 10, 15)[4, :, 0]
    assert (line[:5] == 0).all()
    assert (line[10:] == 1).all()
    np.testing.assert_allclose(line[5:10], np.linspace(0.1, 0.9, 5), atol=1e-6)


def test_one_whole_view_comes_back_unchanged():
    view = RNG.normal(size=(1, 3, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(merge(view, [Window(0, 0, 50, 70)], 50, 70), view[0])


@given(SIDES.filter(lambda n: n > 15), SIDES.filter(lambda n: n > 15), SIZES, st.floats(0, 0.5))
@settings(max_examples=60)
def test_every_plane_position_is_covered(height: int, width: int, size: tuple[int, int], overlap: float):
    boxes = windows("sliding", height, width, size, overlap)
    ones = np.ones((len(boxes), 4, 4, 1), np.float32)
    np.testing.assert_allclose(merge(ones, boxes, height, width), 1, atol=1e-5)


# Label shares ---------------------------------------------------------------------------------------------------------


def naive_fractions(label: np.ndarray, box: Window, rows: int, columns: int, classes: int, ignore: int) -> np.ndarray:
    counts, pixels = np.zeros((rows, columns, classes)), np.zeros((rows, columns, 1))
    for y, x in np.ndindex(label.shape):
        row = floor((Fraction(2 * y + 1, 2) - Fraction(box.y0)) * rows / Fraction(box.height))
        column = floor((Fraction(2 * x + 1, 2) - Fraction(box.x0)) * columns / Fraction(box.width))
        if 0 <= row < rows and 0 <= column < columns:
            pixels[row, column] += 1
            if 0 <= label[y, x] < classes and label[y, x] != ignore:
                counts[row, column, label[y, x]] += 1
    return counts / np.maximum(pixels, 1)


@given(
    st.integers(1, 13),
    st.integers(1, 13),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([Window(0, 0, 13, 13), Window(2, 3, 5, 6), Window(0, 1, 4.5, 2.25), Window(-1, 0, 20, 9)]),
    st.sampled_from([255, 0, -1]),
)
@settings(max_examples=80)
def test_label_shares_against_a_loop(height, width, rows, columns, box, ignore):
    label = np.random.default_rng(height * 100 + width).choice([0, 1, 2, 3, 7, 255, -1], (height, width))
    found = area_fractions(label, box, rows, columns, 4, ignore)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_fractions(label, box, rows, columns, 4, ignore), atol=1e-6)


def test_shares_of_small_label_types():
    """uint8 labels must not wrap round where a cell's number passes 255."""
    label = np.full((64, 64), 3, np.uint8)
    assert (area_fractions(label, Window(0, 0, 64, 64), 20, 20, 4, 255)[..., 3] == 1).all()


def test_the_winner_is_the_first_of_the_largest():
    maps = RNG.integers(0, 3, (5, 150, 7)).astype(np.float32)  # full of ties
    np.testing.assert_array_equal(winner(maps), maps.argmax(0))
    np.testing.assert_array_equal(winner(iter(maps)), maps.argmax(0))
    assert winner(maps[:, :0]).shape == (0, 7)
