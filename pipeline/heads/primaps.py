"""PriMaPs-EM: class prototypes fitted to principal mask proposals (Hahn et al. 2024, arXiv 2404.16818).

A view falls apart into masks by its own tokens alone. Moving-average prototypes θ_M name each mask by the majority of
its tokens; a linear student θ_R learns those names, and θ_M follows it. Codes are the tokens themselves.

Where it differs on purpose from the published code:
- masks are those of the token grid: no median filter, no CRF, and tokens that no mask covers are ignored;
- masks are searched in the leading principal components of the sample (`components`): a component of a whole view
  would cost more than all the rest of a step;
- a principal component has no sign: the token nearest to it is the one with the largest |cos|;
- no augmented views, as tokens are cached;
- θ_M starts from cosine k-means of the sample with restarts, instead of the first K principal components moved by two
  epochs of batch-wise cosine k-means;
- a student's row has no length of its own (theirs learns one), because a prototype is a direction here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.heads.interface import Batch, Method
from pipeline.heads.settings import PrimapsParams
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import cosine_kmeans

SQUARINGS = 12
"""Of the covariance, for its first eigenvector: a power iteration of 2¹² steps."""
RESTARTS, ITERATIONS = 5, 25
"""Of k-means, once, before the first step."""


def principal_masks(tokens: Tensor, threshold: float, covered: float, rounds: int) -> Tensor:
    """The mask of each token: (view, N) int64, numbered in the order of finding, −1 where none.

    tokens: (view, N, channel) float32. A round, in every view that is not yet covered: the first principal component of
    the uncovered tokens (centred), the uncovered token nearest to it, and all uncovered ones near enough to that token.
    """
    masks = torch.full(tokens.shape[:2], -1, dtype=torch.int64, device=tokens.device)
    left = torch.ones_like(masks, dtype=torch.bool)
    unit = F.normalize(tokens, dim=-1)
    for number in range(rounds):
        axis = _first_component(tokens, left)
        along = (unit @ axis[:, :, None]).squeeze(-1).abs().masked_fill(~left, -1.0)
        seed = unit.gather(1, along.argmax(1)[:, None, None].expand(-1, 1, unit.shape[2]))
        near = (unit @ seed.transpose(1, 2)).squeeze(-1).masked_fill(~left, -1.0)
        unfinished = left.float().mean(1, keepdim=True) > 1 - covered
        if not unfinished.any():
            break
        take = left & unfinished & (near > threshold * near.amax(1, keepdim=True))
        masks = masks.masked_fill(take, number)
        left = left & ~take
    return masks


def _first_component(tokens: Tensor, chosen: Tensor) -> Tensor:
    """First principal component of each view's chosen tokens: (view, channel) unit vectors, of either sign."""
    weight = chosen.to(tokens.dtype)[:, :, None]
    mean = (tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    centred = (tokens - mean) * weight
    power = centred.transpose(1, 2) @ centred
    for _ in range(SQUARINGS):
        power = power / power.diagonal(dim1=1, dim2=2).sum(-1).clamp(min=1e-30)[:, None, None]
        power = power @ power
    best = power.diagonal(dim1=1, dim2=2).argmax(-1)  # of v vᵀ, the column that is surest of its direction
    return F.normalize(power.gather(2, best[:, None, None].expand(-1, power.shape[1], 1)).squeeze(-1), dim=-1)


def majority(masks: Tensor, votes: Tensor, rounds: int, k: int) -> Tensor:
    """Each token's label, the most frequent vote of its mask's tokens (the lowest of equals), −1 outside: (view, N)."""
    members = F.one_hot(masks + 1, rounds + 1)[:, :, 1:].float()
    counts = members.transpose(1, 2) @ F.one_hot(votes, k).float()  # (view, mask, K)
    names = counts.argmax(-1)
    return names.gather(1, masks.clamp(min=0)).masked_fill(masks < 0, -1)


def focal_loss(logits: Tensor, labels: Tensor, focus: float) -> Tensor:
    """Cross-entropy with class weights (1 − mean confidence)^focus, averaged over all tokens; label −1 adds nothing.

    logits: (n, K); labels: (n,). No gradient flows through the weights.
    """
    weights = (1 - torch.softmax(logits.detach(), -1).mean(0)) ** focus
    return F.cross_entropy(logits, labels, weights, ignore_index=-1, reduction="sum") / len(labels)


class Primaps(Method):
    def __init__(self, params: PrimapsParams, channels: int) -> None:
        super().__init__()
        self.params = params
        self.student = nn.Parameter(F.normalize(torch.randn(params.k, channels), dim=-1))
        self.register_buffer("teacher", self.student.detach().clone())
        self.register_buffer("basis", torch.eye(channels)[:, : params.components].clone())
        self.teacher: Tensor
        self.basis: Tensor

    @torch.no_grad()
    def prepare(self, sample: Tensor, seed: int) -> None:
        """Principal components for the search of masks, cosine k-means for the first prototypes."""
        flat = sample.flatten(0, 2).cpu().float()
        spread = torch.linalg.eigh((flat.T @ flat).double()).eigenvectors  # not centred: cosines are to survive
        self.basis.copy_(spread.flip(1)[:, : self.basis.shape[1]])
        unit = F.normalize(flat, dim=-1).numpy()
        first, _ = cosine_kmeans(unit, self.params.k, restarts=RESTARTS, iterations=ITERATIONS, seed=seed)
        self.student.copy_(torch.from_numpy(first))
        self.teacher.copy_(self.student)

    def loss(self, batch: Batch, dtype: torch.dtype, log: bool) -> tuple[Tensor, dict[str, Tensor]]:
        params = self.params
        tokens = batch.maps(batch.anchors.to(batch.table.device)).detach().flatten(1, 2).float()
        student = F.normalize(self.student, dim=-1)
        with torch.no_grad():
            if batch.step and batch.step % params.ema_every == 0:
                self.teacher.lerp_(student, 1 - params.ema)
            masks = principal_masks(tokens @ self.basis, params.threshold, params.covered, params.rounds)
            votes = (tokens @ self.prototypes().T).argmax(-1)
            labels = majority(masks, votes, params.rounds, params.k)
        logits = (tokens @ student.T).flatten(0, 1)
        loss = focal_loss(logits, labels.flatten(), params.focus)
        if not log:
            return loss, {}
        with torch.no_grad():
            named = labels >= 0
            shares = torch.bincount(labels[named], minlength=params.k).float() / named.sum().clamp(min=1)
            changed = (labels != votes)[named].float().mean()
        return loss, {
            "loss": loss.detach(),
            "masks": (masks.amax(1) + 1).float().mean(),
            "covered": named.float().mean(),
            "outvoted": changed,
            "largest_cluster": shares.max(),
        }

    def encode(self, tokens: Tensor) -> Codes:
        return Codes(tokens)

    def prototypes(self) -> Tensor:
        """θ_M, the moving average: it names the masks, and it is what the published evaluation follows."""
        return F.normalize(self.teacher, dim=-1)
