"""STEGO's loss, head, sampling and draws against loops in float64 that follow the definition word by word.

A whole training step is held against the same loops in tests/stages/test_head.py, the deliberate differences from the
published code in test_stego_differences.py.
"""

from collections import Counter

import naive_stego as naive
import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.nn import functional as F

from pipeline.heads.correspondence import (
    Head,
    channel_dropout,
    correspondence_loss,
    derangement,
    pair_statistics,
    random_positions,
    sample_tokens,
    sampled,
)

VIEWS, POSITIONS, CHANNELS, CODE = 3, 4, 5, 3


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64) + 0.4, dim=-1).to(dtype)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_clamp", [True, False])
@pytest.mark.parametrize("order", [[0], [0, 1], [1, 0], [0, 1, 2], [1, 2, 0], [2, 0, 1]])
@pytest.mark.parametrize(("positions", "shift"), [(4, 0.0), (9, 0.46)])
def test_loss_and_gradient_are_those_of_the_definition(
    zero_clamp: bool, order: list[int], positions: int, shift: float
):
    """Batches of one to three pairs, of a view's own neighbour or of another's; the gradient is that of both codes."""
    views = len(order)
    features = [unit(views, positions, CHANNELS, seed=seed) for seed in (0, 1)]
    codes = [(unit(views, positions, CODE, seed=seed) - 0.4).requires_grad_() for seed in (2, 3)]
    assert (codes[0] @ codes[1].transpose(1, 2) < 0).any(), "the clamp must matter"
    wanted = naive.loss(features[0], features[1][order], codes[0], codes[1][order], shift, zero_clamp)
    gradients = torch.autograd.grad(wanted, codes)

    sides = [sampled(f, z) for f, z in zip(features, codes, strict=True)]
    found = correspondence_loss(*sides, shift, order=torch.tensor(order), zero_clamp=zero_clamp)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(3 * found, codes), gradients, strict=True):
        torch.testing.assert_close(mine, 3 * theirs, rtol=1e-9, atol=1e-12)
    if order == list(range(views)):
        plain = correspondence_loss(*sides, shift, zero_clamp=zero_clamp)
        torch.testing.assert_close(plain, wanted, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_view_paired_with_itself():
    """Self pairs: the same codes stand on both sides, and both sides' gradients count."""
    f, z = unit(VIEWS, POSITIONS, CHANNELS), unit(VIEWS, POSITIONS, CODE, seed=1).requires_grad_()
    side = sampled(f, z)
    found = torch.autograd.grad(correspondence_loss(side, side, 0.2), z)[0]
    wanted = torch.autograd.grad(naive.loss(f, f, z, z, 0.2), z)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_numerical_gradient():
    f = [unit(2, 3, CHANNELS, seed=seed) for seed in (0, 1)]
    z = [unit(2, 3, CODE, seed=seed).requires_grad_() for seed in (2, 3)]
    order = torch.tensor([1, 0])

    def loss(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return correspondence_loss(sampled(f[0], one), sampled(f[1], other), 0.1, order=order)

    assert torch.autograd.gradcheck(loss, z, eps=1e-6, atol=1e-5)


def test_centring_uses_one_mean_for_the_whole_batch():
    """After centring every row of every pair has the batch's mean, not its own pair's."""
    first, second = unit(VIEWS, POSITIONS, CHANNELS), unit(VIEWS, POSITIONS, CHANNELS, seed=1)
    rows = torch.tensor(naive.centred(first, second), dtype=torch.float64).mean(2)
    torch.testing.assert_close(rows, (first @ second.transpose(1, 2)).mean().expand_as(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_in_fewer_bits(dtype: torch.dtype):
    f = [unit(4, 30, 64, seed=seed) for seed in (0, 1)]
    z = [unit(4, 30, CODE, seed=seed) - 0.4 for seed in (2, 3)]
    order = torch.tensor([1, 0, 3, 2])
    wanted = correspondence_loss(*(sampled(*pair) for pair in zip(f, z, strict=True)), 0.3, order=order)
    small = [sampled(a.to(dtype), b.to(dtype)) for a, b in zip(f, z, strict=True)]
    found = correspondence_loss(*small, 0.3, order=order)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(wanted), rel=1e-4 if dtype == torch.float32 else 0.03)


def test_no_gradient_reaches_the_features():
    f = unit(VIEWS, POSITIONS, CHANNELS).requires_grad_()
    z = unit(VIEWS, POSITIONS, CODE, seed=1).requires_grad_()
    side = sampled(f, z)
    loss = correspondence_loss(side, side, 0.1)
    loss.backward()
    assert f.grad is None
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


def test_statistics_of_the_pairs():
    f = [unit(VIEWS, POSITIONS, CHANNELS, seed=seed) for seed in (0, 1)]
    z = [unit(VIEWS, POSITIONS, CODE, seed=seed) for seed in (2, 3)]
    order = [1, 2, 0]
    found = pair_statistics(*(sampled(*p) for p in zip(f, z, strict=True)), 0.3, torch.tensor(order))
    target = torch.tensor(naive.centred(f[0], f[1][order]))
    assert float(found["mean_f"]) == pytest.approx(float(target.mean()), abs=1e-6)
    assert float(found["mean_z"]) == pytest.approx(float((z[0] @ z[1][order].transpose(1, 2)).mean()), abs=1e-6)
    assert float(found["attracting"]) == pytest.approx(float((target > 0.3).double().mean()), abs=1e-6)
    assert 0 < float(found["attracting"]) < 1


# Negatives ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 7, 32])
def test_a_derangement_leaves_nothing_in_its_place(n: int):
    source = generator()
    for _ in range(200):
        drawn = derangement(n, source)
        assert sorted(drawn.tolist()) == list(range(n)), "every view is somebody's negative, once"
        assert not (drawn == torch.arange(n)).any()


@pytest.mark.parametrize(("n", "count"), [(3, 2), (4, 9)])
def test_derangements_are_uniform(n: int, count: int):
    """Each of the two derangements of three and of the nine of four comes equally often."""
    source = generator()
    drawn = Counter(tuple(derangement(n, source).tolist()) for _ in range(500 * count))
    assert len(drawn) == count
    assert chisquare(list(drawn.values())).pvalue > 0.01


# Sampling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (1, 4), (4, 1), (1, 1), (2, 2)])
def test_sampling_is_grid_sample(rows: int, columns: int):
    table = torch.randn(6, rows, columns, CHANNELS, generator=generator())
    chosen = torch.tensor([4, 0, 4])
    positions = random_positions(3, 5, rows, columns, generator(1))
    positions[0, :4] = torch.tensor([[0.0, 0.0], [rows - 1, columns - 1], [0, columns - 1], [rows - 1, 0]])
    found = sample_tokens(table.reshape(-1, CHANNELS), chosen, positions, rows, columns)
    extent = torch.tensor([max(columns - 1, 1), max(rows - 1, 1)])
    grid = (positions.flip(-1) / extent * 2 - 1)[:, None]  # x, y in −1..1
    if 1 in (rows, columns):  # a single line lies at 0 of grid_sample's axis
        grid = torch.where(torch.tensor([columns, rows]) == 1, torch.zeros(()), grid)
    wanted = F.grid_sample(table[chosen].permute(0, 3, 1, 2), grid, align_corners=True)[:, :, 0].transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0, 0], table[4, 0, 0])
    torch.testing.assert_close(found[0, 1], table[4, -1, -1])


def test_sampling_a_table_of_halves():
    table = torch.randn(2 * 3 * 4, CHANNELS, generator=generator()).half()
    positions = random_positions(2, 3, 3, 4, generator())
    found = sample_tokens(table, torch.tensor([1, 0]), positions, 3, 4)
    assert found.dtype == torch.float16
    wanted = sample_tokens(table.float(), torch.tensor([1, 0]), positions, 3, 4)
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.01)


def test_positions_are_uniform_over_the_grid():
    positions = random_positions(40, 11, 5, 9, generator())
    assert positions.shape == (40, 121, 2)
    for axis, last in ((0, 4), (1, 8)):
        values = positions[..., axis]
        assert float(values.min()) >= 0
        assert float(values.max()) <= last
        assert chisquare(torch.histc(values, 20, 0, last)).pvalue > 0.01
    assert len(torch.unique(positions.reshape(40, -1), dim=0)) == 40, "every view has positions of its own"


# Head and dropout -----------------------------------------------------------------------------------------------------


def test_the_head_is_linear_plus_two_layers():
    torch.manual_seed(0)
    head = Head(CHANNELS, CODE)
    linear, hidden, out = nn.Linear(CHANNELS, CODE), nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CODE)
    for mine, plain in ((head.linear, linear), (head.hidden, hidden), (head.out, out)):
        plain.load_state_dict(mine.state_dict())
    tokens = torch.randn(2, 3, CHANNELS, generator=generator())
    branches = linear, nn.Sequential(hidden, nn.ReLU(), out)
    torch.testing.assert_close(head(tokens), branches[0](tokens) + branches[1](tokens))
    assert sum(parameter.numel() for parameter in head.parameters()) == (CHANNELS + 1) * (2 * CODE + CHANNELS)
    masks = [channel_dropout(2, CHANNELS, 0.5, generator(seed)) for seed in (1, 2)]
    wanted = branches[0](tokens * masks[0]) + branches[1](tokens * masks[1])
    torch.testing.assert_close(head(tokens, *masks), wanted)
    assert (head(tokens, *masks) - head(tokens, *reversed(masks))).abs().max() > 1e-3, "a mask of its own per branch"


def test_dropout_takes_whole_channels_of_a_view():
    masks = channel_dropout(200, 50, 0.1, generator())
    assert masks.shape == (200, 1, 50), "one mask for all positions of a view"
    torch.testing.assert_close(masks.unique(), torch.tensor([0, 1 / 0.9]))
    assert float((masks == 0).float().mean()) == pytest.approx(0.1, abs=0.015)
    assert float(masks.mean()) == pytest.approx(1, abs=0.02)
    assert len(torch.unique(masks[:, 0], dim=0)) > 190
    assert (channel_dropout(3, 4, 0.0, generator()) == 1).all()
