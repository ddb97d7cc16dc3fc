"""Colours are fixed, distinct and never dark; ignored pixels are black in a map."""

import numpy as np
import pytest

from pipeline.numerics.palette import colourise, palette

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
MASK = np.array([[0, 1, 2, 255], [2, 1, 0, 0], [255, 255, 1, 1]], np.uint8)


@pytest.mark.parametrize("k", [0, 1, 3, 7, 8, 27, 256, 2048])
def test_colours_are_distinct_and_a_beginning_of_the_longer_list(k):
    colours = palette(k)
    assert colours.shape == (k, 3)
    assert colours.dtype == np.uint8
    assert len({tuple(colour) for colour in colours.tolist()} - {(0, 0, 0)}) == k
    assert np.array_equal(colours[:256], palette(256)[:k])


def test_colours_are_fixed():
    assert palette(9).tolist()[:2] == [[230, 159, 0], [86, 180, 233]]
    assert palette(9).tolist()[7:] == [[153, 0, 255], [153, 0, 102]]


def test_colours_are_far_apart():
    def nearest(k):
        colours = palette(k).astype(int)
        distances = np.abs(colours[:, None] - colours[None]).max(-1) + 999 * np.eye(k, dtype=int)
        return distances.min()

    assert nearest(27) >= 40
    assert nearest(256) >= 17


@pytest.mark.parametrize("k", [-1, 2049])
def test_impossible_number(k):
    with pytest.raises(ValueError, match="2048 are possible"):
        palette(k)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_map(dtype):
    colours = palette(3)
    mask = MASK.astype(dtype)
    if dtype == np.uint16:
        mask[mask == 255] = 65535
    if dtype == np.int32:
        mask[mask == 255] = -1
    painted = colourise(mask, colours)
    assert painted.dtype == np.uint8
    for at in np.ndindex(MASK.shape):
        assert painted[at].tolist() == ([0, 0, 0] if MASK[at] == 255 else colours[MASK[at]].tolist())


def test_255_is_a_cluster_among_more():
    colours = palette(300)
    assert np.array_equal(colourise(np.array([[255, 299]], np.uint16), colours)[0], colours[[255, 299]])
