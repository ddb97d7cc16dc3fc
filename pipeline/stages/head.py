"""head: STEGO's small network from token to code, trained on cached tokens. The backbone never runs here.

Artifact: `head.safetensors` (weights, and the `center` that is subtracted from tokens first), `losses.parquet` (loss
terms and correspondence statistics), and a checkpoint part every few hundred steps, from which a killed run goes on.

Every random draw of step t comes from a generator seeded with (seed, t), so a checkpoint holds no generator state.
"""

import math
from contextlib import closing
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.params import Params
from pipeline.models.devices import compute_dtype, keep_freed_memory, pick_device
from pipeline.models.stego import (
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
from pipeline.stages.feature_store import Tokens, read_center
from pipeline.stages.token_pool import Pools


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
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine` lets the learning rate fall to 0 over the steps; the published training holds it constant. The default
    was set after seeing one labelled set (CamVid, storage_layout.md): without it 2 000 steps end worse than 1 000."""
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
    seed: int = Field(0, ge=0, lt=2**32)


CHECKPOINT = 500
"""Steps per checkpoint part."""
LOG_EVERY = 10


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: HeadParams = job.params
    near = job.inputs["neighbours"].read_table("neighbours.parquet", ["view", "neighbours"])
    center = read_center(job.inputs["features"], params.center)
    keep_freed_memory()
    device = pick_device(job.execution.device)
    torch.manual_seed(params.seed)  # the initial weights; all later draws have generators of their own
    head = Head(len(center), params.code).to(device)
    optimiser = torch.optim.Adam(head.parameters(), params.learning_rate, fused=True)
    start = _resume(job.out, head, optimiser)
    tokens = Tokens(job.inputs["features"])
    dtype = compute_dtype(device, job.execution.precision)
    pools = Pools(tokens, center, near, params.batch, params.memory_gib, params.seed, device, dtype)

    rows: list[dict[str, float]] = []
    with closing(pools):
        for step in range(start, params.steps):
            anchors, others = pools.batch(step)
            log = step % LOG_EVERY == 0 or step + 1 == params.steps
            loss, terms = train_step(head, pools.table, pools.grid, anchors, others, params, dtype, step, log)
            decay = 0.5 * (1 + math.cos(math.pi * step / params.steps)) if params.schedule == "cosine" else 1.0
            optimiser.param_groups[0]["lr"] = params.learning_rate * decay
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if log:
                rows.append({"step": step, **{name: float(value) for name, value in terms.items()}})
                work.tick(step + 1, params.steps, "steps")
            if (step + 1) % CHECKPOINT == 0 or step + 1 == params.steps:
                part = Part(start, step + 1)
                work.count(ran=True, first=_save(job.out, part, head, optimiser, rows))
                start, rows = step + 1, []

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
    params: HeadParams,
    dtype: torch.dtype,
    step: int,
    log: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one step and, where `log`, its terms and the statistics of the correspondences.

    table: (view × row × column, channel), centred; anchors: (B,) views in it; others: (B,) a neighbour of each, or
    None where there is no other image. Without neighbours, or with a single view, the terms that need them are left
    out. `dtype` is that of the matrix products.
    """
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + step)
    views, channels, device = len(anchors), table.shape[1], table.device
    first = random_positions(views, params.samples, *grid, generator)
    second = random_positions(views, params.samples, *grid, generator)
    # An anchor's two samples are one forward pass and share a mask; a neighbour is another.
    kept = channel_dropout(6 * views, channels, params.dropout, generator).to(device, dtype).unflatten(0, (3, 2, views))
    sources = [(anchors, first, 0), (anchors, second, 0)] + ([] if others is None else [(others, second, 1)])
    rows = torch.cat([row for row, _, _ in sources]).to(device)
    positions = torch.cat([position for _, position, _ in sources]).to(device)
    tokens = sample_tokens(table, rows, positions, *grid).to(dtype)
    linear, hidden, teacher = (torch.cat([masks[who] for _, _, who in sources]) for masks in kept)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        codes = head(tokens, linear, hidden)
    with torch.no_grad():
        features = unit(tokens * teacher)
    pieces = zip(features.split(views), unit(codes).to(dtype).split(views), strict=True)
    sides = [sampled(f, z) for f, z in pieces]

    terms: dict[str, tuple[float, float, list[tuple[Sampled, Sampled, Tensor | None]]]] = {}
    terms["self"] = params.weight_self, params.shift_self, [(sides[0], sides[0], None)]
    if others is not None:
        terms["neighbours"] = params.weight_neighbours, params.shift_neighbours, [(sides[0], sides[2], None)]
    if views > 1 and params.negatives:
        orders = [derangement(views, generator).to(device) for _ in range(params.negatives)]
        terms["random"] = params.weight_random, params.shift_random, [(sides[0], sides[1], order) for order in orders]
    loss = torch.zeros((), device=device)
    stats: dict[str, Tensor] = {}
    for kind, (weight, shift, pairs) in terms.items():
        values = [correspondence_loss(a, b, shift, order=o, zero_clamp=params.zero_clamp) for a, b, o in pairs]
        mean = torch.stack(values).mean()
        loss = loss + weight * mean
        if log:
            a, b, o = pairs[0]
            stats[f"loss_{kind}"] = mean.detach()
            stats |= {f"{name}_{kind}": value for name, value in pair_statistics(a, b, shift, o).items()}
    return loss, {"loss": loss.detach(), **stats}


def unit(x: Tensor) -> Tensor:
    """`x` over its L2 norm along the last axis."""
    return x * torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-6).reciprocal()


def _save(
    out: Artifact, part: Part, head: Head, optimiser: torch.optim.Optimizer, rows: list[dict[str, float]]
) -> bool:
    """Write a checkpoint and its marker; whether no other run had written that part before."""
    tensors = {f"head.{name}": value.detach().cpu().numpy() for name, value in head.state_dict().items()}
    for (name, _), state in zip(head.named_parameters(), optimiser.state.values(), strict=True):
        tensors |= {f"{key}.{name}": state[key].cpu().numpy() for key in ("step", "exp_avg", "exp_avg_sq")}
    out.write_tensors(f"checkpoints/{part.name}.safetensors", tensors)
    out.write_table(f"steps/{part.name}.parquet", pa.Table.from_pylist(rows))
    return out.finish_part(part.name, {"loss": rows[-1]["loss"]})


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


@lru_cache(maxsize=2)
def open_head(artifact: Artifact, device: str) -> TrainedHead:
    """The head of an artifact on `execution.device`, loaded once per process."""
    return TrainedHead(artifact, pick_device(device))


STAGE = Stage("head", version=1, encoding=1, inputs=("features", "neighbours"), params=HeadParams, compute=compute)
