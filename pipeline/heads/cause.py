"""CAUSE with an MLP head, without its label path (Kim et al. 2023, arXiv 2310.07379).

Three phases of one loop of steps:
1. a codebook in the space of tokens, whose codewords maximise the modularity of each view's graph of similarities;
2. a head, contrasted with its moving average: a token's positives are tokens (and banked ones) whose codewords are
   similar, its negatives those whose codewords are not;
3. a cluster probe, by the same modularity on the codes of the averaged head.

The published third phase also back-propagates a cross-entropy on ground truth into the evaluated head. No label enters
here, so published scores are not comparable. Other differences from the published code, on purpose:
- the phases are shares of one run (theirs are three programs of 1, 2 and 1 epochs), so that any step can be resumed;
- small sets use fewer codewords: at most one per eight tokens of the sample;
- `bank` projections per codeword, of `projection` numbers (theirs: 100 of 2,048, which is 1.6 GiB), and a random half
  of a batch's tokens enters it (theirs: half of each codeword's, rounded down);
- the probe starts from k-means of one batch's codes: from small random numbers, as published, centres die early and
  others serve two clusters; on planted clusters the k-means start ended at the higher modularity in 15 runs of 15;
- the averaged head is moved at the start of a step instead of the end of the one before;
- no weight decay, no clipping of gradients; a view whose sides do not divide by `cell` gets a random offset.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.heads.correspondence import Head
from pipeline.heads.interface import Batch, Method
from pipeline.heads.settings import CauseParams
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import cosine_kmeans

BLOCK, KMEANS = 64, {"restarts": 5, "iterations": 25}


def modularity_loss(tokens: Tensor, centres: Tensor, temperature: float) -> Tensor:
    """−tr(W δ)/e, averaged over views; the gradient is that of the centres.

    tokens: (view, N, channel); centres: (K, channel). A = relu(cos) of a view's tokens, without its diagonal;
    d its row sums, e their sum; W = A − d dᵀ/e. With C = relu(cos) of tokens and centres,
    δ_ij = max_k tanh(C_ik C_jk / temperature), where the maximum is found first, as tanh rises.
    """
    with torch.no_grad():
        unit = F.normalize(tokens, dim=-1)
        graph = (unit @ unit.transpose(1, 2)).clamp(min=0)
        graph.diagonal(dim1=1, dim2=2).zero_()
        edges = graph.sum((1, 2), keepdim=True).clamp(min=1e-6)
        degrees = graph.sum(2, keepdim=True) / edges
        excess = graph / edges - degrees @ degrees.transpose(1, 2)
    similar = (unit @ F.normalize(centres, dim=-1).T).clamp(min=0)
    shared = _best_shared(similar.detach())
    first = similar.gather(2, shared)
    delta = torch.tanh(first * first.transpose(1, 2) / temperature)
    return -(excess * delta).sum((1, 2)).mean()


def _best_shared(similar: Tensor) -> Tensor:
    """argmax_k C_ik C_jk: (view, N, N), symmetric; `similar`: (view, N, K), none negative. Row by row, as all products
    would be gigabytes; the best block of centres, then the best of it, as an argmax is six times as slow as a maximum.
    """
    views, tokens, centres = similar.shape
    blocks = F.pad(similar, (0, -centres % BLOCK)).unflatten(2, (-1, BLOCK))
    best = torch.empty(views, tokens, tokens, dtype=torch.int64, device=similar.device)
    for row in range(tokens):
        products = blocks[:, row:] * blocks[:, row : row + 1]
        block = products.amax(-1).argmax(-1)
        inside = products.gather(2, block[:, :, None, None].expand(-1, -1, 1, BLOCK)).squeeze(2).argmax(-1)
        best[:, row, row:] = best[:, row:, row] = block * BLOCK + inside
    return best.clamp(max=centres - 1)  # where all products are 0, the padding may have won


def contrast(
    student: Tensor,
    keys: Tensor,
    cosines: Tensor,
    *,
    itself: bool,
    positive: float,
    negative: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Sum and number of the views' contrasts of student projections with keys. A view's is the mean over its positive
    pairs (i, p) of −log( exp(s_ip/τ) / Σ exp(s_i·/τ) over i's positives and negatives ); without any, it has none.
    student: (view, N, P) unit vectors; keys: (M, P) unit vectors without gradient; cosines: (view × N, M) of the
    codewords of both; itself: whether keys are the teacher's of the same tokens, so that a token's own is no positive.
    """
    views, tokens = student.shape[:2]
    logits = (student.flatten(0, 1) @ keys.T).float() / temperature
    with torch.no_grad():
        positives = cosines > positive
        if itself:
            positives.fill_diagonal_(False)
        counted = positives | (cosines < negative)
        pairs = positives.sum(1).float()
    # |s/τ| stays far below what exp overflows at, so no maximum is taken off first.
    total = (logits.exp() * counted).sum(1).clamp(min=1e-30).log()
    each = pairs * total - (logits * positives).sum(1)
    per_view, per_view_pairs = each.view(views, tokens).sum(1), pairs.view(views, tokens).sum(1)
    return (per_view / per_view_pairs.clamp(min=1)).sum(), (per_view_pairs > 0).sum()


class Student(nn.Module):
    def __init__(self, channels: int, code: int, projection: int) -> None:
        super().__init__()
        self.head = Head(channels, code)
        self.projection = nn.Linear(code, projection)

    def forward(self, tokens: Tensor, drop: Tensor) -> Tensor:
        return self.projection(self.head(tokens, drop[0], drop[1]))


class Cause(Method):
    active: Tensor
    bank: Tensor
    banked: Tensor

    def __init__(self, params: CauseParams, channels: int) -> None:
        super().__init__()
        self.params = params
        words, code = params.codewords, params.code
        self.codebook = nn.Parameter(torch.empty(words, channels).uniform_(-1 / words, 1 / words))
        self.student = Student(channels, code, params.projection)
        self.teacher = _as_buffers(self.student)
        self.probe = nn.Parameter(torch.empty(params.k, code).uniform_(-1 / params.k, 1 / params.k))
        self.register_buffer("active", torch.tensor(words))  # codewords in use: the first ones
        self.register_buffer("bank", torch.zeros(words, params.bank, params.projection))
        self.register_buffer("banked", torch.zeros(words, dtype=torch.int64))  # projections ever written per codeword

    def prepare(self, sample: Tensor, seed: int) -> None:
        self.active.fill_(min(self.params.codewords, max(1, sample.shape[:3].numel() // 8)))

    def phases(self, steps: int) -> tuple[int, int]:
        """The first steps of the head's and of the probe's phase."""
        head = max(1, round(self.params.share_codebook * steps))
        return head, max(head + 1, steps - max(1, round(self.params.share_probe * steps)))

    def loss(self, batch: Batch, dtype: torch.dtype, log: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Log: `phase` is 1, 2 or 3; `used` counts codewords (in 3: centres) that are nearest to a token of a batch."""
        params = self.params
        generator = batch.generator(params.seed)
        tokens = one_per_cell(batch, params.cell, generator).to(dtype)
        start, end = self.phases(batch.steps)
        if start <= batch.step <= end:
            self._follow(0.0 if batch.step == start else params.ema)
        if batch.step == end and params.probe_start == "kmeans":
            self._start_probe(batch)
        centres = self.probe if batch.step >= end else self._words()
        seen = tokens.float()
        if start <= batch.step < end:
            loss = self._contrast(tokens, dtype, generator)
        else:
            if batch.step >= end:
                with torch.no_grad(), self._products(dtype):
                    seen = self.teacher.head(tokens, *self._drop(tokens, 1, generator)[0]).float()
            loss = modularity_loss(seen, centres, params.temperature_modularity)
        if not log:
            return loss, {}
        phase = 1 + (batch.step >= start) + (batch.step >= end)
        used = len(nearest(seen, centres.detach()).unique())
        return loss, {"loss": loss.detach(), "phase": torch.tensor(phase), "used": torch.tensor(used)}

    def _products(self, dtype: torch.dtype) -> torch.autocast:
        """For the heads only: a modularity is a difference of small numbers and stays in float32."""
        return torch.autocast(self.probe.device.type, dtype, enabled=dtype != torch.float32)

    def _words(self) -> Tensor:
        return self.codebook[: int(self.active)]

    def _drop(self, tokens: Tensor, heads: int, generator: torch.Generator) -> Tensor:
        """Masks of numbers for both branches of some heads: (head, branch, *tokens.shape)."""
        keep = torch.rand(heads, 2, *tokens.shape, generator=generator) >= self.params.dropout
        return keep.to(tokens.device, tokens.dtype) / (1 - self.params.dropout)

    @torch.no_grad()
    def _start_probe(self, batch: Batch) -> None:
        codes = self.encode(batch.maps(batch.anchors.to(batch.table.device)).float()).compared.flatten(0, 2)
        if len(codes) >= self.params.k:
            unit = F.normalize(codes, dim=-1).cpu().numpy()
            self.probe.copy_(torch.from_numpy(cosine_kmeans(unit, self.params.k, seed=self.params.seed, **KMEANS)[0]))

    def _contrast(self, tokens: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        params = self.params
        drop = self._drop(tokens, 2, generator)
        with self._products(dtype):
            projected = self.student(tokens, drop[0])
            with torch.no_grad():
                averaged = self.teacher(tokens, drop[1])
        student = F.normalize(projected.float(), dim=-1)
        with torch.no_grad():
            keys = F.normalize(averaged.float(), dim=-1).flatten(0, 1)
            words = F.normalize(self._words(), dim=-1)
            which = nearest(tokens.float(), words).flatten()
            cosines = (words @ words.T)[which]  # of each token's codeword with all codewords
            slots = torch.arange(params.bank, device=tokens.device)
            filled = (slots < self.banked[: len(words), None]).nonzero()
            banked = self.bank[filled[:, 0], filled[:, 1]]
        limits = params.model_dump(include={"positive", "negative", "temperature"})
        total, views = contrast(student, keys, cosines[:, which], itself=True, **limits)
        if len(banked):
            more, more_views = contrast(student, banked, cosines[:, filled[:, 0]], itself=False, **limits)
            total, views = total + more, views + more_views
        self._deposit(which, keys, generator)
        return total / views.clamp(min=1)

    @torch.no_grad()
    def _follow(self, keep: float) -> None:
        """Move the averaged head towards the student; keep 0 makes it a copy."""
        for mine, theirs in zip(self.teacher.buffers(), self.student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - keep)

    @torch.no_grad()
    def _deposit(self, which: Tensor, keys: Tensor, generator: torch.Generator) -> None:
        """A random half of the batch's keys enters the bank, in place of their codewords' oldest."""
        slots = self.params.bank
        half = torch.randperm(len(which), generator=generator)[: len(which) // 2].to(which.device)
        words, order = which[half].sort(stable=True)
        counts = torch.bincount(words, minlength=len(self.banked))
        rank = torch.arange(len(words), device=words.device) - (counts.cumsum(0) - counts)[words]
        new = rank < slots  # so that no slot is written twice
        words, order, rank = words[new], order[new], rank[new]
        self.bank[words, (self.banked[words] + rank) % slots] = keys[half][order]
        self.banked += counts.clamp(max=slots)

    def encode(self, tokens: Tensor) -> Codes:
        return Codes(self.teacher.head(tokens))

    def prototypes(self) -> Tensor:
        """The centres of the cluster probe."""
        return F.normalize(self.probe.detach(), dim=-1)


def nearest(tokens: Tensor, centres: Tensor) -> Tensor:
    return (tokens @ F.normalize(centres, dim=-1).T).argmax(-1)


def one_per_cell(batch: Batch, cell: int, generator: torch.Generator) -> Tensor:
    """Of each anchor, one random token per cell × cell square: (view, square, channel), in the table's dtype."""
    rows, columns = batch.grid
    tall, wide = min(cell, rows), min(cell, columns)
    shape = (len(batch.anchors), rows // tall, columns // wide)

    def drawn(size: int, side: int, squares: int, axis: int) -> Tensor:
        offset = torch.randint(size - squares * side + 1, (shape[0], 1, 1), generator=generator)
        corners = torch.arange(squares).view([-1 if a == axis else 1 for a in range(3)]) * side
        return offset + corners + torch.randint(side, shape, generator=generator)

    index = drawn(rows, tall, shape[1], 1) * columns + drawn(columns, wide, shape[2], 2)
    index = index.flatten(1) + batch.anchors.cpu()[:, None] * (rows * columns)
    return batch.table.detach()[index.to(batch.table.device)]


def _as_buffers(module: Student) -> Student:
    """A copy whose parameters are buffers: saved and moved, never trained."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return twin
