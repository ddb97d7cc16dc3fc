"""Where training differs from the published code on purpose, and by how much (docs/decisions/015).

The published way is written here in plain autograd, from its description. `pytest -s` prints the figures.
"""

from collections.abc import Callable, Iterable
from itertools import permutations, product

import naive_stego as naive
import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional as F

from pipeline.heads.correspondence import (
    Head,
    correspondence_loss,
    derangement,
    random_positions,
    sample_tokens,
    sampled,
)
from pipeline.heads.interface import Batch
from pipeline.heads.settings import StegoParams
from pipeline.heads.stego import Stego
from pipeline.numerics.kmeans import cosine_kmeans, nearest, normalise

GRID, CHANNELS, CODE, VIEWS, BATCH = (6, 8), 16, 6, 24, 8


def planted(noise: float, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Tokens (view, row, column, channel), centred, of views cut in three regions, and the region of each token.

    A token is the mean of its region's kind, plus what its whole view is shifted by, plus noise of its own.
    """
    rng = np.random.default_rng(seed)
    means = 2 * np.linalg.qr(rng.normal(size=(CHANNELS, CHANNELS)))[0][:3]
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    maps, kinds = [], []
    for _ in range(VIEWS):
        sites = rng.uniform((0, 0), GRID, (3, 2))
        kinds.append(((y[..., None] - sites[:, 0]) ** 2 + (x[..., None] - sites[:, 1]) ** 2).argmin(-1))
        shift = 0.2 * rng.normal(size=CHANNELS)
        maps.append(means[kinds[-1]] + shift + noise * rng.normal(size=(*GRID, CHANNELS)))
    tokens = torch.tensor(np.stack(maps), dtype=torch.float32)
    return tokens - tokens.mean((0, 1, 2)), np.stack(kinds).ravel()


def at(maps: Tensor, positions: Tensor) -> Tensor:
    """Maps (view, row, column, channel) at positions (view, N, 2), by torch's own interpolation: (view, N, channel)."""
    rows, columns = maps.shape[1:3]
    grid = (positions.to(maps.dtype) / torch.tensor([rows - 1, columns - 1]) * 2 - 1).flip(-1)[:, None]
    return F.grid_sample(maps.permute(0, 3, 1, 2), grid, align_corners=True)[:, :, 0].transpose(1, 2)


# The head on sampled tokens -------------------------------------------------------------------------------------------


def smooth() -> Tensor:
    """Tokens (view, row, column, channel) float64 that vary slowly over the grid."""
    rough = torch.randn(10, CHANNELS, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.interpolate(rough, (16, 20), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def both_ways(layer: Callable[[Tensor], Tensor], maps: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of sampled tokens, and samples of the codes of the whole grid."""
    views, *grid = maps.shape[:3]
    positions = random_positions(views, 11, *grid, torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = layer(sample_tokens(maps.flatten(0, 2), torch.arange(views), positions, *grid))
        return ours, at(layer(maps), positions)


def test_the_linear_branch_may_be_sampled_before_or_after():
    torch.manual_seed(0)
    head = Head(CHANNELS, CODE).double()
    ours, published = both_ways(head.linear, planted(noise=0.35)[0].double())
    torch.testing.assert_close(ours, published, rtol=0, atol=1e-6)  # the weights of a sample are float32


@pytest.mark.parametrize(("tokens", "most"), [("smooth", 0.02), ("planted", 0.08)])
def test_the_whole_head_is_nearly_linear_between_tokens(tokens: str, most: float):
    torch.manual_seed(0)
    head = Head(CHANNELS, CODE).double()
    ours, published = both_ways(head, smooth() if tokens == "smooth" else planted(noise=0.35)[0].double())
    difference = float((ours - published).norm() / published.norm())
    cosine = float(F.cosine_similarity(ours, published, dim=-1).mean())
    print(f"{tokens} tokens, untrained head: {difference:.1%} apart, mean cosine {cosine:.4f}")
    assert 1e-3 < difference < most
    assert cosine > 0.99


def correlation_loss(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], shift: float) -> Tensor:
    similarity = a[0] @ b[0].transpose(1, 2)
    rows = similarity - similarity.mean(2, keepdim=True)
    centred = rows - rows.mean() + similarity.mean()
    return -((a[1] @ b[1].transpose(1, 2)).clamp(min=0) * (centred - shift)).mean()


def published_step(head: Head, maps: Tensor, anchors: Tensor, others: Tensor, params: StegoParams, step: int) -> Tensor:
    """The loss of a step with the head on every token of the grid and its codes sampled, of the same draws as ours."""
    drawn = naive.draws(params, len(anchors), CHANNELS, GRID, step)

    def side(views: Tensor, positions: Tensor, who: int) -> tuple[Tensor, Tensor]:
        linear, hidden, teacher = (m[who][:, None].float() for m in (drawn.linear, drawn.hidden, drawn.teacher))
        codes = head(maps[views].flatten(1, 2), linear, hidden).unflatten(1, GRID)
        features = maps[views] * teacher[:, None]
        return F.normalize(at(features, positions), dim=-1), F.normalize(at(codes, positions), dim=-1)

    first, second = side(anchors, drawn.coords1, 0), side(anchors, drawn.coords2, 0)
    random = [correlation_loss(first, (second[0][o], second[1][o]), params.shift_random) for o in drawn.orders]
    return (
        params.weight_self * correlation_loss(first, first, params.shift_self)
        + params.weight_neighbours * correlation_loss(first, side(others, drawn.coords2, 1), params.shift_neighbours)
        + params.weight_random * torch.stack(random).mean()
    )


def test_a_step_of_a_linear_head_is_the_published_one():
    """Without the hidden branch the two ways are one: the same loss, the same gradient."""
    maps, params = planted(noise=0.35)[0], StegoParams(samples=5, code=CODE, negatives=3, seed=0)
    torch.manual_seed(0)
    head = Stego(params, CHANNELS)
    torch.nn.init.zeros_(head.out.weight)
    anchors, others = torch.tensor([5, 0, 9, 3]), torch.tensor([1, 2, 5, 7])
    published = published_step(head, maps, anchors, others, params, 4)
    ours, _ = head.loss(Batch(maps.flatten(0, 2), GRID, anchors, others, 4, 300), torch.float32, True)
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-6)
    gradients = (torch.autograd.grad(loss, head.linear.weight)[0] for loss in (ours, published))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def partition(head: Head, maps: Tensor) -> np.ndarray:
    """The cluster of every token: k-means on its code."""
    with torch.no_grad():
        codes = normalise(head(maps).flatten(0, 2).numpy())
    return nearest(codes, cosine_kmeans(codes, 3, restarts=5, iterations=30, seed=0)[0])[0]


def test_training_ends_in_the_same_clusters():
    """300 steps each way from one head, of the same batches and draws, on tokens rougher than a ViT's."""
    maps, kinds = planted(noise=0.35)
    params = StegoParams(samples=5, code=CODE, negatives=3, seed=0, learning_rate=2e-3)
    pooled = F.normalize(maps.mean((1, 2)), dim=-1)
    near = (pooled @ pooled.T).fill_diagonal_(-2).topk(7).indices

    def ours(head: Stego, anchors: Tensor, others: Tensor, params: StegoParams, step: int) -> Tensor:
        head.params = params
        return head.loss(Batch(maps.flatten(0, 2), GRID, anchors, others, step, 300), torch.float32, False)[0]

    def published(head: Stego, anchors: Tensor, others: Tensor, params: StegoParams, step: int) -> Tensor:
        return published_step(head, maps, anchors, others, params, step)

    def train(loss_of: Callable[..., Tensor]) -> Stego:
        torch.manual_seed(0)
        head, batches = Stego(params, CHANNELS), torch.Generator().manual_seed(1)
        optimiser = torch.optim.Adam(head.parameters(), params.learning_rate)
        for step in range(300):
            anchors = torch.randperm(VIEWS, generator=batches)[:BATCH]
            others = near[anchors, torch.randint(7, (BATCH,), generator=batches)]
            optimiser.zero_grad()
            loss_of(head, anchors, others, params, step).backward()
            optimiser.step()
        return head

    @torch.no_grad()
    def final(head: Stego, loss_of: Callable[..., Tensor]) -> float:
        """The loss on all views without dropout, over twenty samplings."""
        every, undropped = torch.arange(VIEWS), params.model_copy(update={"dropout": 0.0, "seed": 9})
        losses = [loss_of(head, every, near[:, step % 7], undropped, step) for step in range(20)]
        return float(torch.stack(losses).mean())

    torch.manual_seed(0)
    untrained = Stego(params, CHANNELS)
    mine, theirs = train(ours), train(published)
    same_ruler = [final(mine, published), final(theirs, published)]
    own_ruler = [final(mine, ours), final(theirs, published)]
    clusters = [partition(head, maps) for head in (untrained, mine, theirs)]
    agreement = adjusted_rand_score(clusters[1], clusters[2])
    found = [adjusted_rand_score(kinds, labels) for labels in clusters]
    start = final(untrained, published)
    print(
        f"loss trained on samples {own_ruler[0]:.4f}, on grids {own_ruler[1]:.4f}; "
        f"both measured on grids {same_ruler[0]:.4f}, {same_ruler[1]:.4f}, untrained {start:.4f}; "
        f"agreement of the clusters (ARI) {agreement:.3f}, "
        f"with the planted ones {found[1]:.3f}, {found[2]:.3f}, untrained {found[0]:.3f}"
    )
    assert start - max(same_ruler) > 0.1, "training must matter"
    assert own_ruler[0] == pytest.approx(own_ruler[1], rel=0.03)
    assert same_ruler[0] == pytest.approx(same_ruler[1], rel=0.01)
    assert agreement >= 0.98
    assert found[0] < 0.7
    assert min(found[1:]) > 0.98


# Negatives ------------------------------------------------------------------------------------------------------------


def repaired(order: tuple[int, ...]) -> tuple[int, ...]:
    """The published shuffle: of a random permutation, whatever stays in its place goes to the next."""
    return tuple((other + (other == place)) % len(order) for place, other in enumerate(order))


def relabelled(order: tuple[int, ...], names: tuple[int, ...]) -> tuple[int, ...]:
    """What `order` is to a batch of the same views in another order."""
    there = [0] * len(order)
    for place, other in enumerate(order):
        there[names[place]] = names[other]
    return tuple(there)


def deranged(n: int) -> set[tuple[int, ...]]:
    """Every order that our shuffle draws; all are equally probable (test_stego.py)."""
    source = torch.Generator().manual_seed(0)
    return {tuple(derangement(n, source).tolist()) for _ in range(5000)}


def published_orders(n: int) -> list[tuple[int, ...]]:
    """Every draw of the published shuffle in every order of the batch's views; all are equally probable."""
    every = list(permutations(range(n)))
    return [relabelled(repaired(order), names) for order in every for names in every]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_each_view_is_a_negative_as_often_as_in_the_published_shuffle(n: int):
    """Neither draws a view for itself, and each other view is drawn with the same probability by both."""
    assert len(deranged(n)) == {2: 1, 3: 2, 4: 9, 5: 44}[n]
    for orders in (deranged(n), published_orders(n)):
        counts = np.zeros((n, n))
        for order in orders:
            counts[np.arange(n), list(order)] += 1
        np.testing.assert_allclose(counts / len(orders), (1 - np.eye(n)) / (n - 1), atol=1e-12)


def test_the_published_shuffle_repeats_views():
    """… in 63 % of the draws of six views or more; a derangement never does."""
    orders = [repaired(order) for order in permutations(range(6))]
    assert np.mean([len(set(order)) < 6 for order in orders]) == pytest.approx(0.63, abs=0.005)
    assert all(len(set(order)) == 6 for order in deranged(6))
    assert repaired((0,)) == (0,), "a batch of one is its own negative; ours has no random term (test_head.py)"


@pytest.fixture(scope="module")
def losses() -> dict[tuple[int, ...], float]:
    """The random loss of a batch of four under every assignment of negatives, a view's own second sampling included."""
    maps, _ = planted(noise=0.35)
    table, views, source = maps.double().flatten(0, 2), torch.arange(4), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    head = Head(CHANNELS, CODE).double()
    first, second = (
        sampled(F.normalize(tokens, dim=-1), F.normalize(head(tokens).detach(), dim=-1))
        for tokens in (sample_tokens(table, views, random_positions(4, 11, *GRID, source), *GRID) for _ in range(2))
    )
    shift = StegoParams().shift_random
    return {
        order: float(correspondence_loss(first, second, shift, order=torch.tensor(order)))
        for order in product(range(4), repeat=4)
    }


def test_a_derangement_costs_what_the_published_shuffle_costs(losses):
    """The expected loss over all draws, exact. Self pairs, which neither has above one view, would make it lower."""

    def expected(orders: Iterable[tuple[int, ...]]) -> float:
        return float(np.mean([losses[order] for order in orders]))

    ours, published, shuffled = (expected(o) for o in (deranged(4), published_orders(4), list(permutations(range(4)))))
    alone = expected([(0, 1, 2, 3)])
    print(
        f"expected random loss: derangement {ours:.5f}, published {published:.5f} ({(published - ours) / ours:+.2%}), "
        f"with self pairs {shuffled:.5f}, self pairs alone {alone:.5f}"
    )
    assert ours == pytest.approx(published, rel=0.01)
    assert alone < shuffled < ours - abs(ours - published)
    spread = [losses[order] for order in deranged(4)]
    assert abs(ours - published) < 0.2 * float(np.std(spread)), "less than one draw differs from the next"


def test_a_negative_at_its_own_positions_is_one_at_its_anchors():
    """The published code reads the negative of anchor i at the second positions of i, ours at those of the negative.

    Positions are drawn independently, so that is another name for the same draw: with them renamed, the loss is equal.
    """
    maps, _ = planted(noise=0.35)
    maps, views, source = maps[:5].double(), torch.arange(5), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    head = Head(CHANNELS, CODE).double()
    coords1, coords2 = (random_positions(5, 3, *GRID, source) for _ in range(2))
    order = derangement(5, source)

    def side(maps: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        tokens = at(maps, coords)
        return F.normalize(tokens, dim=-1), F.normalize(head(tokens).detach(), dim=-1)

    (f1, z1), (f2, z2) = side(maps, coords1), side(maps[order], coords2)
    published = naive.loss(f1, f2, z1, z2, 0.46)
    renamed = torch.empty_like(coords2)
    renamed[order] = coords2
    mine = [sampled(*side(maps[views], coords)) for coords in (coords1, renamed)]
    torch.testing.assert_close(correspondence_loss(*mine, 0.46, order=order), published, rtol=1e-9, atol=1e-12)
