"""SmooSeg: close features, same cluster (Lan et al. 2023, arXiv 2310.17874).

A projector maps tokens to codes, and codes are assigned to K prototypes. The smoothness term asks tokens with similar
features for the same assignment, within a view and between two views; a cross-entropy draws the student prototypes
to what the teacher prototypes, their moving average, say. No neighbours, no augmentation.

The term is bilinear in the assignments (unlike STEGO's, which clamps), so it is computed exactly over all pairs of
tokens of two views without a matrix of pairs: see `smoothness`.

Where it differs on purpose from the published code: the other view of a pair comes from a derangement (theirs may
name a view twice), and a step sees a random part of a view's tokens (`tokens`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.heads.correspondence import Head, channel_dropout, derangement
from pipeline.heads.interface import Batch, Method
from pipeline.heads.settings import SmoosegParams
from pipeline.numerics.codes import Codes


def smoothness(features: Tensor, assigned: Tensor, shift: float, order: Tensor | None = None) -> Tensor:
    """mean((F − b) · (1 − P)) over the pairs of a view's tokens with those of view `order[i]` (itself without one).

    features: (view, N, channel), unit vectors, no gradient; assigned: (view, N, K), unit vectors. F = ⟨f, f'⟩, centred
    as STEGO does: each row loses its mean over the second view and gains the mean of F over the batch of pairs.
    P = ⟨p, p'⟩. Neither matrix is formed: Σ F P is the inner product of Σ f pᵀ and Σ f' p'ᵀ, linear in N.
    """
    tokens = features.shape[1]
    mean = features.mean(1)
    moments = features.transpose(1, 2) @ assigned  # (view, channel, K)
    sums = assigned.sum(1)
    centred = moments - mean[:, :, None] * sums[:, None, :]
    if order is None:
        other_mean, other_centred, other_sums = mean, centred, sums
    else:
        other_mean, other_centred, other_sums = mean[order], centred[order], sums[order]
    level = (mean * other_mean).sum(-1).mean() - shift
    similar = (moments * other_centred).sum((1, 2)) + level * (sums * other_sums).sum(-1)
    return level - similar.mean() / tokens**2


class Smooseg(Method):
    def __init__(self, params: SmoosegParams, channels: int) -> None:
        super().__init__()
        self.params = params
        self.projector = Head(channels, params.code, F.silu)
        self.student = nn.Parameter(F.normalize(nn.init.xavier_normal_(torch.empty(params.k, params.code)), dim=-1))
        self.register_buffer("teacher", self.student.detach().clone())
        self.teacher: Tensor

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.projector.parameters())},
            {"params": [self.student], "lr": self.params.learning_rate_prototypes},
        ]

    def loss(self, batch: Batch, dtype: torch.dtype, log: bool) -> tuple[Tensor, dict[str, Tensor]]:
        params = self.params
        generator = batch.generator(params.seed)
        views, channels, device = len(batch.anchors), batch.table.shape[1], batch.table.device
        size = batch.grid[0] * batch.grid[1]
        drawn = torch.rand(views, size, generator=generator).argsort(1)[:, : params.tokens].sort(1).values
        tokens = batch.table.detach()[(drawn + batch.anchors.cpu()[:, None] * size).to(device)].to(dtype)
        kept = (
            channel_dropout(3 * views, channels, params.dropout, generator).to(device, dtype).unflatten(0, (3, views))
        )
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            codes = self.projector(tokens, kept[0], kept[1])
        codes = F.normalize(codes.float(), dim=-1)
        cosines = codes @ self.prototypes().T
        assigned = F.normalize(torch.softmax(cosines / params.temperature, -1), dim=-1)
        features = F.normalize((tokens * kept[2]).float(), dim=-1)

        terms = {"loss_self": smoothness(features, assigned, params.shift_self)}
        if views > 1:
            order = derangement(views, generator).to(device)
            terms["loss_other"] = smoothness(features, assigned, params.shift_other, order)
        labels = cosines.detach().argmax(-1).flatten()
        logits = (codes.detach() @ F.normalize(self.student, dim=-1).T).flatten(0, 1)
        terms["loss_prototypes"] = F.cross_entropy(logits, labels)
        loss = torch.stack(list(terms.values())).sum()
        with torch.no_grad():  # after this step's use of the teacher, before the optimiser moves the student
            self.teacher.lerp_(self.student, 1 - params.ema)
        if not log:
            return loss, {}
        shares = torch.bincount(labels, minlength=params.k).float() / len(labels)
        largest = {"largest_cluster": shares.max()}
        return loss, {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}, **largest}

    def encode(self, tokens: Tensor) -> Codes:
        return Codes(self.projector(tokens))

    def prototypes(self) -> Tensor:
        """The teacher's, which predict."""
        return F.normalize(self.teacher, dim=-1)
