"""STEGO's head and correspondence loss (arXiv 2203.08414, sections 4.1 to 4.3), on sampled tokens.

Tensors in, tensors out. Where it differs from the published code on purpose: the head is applied to the sampled tokens
instead of the whole map, and the negatives are a derangement (docs/decisions/015).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """z = A x + C f(B x), f = relu in STEGO, hidden width = channels: token (…, channels) to code (…, code)."""

    def __init__(self, channels: int, code: int, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.linear = nn.Linear(channels, code)
        self.hidden = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, code)

    def forward(self, tokens: Tensor, drop_linear: Tensor | None = None, drop_hidden: Tensor | None = None) -> Tensor:
        """`drop_*`: channel masks that broadcast over the tokens of a view (training only)."""
        straight = tokens if drop_linear is None else tokens * drop_linear
        bent = tokens if drop_hidden is None else tokens * drop_hidden
        # Flat, because the backward pass of a linear layer over three dimensions takes twice as long on a CPU.
        flat, bent = straight.flatten(0, -2), bent.flatten(0, -2)
        return (self.linear(flat) + self.out(self.activation(self.hidden(bent)))).unflatten(0, tokens.shape[:-1])


def channel_dropout(views: int, channels: int, p: float, generator: torch.Generator) -> Tensor:
    """Masks (view, 1, channel) float32: whole channels of a view zeroed with probability p, the rest scaled up."""
    keep = torch.rand(views, 1, channels, generator=generator) >= p
    return keep.float() / (1 - p)


def random_positions(views: int, samples: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Positions (view, samples², 2) float32, uniform over the grid: row in 0..rows−1, column in 0..columns−1."""
    extent = torch.tensor([rows - 1, columns - 1], dtype=torch.float32)
    return torch.rand(views, samples * samples, 2, generator=generator) * extent


def sample_tokens(table: Tensor, views: Tensor, positions: Tensor, rows: int, columns: int) -> Tensor:
    """Tokens interpolated bilinearly at positions of views.

    table: (view × row × column, channel), any float dtype; views: (B,) int64 row numbers of the table's views;
    positions: (B, N, 2). Returns (B, N, channel) in the table's dtype. One fused gather-and-weigh pass.
    """
    low = positions.floor()
    y0 = low[..., 0].long().clamp(0, max(rows - 2, 0))
    x0 = low[..., 1].long().clamp(0, max(columns - 2, 0))
    part = positions - torch.stack((y0, x0), -1)
    y1, x1 = (y0 + 1).clamp(max=rows - 1), (x0 + 1).clamp(max=columns - 1)
    base = views[:, None] * (rows * columns)
    corners = torch.stack([base + y * columns + x for y in (y0, y1) for x in (x0, x1)], -1)
    py, px = part[..., 0], part[..., 1]
    weights = torch.stack([wy * wx for wy in (1 - py, py) for wx in (1 - px, px)], -1)
    flat = F.embedding_bag(
        corners.reshape(-1, 4), table, per_sample_weights=weights.reshape(-1, 4).to(table.dtype), mode="sum"
    )
    return flat.reshape(*positions.shape[:2], -1)


def derangement(n: int, generator: torch.Generator) -> Tensor:
    """A uniformly drawn permutation of 0..n−1 without a fixed point; n ≥ 2."""
    while True:
        drawn = torch.randperm(n, generator=generator)
        if not (drawn == torch.arange(n)).any():
            return drawn


class Sampled(NamedTuple):
    """One sampling of a batch of views: what the loss compares. Made by `sampled`."""

    features: Tensor
    """(view, N, channel), unit vectors; no gradient."""
    mean: Tensor
    """(view, 1, channel): the mean of `features` over a view's positions."""
    centred: Tensor
    """`features` − `mean`."""
    codes: Tensor
    """(view, N, code), unit vectors."""


def sampled(features: Tensor, codes: Tensor) -> Sampled:
    """The centring of F is linear in the second view, so it is done here, once per view instead of once per pair."""
    with torch.no_grad():
        ones = features.new_ones(1, 1, features.shape[1]).expand(len(features), -1, -1)
        mean = torch.bmm(ones, features) / features.shape[1]  # `mean` would copy a bf16 tensor to float32 first
        return Sampled(features, mean, features - mean, codes)


def correspondence_loss(
    first: Sampled, second: Sampled, shift: float | Tensor, *, order: Tensor | None = None, zero_clamp: bool = True
) -> Tensor:
    """−mean(max(Z, 0) · (F − b)) over the pairs (first[i], second[order[i]]), with F centred as STEGO does.

    F = ⟨f, f'⟩ and Z = ⟨z, z'⟩ over positions × positions. Centring takes off each row of F its mean over the second
    view's positions and adds the mean of the original F over the whole batch of pairs. No gradient reaches F.
    """
    return _PairLoss.apply(first.codes, second.codes, _target(first, second, order, shift), order, zero_clamp)


def _target(first: Sampled, second: Sampled, order: Tensor | None, shift: float | Tensor) -> Tensor:
    """F centred, minus b: (pair, N, N)."""
    with torch.no_grad():
        mean, centred = _ordered(second.mean, order), _ordered(second.centred, order)
        wide = torch.promote_types(mean.dtype, torch.float32)
        average = (first.mean.to(wide) * mean.to(wide)).sum(-1).mean() - shift
        return torch.baddbmm(average.to(mean.dtype).expand(1, 1, 1), first.features, centred.transpose(1, 2))


def _ordered(values: Tensor, order: Tensor | None) -> Tensor:
    return values if order is None else values.index_select(0, order)


class _PairLoss(torch.autograd.Function):
    """The loss and its gradient in one go: with G = T where Z > 0, else 0, dL/dz = −G z'/n and L = −Σ z · (G z')/n.

    Autograd would keep and walk six more tensors of the size of Z; these products are most of a training step.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, target: Tensor, order: Tensor | None, zero_clamp: bool
    ) -> Tensor:
        other = _ordered(second, order)
        if zero_clamp:
            target = torch.ops.aten.threshold_backward(target, torch.bmm(first, other.transpose(1, 2)), 0)
        scale = -1.0 / target.numel()
        to_first = torch.bmm(target, other)
        to_second = torch.bmm(target.transpose(1, 2), first)
        if order is not None:
            to_second = to_second.index_select(0, torch.argsort(order))
        ctx.save_for_backward(to_first, to_second)
        ctx.scale = scale
        wide = torch.promote_types(target.dtype, torch.float32)
        return (first * to_first).sum(dtype=wide) * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_first, to_second = ctx.saved_tensors
        scale = (grad * ctx.scale).to(to_first.dtype)
        return to_first * scale, to_second * scale, None, None, None


def pair_statistics(
    first: Sampled, second: Sampled, shift: float | Tensor, order: Tensor | None = None
) -> dict[str, Tensor]:
    """For the training log: mean of F and of Z over a batch of pairs, and the share of F above b (what attracts)."""
    with torch.no_grad():
        similarity = _target(first, second, order, 0.0).float()
        codes = torch.bmm(first.codes, _ordered(second.codes, order).transpose(1, 2)).float()
        return {"mean_f": similarity.mean(), "mean_z": codes.mean(), "attracting": (similarity > shift).float().mean()}
