"""stego: STEGO's small network from token to code, trained with the correspondence loss (arXiv 2203.08414).

The loss itself is in `pipeline.heads.correspondence`; here is what a step draws and compares.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.heads.correspondence import (
    Head,
    Sampled,
    channel_dropout,
    correspondence_loss,
    derangement,
    pair_statistics,
    random_positions,
    sample_tokens,
    sampled,
)
from pipeline.heads.interface import Batch, Method
from pipeline.heads.settings import CorrespondenceParams
from pipeline.numerics.codes import Codes
from pipeline.numerics.context import unit

Pairs = tuple[Sampled, Sampled, Tensor | None]
"""Views of a batch and the views that they are compared with, in which order."""


class Stego(Head, Method):
    """The network (`linear`, `hidden`, `out`) with its loss; a token's code depends on that token alone."""

    params: Any

    def __init__(self, params: CorrespondenceParams, channels: int) -> None:
        super().__init__(channels, params.code)
        self.params = params

    def shift_random(self, shuffled: list[Pairs], batch: Batch) -> float | Tensor:
        """b of the random pairs of a step."""
        return self.params.shift_random

    def encode(self, tokens: Tensor) -> Codes:
        return Codes(self(tokens))

    def loss(self, batch: Batch, dtype: torch.dtype, log: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted terms of pairs of a view with itself, with a neighbour and with others of the batch; logged with
        the statistics of the correspondences. Without neighbours, or with a single view, the terms that need them are
        left out."""
        params, table, others = self.params, batch.table, batch.others
        generator = batch.generator(params.seed)
        views, channels, device = len(batch.anchors), table.shape[1], table.device
        first = random_positions(views, params.samples, *batch.grid, generator)
        second = random_positions(views, params.samples, *batch.grid, generator)
        # An anchor's two samples are one forward pass and share a mask; a neighbour is another.
        kept = channel_dropout(6 * views, channels, params.dropout, generator)
        kept = kept.to(device, dtype).unflatten(0, (3, 2, views))
        sources = [(batch.anchors, first, 0), (batch.anchors, second, 0)]
        sources += [] if others is None else [(others, second, 1)]
        rows = torch.cat([row for row, _, _ in sources]).to(device)
        positions = torch.cat([position for _, position, _ in sources]).to(device)
        tokens = sample_tokens(table, rows, positions, *batch.grid).to(dtype)
        linear, hidden, teacher = (torch.cat([masks[who] for _, _, who in sources]) for masks in kept)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            codes = self(tokens, linear, hidden)
        with torch.no_grad():
            features = unit(tokens * teacher)
        pieces = zip(features.split(views), unit(codes).to(dtype).split(views), strict=True)
        sides = [sampled(f, z) for f, z in pieces]

        terms: dict[str, tuple[float, float | Tensor, list[Pairs]]] = {}
        terms["self"] = params.weight_self, params.shift_self, [(sides[0], sides[0], None)]
        if others is not None:
            terms["neighbours"] = params.weight_neighbours, params.shift_neighbours, [(sides[0], sides[2], None)]
        if views > 1 and params.negatives:
            orders = [derangement(views, generator).to(device) for _ in range(params.negatives)]
            shuffled: list[Pairs] = [(sides[0], sides[1], o) for o in orders]
            terms["random"] = params.weight_random, self.shift_random(shuffled, batch), shuffled
        loss = torch.zeros((), device=device)
        stats: dict[str, Tensor] = {}
        for kind, (weight, shift, compared) in terms.items():
            values = [correspondence_loss(a, b, shift, order=o, zero_clamp=params.zero_clamp) for a, b, o in compared]
            mean = torch.stack(values).mean()
            loss = loss + weight * mean
            if log:
                a, b, o = compared[0]
                stats[f"loss_{kind}"] = mean.detach()
                stats |= {f"{name}_{kind}": value for name, value in pair_statistics(a, b, shift, o).items()}
        return loss, {"loss": loss.detach(), **stats}
