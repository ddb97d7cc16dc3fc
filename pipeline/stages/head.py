"""head: STEGO's small network from token to code, trained on cached tokens. The backbone never runs here.

Artifact: `head.safetensors` (weights, and the `center` that is subtracted from tokens first), `losses.parquet` (loss
terms and correspondence statistics), and a checkpoint part every few hundred steps, from which a killed run goes on.

Every random draw of step t comes from a generator seeded with (seed, t), so a checkpoint holds no generator state.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import zarr
from pydantic import Field
from torch import Tensor

from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.params import Params
from pipeline.models.devices import autocast, pick_device
from pipeline.models.stego import (
    Head,
    channel_dropout,
    correspondence_loss,
    derangement,
    pair_statistics,
    random_positions,
    sample_tokens,
)
from pipeline.stages.features import open_group


class HeadParams(Params):
    method: Literal["stego"] = "stego"
    """What the head is trained with."""
    center: Literal["dataset", "none"] = "dataset"
    """`dataset` subtracts the training splits' mean token before neighbours, clustering and head."""
    steps: int = Field(2000, ge=1)
    batch: int = Field(32, ge=1)
    """Anchor views per step."""
    code: int = Field(70, ge=1)
    """Code size D."""
    samples: int = Field(11, ge=1)
    """samples² random positions are compared per view."""
    negatives: int = Field(5, ge=0)
    """Shuffles of the batch that serve as random pairs."""
    learning_rate: float = Field(5e-4, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of channels dropped per view, independently on both branches and on the teacher's features."""
    weight_self: float = Field(0.67, ge=0)
    weight_neighbours: float = Field(0.25, ge=0)
    weight_random: float = Field(0.63, ge=0)
    shift_self: float = 0.18
    """b of the pairs of a view with itself: similarities above attract, below repel. These three are the active
    defaults of the published configuration file, which belong to no benchmark; they depend on the backbone."""
    shift_neighbours: float = 0.12
    shift_random: float = 0.46
    zero_clamp: bool = True
    """Code similarities below 0 count as 0."""
    memory_gib: float = Field(4.0, gt=0)
    """Training tokens up to this size are held whole; of larger sets a pool of this size, changed in the background."""
    seed: int = 0


CHECKPOINT = 500
"""Steps per checkpoint part."""
LOG_EVERY = 10


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: HeadParams = job.params
    group = open_group(job.inputs["features"])
    near = job.inputs["neighbours"].read_table("neighbours.parquet", ["view", "neighbours"])
    center = (
        np.asarray(group["center"][:]) if params.center == "dataset" else np.zeros(group["center"].shape, np.float32)
    )  # type: ignore
    device = pick_device(job.execution.device)
    torch.manual_seed(params.seed)  # the initial weights; all later draws have generators of their own
    head = Head(len(center), params.code).to(device)
    optimiser = torch.optim.Adam(head.parameters(), params.learning_rate, fused=True)
    start = _resume(job.out, head, optimiser)
    pools = Pools(group["tokens"], near, params, device)  # type: ignore[arg-type]
    centered = torch.from_numpy(center).to(device)

    rows: list[dict[str, float]] = []
    for step in range(start, params.steps):
        anchors, others = pools.batch(step)
        with autocast(device, job.execution.precision):
            log = step % LOG_EVERY == 0 or step + 1 == params.steps
            loss, terms = train_step(head, pools.table, pools.grid, anchors, others, centered, params, step, log)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if log:
            rows.append({"step": step, **{name: float(value) for name, value in terms.items()}})
            work.tick(step + 1, params.steps, "steps")
        if (step + 1) % CHECKPOINT == 0 or step + 1 == params.steps:
            part = Part(start, step + 1)
            _save(job.out, part, head, optimiser, rows)
            work.parts_run += 1
            start, rows = step + 1, []
    pools.close()

    parts = sorted(job.out.markers())
    work.parts_total = len(parts)
    job.out.write_table(
        "losses.parquet", pa.concat_tables(job.out.read_table(f"steps/{name}.parquet") for name in parts)
    )
    weights = {name: value.detach().cpu().numpy() for name, value in head.state_dict().items()}
    job.out.write_tensors("head.safetensors", {**weights, "center": center}, method=params.method)
    return {
        "items": params.steps,
        "views": len(near),
        "pool": pools.size,
        "bytes": sum(w.nbytes for w in weights.values()),
    }


def train_step(
    head: Head,
    table: Tensor,
    grid: tuple[int, int],
    anchors: Tensor,
    others: Tensor | None,
    center: Tensor,
    params: HeadParams,
    step: int,
    log: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one step and, where `log`, its terms and the statistics of the correspondences.

    table: (view × row × column, channel); anchors: (B,) views in it; others: (B,) a neighbour of each, or None where
    there is no other image. Without neighbours, or with a single view, the terms that need them are left out.
    """
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + step)
    views, channels, device = len(anchors), table.shape[1], table.device
    first = random_positions(views, params.samples, *grid, generator)
    second = random_positions(views, params.samples, *grid, generator)
    sources = [(anchors, first), (anchors, second)] + ([(others, second)] if others is not None else [])
    tokens = sample_tokens(
        table,
        torch.cat([view for view, _ in sources]).to(device),  # type: ignore[misc]
        torch.cat([positions for _, positions in sources]).to(device),
        *grid,
    )
    dtype = _product_dtype(device)
    tokens = (tokens.float() - center).to(dtype)
    masks = []
    for _ in range(3):  # linear branch, hidden branch, teacher; an anchor's two samples are one forward pass, one mask
        anchor = channel_dropout(views, channels, params.dropout, generator)
        other = channel_dropout(views, channels, params.dropout, generator)
        masks.append(torch.cat([anchor, anchor, other][: len(sources)]).to(device, dtype))
    z = unit(head(tokens, masks[0], masks[1])).to(dtype).split(views)
    with torch.no_grad():
        f = unit(tokens * masks[2]).to(dtype).split(views)

    def shuffled() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        order = derangement(views, generator).to(device)
        return f[0], f[1][order], z[0], z[1][order]

    terms = {"self": (params.weight_self, params.shift_self, [(f[0], f[0], z[0], z[0])])}
    if others is not None:
        pairs = [(f[0], f[2], z[0], z[2])]
        terms["neighbours"] = (params.weight_neighbours, params.shift_neighbours, pairs)
    if views > 1 and params.negatives:
        pairs = [shuffled() for _ in range(params.negatives)]
        terms["random"] = (params.weight_random, params.shift_random, pairs)
    loss = torch.zeros((), device=device)
    stats: dict[str, Tensor] = {}
    for kind, (weight, shift, pairs) in terms.items():
        values = [correspondence_loss(*pair, shift, zero_clamp=params.zero_clamp).float() for pair in pairs]
        mean = torch.stack(values).mean()
        loss = loss + weight * mean
        if log:
            stats[f"loss_{kind}"] = mean.detach()
            stats |= {f"{name}_{kind}": value for name, value in pair_statistics(*pairs[0], shift).items()}
    return loss, {"loss": loss.detach(), **stats}


def unit(x: Tensor) -> Tensor:
    """`x` over its L2 norm along the last axis; the norm in float32 at least."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return x * norm.clamp(min=1e-12).reciprocal().to(x.dtype)


def _product_dtype(device: torch.device) -> torch.dtype:
    kind = device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


class Pools:
    """The training tokens in memory: all of them, or a pool of views that is replaced while training goes on.

    A pool holds anchors and one neighbour of each; it serves as many steps as show each anchor once, while a thread
    reads the next. Which views are in pool p follows from (seed, p) alone.
    """

    def __init__(self, tokens: zarr.Array, near: pa.Table, params: HeadParams, device: torch.device) -> None:
        self.tokens, self.params, self.device = tokens, params, device
        self.views = np.asarray(near["view"])
        position = {int(view): i for i, view in enumerate(self.views)}
        self.near = [np.asarray([position[v] for v in line], np.int64) for line in near["neighbours"].to_pylist()]
        self.grid = (int(tokens.shape[1]), int(tokens.shape[2]))
        each = int(np.prod(tokens.shape[1:])) * 2
        fits = int(params.memory_gib * 2**30 // each)
        self.whole = len(self.views) <= fits
        # Two pools are in memory while one replaces the other; half of each pool are anchors.
        self.anchors = len(self.views) if self.whole else max(params.batch, fits // 4)
        self.size = len(self.views) if self.whole else 2 * self.anchors
        self.batch_size = min(params.batch, self.anchors)
        self.steps_each = max(1, self.anchors // self.batch_size)
        self.reader = ThreadPoolExecutor(1)
        self.current = -1
        self.next: tuple[int, Future[Tensor]] | None = None
        self.table: Tensor
        if self.whole:
            self.table = self._load(self.views)

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Anchors and a neighbour of each, as rows of `table`, for a step."""
        generator = np.random.default_rng([self.params.seed, step, 1])
        epoch, place = divmod(step, self.steps_each)
        order = np.random.default_rng([self.params.seed, epoch, 2]).permutation(len(self.views))[: self.anchors]
        span = slice(place * self.batch_size, (place + 1) * self.batch_size)
        if self.whole:
            anchors = order[span]
            if not all(len(self.near[a]) for a in anchors):
                return torch.from_numpy(anchors), None
            others = np.asarray([generator.choice(self.near[a]) for a in anchors])
            return torch.from_numpy(anchors), torch.from_numpy(others)
        if epoch != self.current:
            self._switch(epoch)
        rows = np.arange(self.anchors)[span]
        return torch.from_numpy(rows), torch.from_numpy(rows + self.anchors)

    def _switch(self, epoch: int) -> None:
        if self.next is None or self.next[0] != epoch:
            self.next = epoch, self.reader.submit(self._load, self._members(epoch))
        self.table, self.current = self.next[1].result(), epoch
        self.next = epoch + 1, self.reader.submit(self._load, self._members(epoch + 1))

    def _members(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.params.seed, epoch, 2])
        anchors = generator.permutation(len(self.views))[: self.anchors]
        others = [generator.choice(self.near[a]) if len(self.near[a]) else a for a in anchors]
        return self.views[np.concatenate([anchors, np.asarray(others, np.int64)])]

    def _load(self, views: np.ndarray) -> Tensor:
        table = torch.from_numpy(read_views(self.tokens, views)).flatten(0, 2)
        return table.to(self.device)

    def close(self) -> None:
        self.reader.shutdown(cancel_futures=True)


def read_views(tokens: zarr.Array, views: np.ndarray) -> np.ndarray:
    """Tokens of the given views in their order, (view, row, column, channel) float16. Neighbouring ones are read at
    once; scattered ones one by one, which is many times faster on a sharded array than one orthogonal selection."""
    out = np.empty((len(views), *tokens.shape[1:]), np.float16)
    order = np.argsort(views, kind="stable")
    for run in _runs(views[order], int(tokens.shards[0]) if tokens.shards else 32):
        first, last = int(views[order[run.start]]), int(views[order[run.stop - 1]])
        block = np.asarray(tokens[first : last + 1])
        out[order[run]] = block[views[order[run]] - first]
    return out


def _runs(views: np.ndarray, longest: int) -> Iterator[slice]:
    start = 0
    for i in range(1, len(views) + 1):
        if i == len(views) or views[i] > views[i - 1] + 1 or views[i] // longest != views[start] // longest:
            yield slice(start, i)
            start = i


def _save(
    out: Artifact, part: Part, head: Head, optimiser: torch.optim.Optimizer, rows: list[dict[str, float]]
) -> None:
    tensors = {f"head.{name}": value.detach().cpu().numpy() for name, value in head.state_dict().items()}
    for (name, _), state in zip(head.named_parameters(), optimiser.state.values(), strict=True):
        tensors |= {f"{key}.{name}": state[key].cpu().numpy() for key in ("step", "exp_avg", "exp_avg_sq")}
    out.write_tensors(f"checkpoints/{part.name}.safetensors", tensors)
    out.write_table(f"steps/{part.name}.parquet", pa.Table.from_pylist(rows))
    out.finish_part(part.name, {"loss": rows[-1]["loss"]})


def _resume(out: Artifact, head: Head, optimiser: torch.optim.Optimizer) -> int:
    """Load the last checkpoint of an unbroken chain from step 0; the step to go on from."""
    chain = {int(name.split("-")[0]): name for name in out.markers()}
    step, last = 0, ""
    while step in chain:
        last = chain[step]
        step = int(last.split("-")[1])
    if last:
        tensors = {
            name: torch.from_numpy(v.copy()) for name, v in out.read_tensors(f"checkpoints/{last}.safetensors").items()
        }
        head.load_state_dict({name: tensors[f"head.{name}"] for name in head.state_dict()})
        for name, parameter in head.named_parameters():
            device = parameter.device
            state = {key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            optimiser.state[parameter] = {key: value.to(device) for key, value in state.items()}
    return step


class TrainedHead:
    """A head artifact applied to raw tokens: centre, then the two branches."""

    def __init__(self, artifact: Artifact, device: torch.device | None = None) -> None:
        tensors = {
            name: torch.from_numpy(value.copy()) for name, value in artifact.read_tensors("head.safetensors").items()
        }
        self.device = device or torch.device("cpu")
        self.center = tensors.pop("center").to(self.device)
        code, channels = tensors["linear.weight"].shape
        self.head = Head(channels, code).eval().to(self.device)
        self.head.load_state_dict(tensors)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Raw tokens (…, channel), any float dtype, to codes (…, D) float32."""
        with torch.inference_mode():
            centered = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device).float() - self.center
            return self.head(centered).float().cpu().numpy()


STAGE = Stage("head", version=1, encoding=1, inputs=("features", "neighbours"), params=HeadParams, compute=compute)
