"""STEGO as it is written down, one number after the other: slow, in float64, with nothing of the implementation.

F is made of plain numbers, without gradient; codes are tensors, so that autograd gives the gradient to compare with.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.heads.correspondence import Head
from pipeline.heads.settings import StegoParams


def centred(first: Tensor, second: Tensor) -> list[list[list[float]]]:
    """F[b][i][j] centred: minus its mean over j, minus the scalar mean of that, plus that of the original."""
    views, n, m = len(first), first.shape[1], second.shape[1]
    original = [[[float(first[b, i] @ second[b, j]) for j in range(m)] for i in range(n)] for b in range(views)]
    rows = [[[value - sum(line) / m for value in line] for line in pair] for pair in original]

    def scalar_mean(values: list[list[list[float]]]) -> float:
        return sum(value for pair in values for line in pair for value in line) / (views * n * m)

    away, back = scalar_mean(rows), scalar_mean(original)
    return [[[value - away + back for value in line] for line in pair] for pair in rows]


def loss(
    first: Tensor, second: Tensor, codes_first: Tensor, codes_second: Tensor, shift: float, zero_clamp: bool = True
) -> Tensor:
    """−mean(max(Z, 0) · (F − b)) over the pairs (first[b], second[b]); all arguments (pair, position, channel)."""
    target = centred(first, second)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(first)):
        for i in range(first.shape[1]):
            for j in range(second.shape[1]):
                z = codes_first[b, i] @ codes_second[b, j]
                total = total - (z.clamp(min=0) if zero_clamp else z) * (target[b][i][j] - shift)
    return total / (len(first) * first.shape[1] * second.shape[1])


class Draws(NamedTuple):
    """Everything that a training step draws."""

    coords1: Tensor
    """(view, position, 2): where each anchor is sampled first."""
    coords2: Tensor
    """… and second: the positions of the neighbours and, where an anchor is a negative, of the anchors."""
    linear: Tensor
    """(2, view, channel): factors before the linear branch, of the anchors [0] and of their neighbours [1]."""
    hidden: Tensor
    """… before the hidden branch."""
    teacher: Tensor
    """… on the features that F is made of."""
    orders: list[list[int]]
    """Per shuffle, whose negative each anchor is given."""


def shuffle(views: int, generator: torch.Generator) -> list[int]:
    """Permutations are drawn until one leaves nothing in its place."""
    while True:
        order = torch.randperm(views, generator=generator).tolist()
        if all(place != view for place, view in enumerate(order)):
            return order


def draws(params: StegoParams, views: int, channels: int, grid: tuple[int, int], step: int) -> Draws:
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + step)
    extent = torch.tensor([grid[0] - 1.0, grid[1] - 1.0])
    coords = [torch.rand(views, params.samples**2, 2, generator=generator) * extent for _ in range(2)]
    kept = (torch.rand(3, 2, views, channels, generator=generator) >= params.dropout).double() / (1 - params.dropout)
    orders = [shuffle(views, generator) for _ in range(params.negatives if views > 1 else 0)]
    return Draws(*coords, *kept, orders)


def token(view: Tensor, position: Tensor) -> Tensor:
    """The bilinear mean of a view's tokens (row, column, channel): each counts by its tent over the position."""
    total = torch.zeros(view.shape[-1], dtype=torch.float64)
    for r in range(view.shape[0]):
        for c in range(view.shape[1]):
            total += max(0.0, 1 - abs(float(position[0]) - r)) * max(0.0, 1 - abs(float(position[1]) - c)) * view[r, c]
    return total


def code(head: Head, x: Tensor, linear: Tensor, hidden: Tensor) -> Tensor:
    """z = A x + C relu(B x), each branch with channels of its own dropped; unit length."""
    bent = torch.relu(head.hidden.weight @ (x * hidden) + head.hidden.bias)
    z = head.linear.weight @ (x * linear) + head.linear.bias + head.out.weight @ bent + head.out.bias
    return z / z.norm()


def step_terms(
    head: Head, maps: Tensor, anchors: list[int], others: list[int] | None, params: StegoParams, drawn: Draws
) -> dict[str, Tensor]:
    """A training step's terms `self`, `neighbours`, `random` (those that exist) and their weighted sum `loss`.

    maps: (view, row, column, channel). First interpolated, then normalised; codes of the interpolated tokens.
    """

    def side(views: list[int], coords: Tensor, who: int) -> tuple[Tensor, Tensor]:
        features, codes = [], []
        for i, view in enumerate(views):
            tokens = [token(maps[view], position) for position in coords[i]]
            seen = [x * drawn.teacher[who, i] for x in tokens]
            features.append(torch.stack([x / x.norm() for x in seen]))
            codes.append(torch.stack([code(head, x, drawn.linear[who, i], drawn.hidden[who, i]) for x in tokens]))
        return torch.stack(features), torch.stack(codes)

    def pairs(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], shift: float) -> Tensor:
        return loss(a[0], b[0], a[1], b[1], shift, params.zero_clamp)

    first, second = side(anchors, drawn.coords1, 0), side(anchors, drawn.coords2, 0)
    terms = {"self": pairs(first, first, params.shift_self)}
    total = params.weight_self * terms["self"]
    if others is not None:
        terms["neighbours"] = pairs(first, side(others, drawn.coords2, 1), params.shift_neighbours)
        total = total + params.weight_neighbours * terms["neighbours"]
    if drawn.orders:
        each = [pairs(first, (second[0][order], second[1][order]), params.shift_random) for order in drawn.orders]
        terms["random"] = torch.stack(each).sum() / len(each)
        total = total + params.weight_random * terms["random"]
    return {**terms, "loss": total}
