"""Where a person should look next."""

import numpy as np
import pytest

from pipeline.numerics.proposals import doubt, propose


def test_doubt_is_one_less_the_margin():
    found = doubt(np.array([[0.5, 0.5, -np.inf], [1.0, -1.0, -np.inf], [0.2, 0.1, 0.2]]))
    assert found[0] == pytest.approx(1)
    assert found[1] < 1e-6
    assert found[2] == pytest.approx(1)
    assert doubt(np.ones((4, 5, 1))).tolist() == np.zeros((4, 5)).tolist()


def drawn(**changes) -> np.ndarray:
    """How often each of four images with ten patches is among two."""
    doubts, image = np.full(40, 0.1), np.repeat(np.arange(4), 10)
    facts = {"doubts": doubts, "image": image, "cell": image, "seen": np.zeros(4), "points": np.zeros(4)} | changes
    counts = np.zeros(4)
    for seed in range(300):
        found = propose(**facts, most=2, seed=seed)
        assert len(set(found.tolist())) == 2
        counts[found] += 1
    return counts / 300


def test_every_image_has_a_chance_and_doubtful_ones_more():
    doubts = np.full(40, 0.1)
    doubts[:10] = 0.5
    found = drawn(doubts=doubts)
    assert found[0] > 0.9
    assert found[1:].min() > 0.1


def test_what_was_clicked_or_shown_before_comes_later():
    assert drawn(points=np.array([8, 0, 0, 0]))[0] < 0.25
    assert drawn(seen=np.array([2, 0, 0, 0]))[0] < 0.1


def test_the_same_seed_gives_the_same_images():
    facts = (
        np.random.default_rng(0).random(40),
        np.repeat(np.arange(4), 10),
        np.zeros(40, int),
        np.zeros(4),
        np.zeros(1),
    )
    assert np.array_equal(propose(*facts, 3, 7), propose(*facts, 3, 7))
    assert sorted(propose(*facts, 9, 7).tolist()) == [0, 1, 2, 3]
