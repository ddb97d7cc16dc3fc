"""Guided upsampling against its definition, and what it is for: borders of masks at borders of the image."""

import numpy as np
import pytest

from pipeline.numerics import guided
from pipeline.numerics.guided import guided_logits, guided_winner, linear_models
from pipeline.numerics.tree import Cut
from pipeline.numerics.views import cosine_logits, winner

RNG = np.random.default_rng(0)


def alone(count: int) -> tuple[np.ndarray, Cut]:
    """Prototypes along the axes, each a group of its own."""
    return np.eye(count, dtype=np.float32), Cut(np.arange(count), np.arange(count))


def naive(guide: np.ndarray, value: np.ndarray, reach: tuple[int, int], eps: float) -> np.ndarray:
    """The definition (He et al., equations 17 to 19), window by window, windows mirrored at the border."""
    rows, columns = value.shape
    down = [np.pad(np.arange(rows), reach[0], mode="symmetric")[y : y + 2 * reach[0] + 1] for y in range(rows)]
    across = [np.pad(np.arange(columns), reach[1], mode="symmetric")[x : x + 2 * reach[1] + 1] for x in range(columns)]
    models = np.zeros((rows, columns, 4))
    for y in range(rows):
        for x in range(columns):
            colours = guide[np.ix_(down[y], across[x])].reshape(-1, 3)
            values = value[np.ix_(down[y], across[x])].ravel()
            spread = np.cov(colours.T, bias=True) + eps * np.eye(3)
            slope = np.linalg.solve(spread, ((values - values.mean())[:, None] * (colours - colours.mean(0))).mean(0))
            models[y, x] = [*slope, values.mean() - slope @ colours.mean(0)]
    means = [[models[np.ix_(down[y], across[x])].mean((0, 1)) for x in range(columns)] for y in range(rows)]
    return np.moveaxis(np.array(means), -1, 0)


def test_linear_models_are_those_of_the_definition():
    guide, values = RNG.random((7, 9, 3)), RNG.normal(size=(2, 7, 9)).astype(np.float32)
    found = linear_models(guide, values, (2, 1), 1e-3)
    assert found.dtype == np.float32
    for model, value in zip(found, values, strict=True):
        np.testing.assert_allclose(model, naive(guide, value, (2, 1), 1e-3), rtol=1e-4, atol=1e-4)


def two_sides(edge: int, size: tuple[int, int], grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image dark left of column `edge` and bright right of it, with noise; tokens are what they see most of."""
    image = np.where(np.arange(size[1]) < edge, 60, 180)[None, :, None] + RNG.integers(-9, 10, (*size, 3))
    left = (np.arange(grid[1]) + 0.5) * size[1] / grid[1] < edge
    plane = np.where(left[None, :, None], [1.0, 0.2], [0.2, 1.0]) * np.ones((*grid, 1))
    return image.astype(np.uint8), plane.astype(np.float32)


@pytest.mark.parametrize("edge", [65, 68, 72, 75])
def test_a_border_moves_to_the_edge_of_the_image(edge):
    """Tokens are 14 pixels wide: bilinear borders lie up to 7 pixels off."""
    image, plane = two_sides(edge, (112, 140), (8, 10))
    truth = np.broadcast_to(np.arange(140) >= edge, (112, 140))
    guided = winner(guided_logits(image, plane, *alone(2)))
    bilinear = winner(cosine_logits(plane, *alone(2), 112, 140))
    wrong = [(mask != truth).sum() / 112 for mask in (guided, bilinear)]  # columns
    assert wrong[1] >= 2, "bilinear upsampling would have to be off"
    assert wrong[0] <= 1


def test_without_edges_it_is_bilinear_upsampling_smoothed():
    """Codes that turn slowly hardly change, noise is smoothed."""
    flat = np.full((180, 140, 3), 128, np.uint8)
    angle = np.linspace(0, 1.5, 10)[None] * np.ones((12, 1))
    plane = np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)
    found, bilinear = np.stack(list(guided_logits(flat, plane, *alone(2)))), cosine_logits(plane, *alone(2), 180, 140)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :, 30:-30], bilinear[:, :, 30:-30], atol=0.03)
    noise = RNG.normal(size=plane.shape).astype(np.float32)
    smoothed = np.stack(list(guided_logits(flat, noise, *alone(2))))
    assert smoothed.std() < 0.7 * cosine_logits(noise, *alone(2), 180, 140).std()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 5)])
def test_images_smaller_than_the_coarse_grid(size):
    image = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = list(guided_logits(image, RNG.normal(size=(5, 4, 6)).astype(np.float32), *alone(6)))
    assert len(found) == 6
    assert all(one.shape == size and np.isfinite(one).all() for one in found)


def test_a_group_is_upsampled_as_the_best_of_its_prototypes():
    """As a prototype that the group's best one always is would be."""
    angle = np.linspace(0, 1.5, 5)[None] * np.ones((6, 1))
    plane = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1).astype(np.float32)
    image = RNG.integers(0, 256, (60, 50, 3), dtype=np.uint8)
    vectors = np.array([[0, 0, 1], [1, 0, 0], [-1, 0, 0]], np.float32)
    found = list(guided_logits(image, plane, vectors, Cut(np.array([0, 3]), np.array([0, 1, 1]))))
    wanted = list(guided_logits(image, plane, vectors[:2], Cut(np.arange(2), np.arange(2))))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 3, 40])
def test_groups_that_are_nowhere_near_are_left_out(groups: int):
    """Of a smooth plane, few of many groups are first or second anywhere; the winners are those of all maps."""
    plane = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 7), indexing="ij"), -1).astype(np.float32)
    angles = np.linspace(0, 2 * np.pi, groups, endpoint=False)
    vectors = np.stack([np.sin(angles), np.cos(angles)], -1).astype(np.float32)
    image = RNG.integers(0, 255, (90, 70, 3)).astype(np.uint8)
    found = guided_winner(image, plane, vectors, alone(groups)[1])
    assert (found == winner(guided_logits(image, plane, vectors, alone(groups)[1]))).mean() > 0.999


def test_a_group_without_a_place_takes_no_time(monkeypatch: pytest.MonkeyPatch):
    seen = []
    real = guided.linear_models
    monkeypatch.setattr(guided, "linear_models", lambda *args: (seen.append(len(args[1])), real(*args))[1])
    plane = np.ones((5, 4, 2), np.float32)
    vectors = np.array([[1, 1], [1, 0.9], [-1, 0.2], [-1, -1]], np.float32) / 2
    assert (guided_winner(np.zeros((30, 30, 3), np.uint8), plane, vectors, alone(4)[1]) == 0).all()
    assert seen == [2]
