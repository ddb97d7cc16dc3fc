"""STEGO's head and correspondence loss (arXiv 2203.08414, sections 4.1 to 4.3), on sampled tokens.

Tensors in, tensors out. Where it differs from the published code on purpose: the head is applied to the sampled tokens
instead of the whole map, and the negatives are a derangement (storage_layout.md, Decisions).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """z = A x + C relu(B x), hidden width = channels: token (…, channels) to code (…, code)."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, code)
        self.hidden = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, code)

    def forward(self, tokens: Tensor, drop_linear: Tensor | None = None, drop_hidden: Tensor | None = None) -> Tensor:
        """`drop_*`: channel masks that broadcast over the tokens of a view (training only)."""
        straight = tokens if drop_linear is None else tokens * drop_linear
        bent = tokens if drop_hidden is None else tokens * drop_hidden
        return self.linear(straight) + self.out(F.relu(self.hidden(bent)))


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


class _PairLoss(torch.autograd.Function):
    """−mean(max(Z, 0) · T) for Z = first · secondᵀ, with its gradient written out: dL/dZ = −T where Z > 0, over n.

    Autograd would keep and walk six more tensors of the size of Z; these products are most of a training step.
    """

    @staticmethod
    def forward(ctx, first: Tensor, second: Tensor, target: Tensor, zero_clamp: bool) -> Tensor:
        similarity = torch.bmm(first, second.transpose(1, 2))
        if zero_clamp:
            target = target.masked_fill(similarity <= 0, 0)
        ctx.save_for_backward(first, second, target)
        wide = torch.promote_types(target.dtype, torch.float32)
        return -(similarity.mul_(target).sum(dtype=wide) / target.numel())

    @staticmethod
    def backward(ctx, grad: Tensor):
        first, second, target = ctx.saved_tensors
        scale = -grad / target.numel()
        to_first = torch.bmm(target, second) if ctx.needs_input_grad[0] else None
        to_second = torch.bmm(target.transpose(1, 2), first) if ctx.needs_input_grad[1] else None
        return (
            None if to_first is None else to_first * scale.to(to_first.dtype),
            None if to_second is None else to_second * scale.to(to_second.dtype),
            None,
            None,
        )


def correspondence_loss(
    first: Tensor, second: Tensor, codes_first: Tensor, codes_second: Tensor, shift: float, *, zero_clamp: bool = True
) -> Tensor:
    """−mean(max(Z, 0) · (F − b)) over all pairs of one kind, with F centred as STEGO does.

    first, second: unit features (pair, N, channel) of the two views; codes_*: unit codes (pair, N, code), all of one
    dtype. F has no gradient.
    """
    with torch.no_grad():
        target = centred_similarity(first, second).sub_(shift)
    return _PairLoss.apply(codes_first, codes_second, target, zero_clamp)


def centred_similarity(first: Tensor, second: Tensor) -> Tensor:
    """F (pair, N, N), centred: each row loses its mean over the second view's positions and gains the mean of the
    original F over the whole tensor. That is the product with the second view's mean feature taken off beforehand,
    so no pass over F is needed for it."""
    center = second.mean(1, keepdim=True)
    average = (
        (first.mean(1, keepdim=True) * center)
        .sum(-1, dtype=torch.float64 if first.dtype == torch.float64 else torch.float32)
        .mean()
    )
    return torch.baddbmm(average.to(first.dtype).expand(1, 1, 1), first, (second - center).transpose(1, 2))


def pair_statistics(
    first: Tensor, second: Tensor, codes_first: Tensor, codes_second: Tensor, shift: float
) -> dict[str, Tensor]:
    """For the training log: mean of F and of Z, and the share of F above b (the pairs that attract)."""
    with torch.no_grad():
        similarity = centred_similarity(first, second).float()
        codes = torch.bmm(codes_first, codes_second.transpose(1, 2)).float()
        return {"mean_f": similarity.mean(), "mean_z": codes.mean(), "attracting": (similarity > shift).float().mean()}
