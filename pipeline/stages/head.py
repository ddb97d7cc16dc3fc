"""head: what turns tokens into codes, by one of the methods of `pipeline.heads`. The backbone never runs here.

Artifact: `head.safetensors` (the method's tensors, and the `center` that is subtracted from tokens first; its metadata
name the method, its settings and the channels), `losses.parquet` (the training log; no rows where nothing is trained by
steps), and a checkpoint part every few hundred steps, from which a killed run goes on.

Every random draw of step t comes from a generator seeded with (seed, t), so a checkpoint holds no generator state.
"""

from __future__ import annotations

import json
import logging
import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import BLOCK, Tokens, read_center
from pipeline.artifacts.head import COLLAPSED, collapse, tensors
from pipeline.artifacts.suggestion import chosen_k
from pipeline.backbones.devices import compute_dtype, keep_freed_memory, pick_device
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import borrowed_from, hashed
from pipeline.heads import network
from pipeline.heads.settings import MethodParams, TrainedParams
from pipeline.numerics.kmeans import effective_groups, normalise

if TYPE_CHECKING:
    import torch

    from pipeline.heads.interface import Method

log = logging.getLogger("stegoflow")


CHECKPOINT = 500
"""Steps per checkpoint part."""
LOG_EVERY = 10
SAMPLE = 200
"""Training views that `prepare` sees at most."""
WATCHED = 32
"""Training views whose codes are looked at for a collapse, at every checkpoint."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    import torch

    params = with_k(job.params, job.inputs.get("suggestion"))
    near = job.inputs["neighbours"].read_table("neighbours.parquet", ["view", "neighbours"])
    center = read_center(job.inputs["features"], params.center)
    tokens = Tokens(job.inputs["features"])
    keep_freed_memory()
    device = pick_device(job.execution.device)
    torch.manual_seed(params.seed)  # the initial weights; all later draws have generators of their own
    method = network(params)(params, len(center)).to(device)
    if isinstance(params, TrainedParams):
        facts = train(method, tokens, center, near, params, job, work)
        table = pa.concat_tables(job.out.read_table(f"steps/{name}.parquet") for name in sorted(job.out.markers()))
    else:
        sampled = prepare(method, tokens, center, np.asarray(near["view"]), params, work)
        facts = {"items": len(near), "views": len(near), "sample": sampled}
        table = pa.table({"step": pa.array([], pa.int64())})
    job.out.write_table("losses.parquet", table)
    facts["groups"] = watch(method, tokens, center, np.asarray(near["view"]), params)
    weights = {name: value.detach().cpu().numpy() for name, value in method.state_dict().items()}
    settings = json.dumps(hashed(params), sort_keys=True)
    rebuilt = {"params": settings, "channels": str(len(center))}
    job.out.write_tensors("head.safetensors", {**weights, "center": center}, **rebuilt)
    return {**facts, "bytes": sum(w.nbytes for w in weights.values())}


def prepare(
    method: Method, tokens: Tokens, center: np.ndarray, views: np.ndarray, params: MethodParams, work: Work
) -> int:
    """Let a method see a sample of the training views, at most `SAMPLE` and what `memory_gib` holds; how many."""
    import torch

    from pipeline.heads.interface import Method

    if type(method).prepare is Method.prepare:
        return 0
    each = int(np.prod(tokens.shape[1:])) * 4  # bytes of a view
    count = min(len(views), SAMPLE, max(1, int(params.memory_gib * 2**30 // each)))
    views = np.sort(np.random.default_rng([params.seed, 3]).choice(views, count, replace=False))
    device = pick_device(work.job.execution.device)
    sample = torch.empty((count, *tokens.shape[1:]), device=device)
    for start in range(0, count, BLOCK):
        work.tick(start, count, "views")
        block = torch.from_numpy(tokens.read(views[start : start + BLOCK])).to(device)
        sample[start : start + len(block)] = block.float() - torch.from_numpy(center).to(device)
    with torch.no_grad():
        method.prepare(sample, params.seed)
    work.tick(count, count, "views")
    return count


def with_k(params: MethodParams, suggestion: Artifact | None) -> MethodParams:
    """The params with the suggested K, where the method needs one and none was given."""
    names = borrowed_from(type(params), "clusters.k")
    missing = [name for name in names if getattr(params, name) is None]
    return params.model_copy(update={name: chosen_k(None, suggestion) for name in missing})


def train(
    method: Method,
    tokens: Tokens,
    center: np.ndarray,
    near: pa.Table,
    params: TrainedParams,
    job: Job,
    work: Work,
) -> dict[str, Any]:
    """The loop of a method that is trained by steps, from its last checkpoint or the beginning."""
    import torch

    from pipeline.heads.interface import Batch
    from pipeline.heads.pool import Pools

    steps, cosine = params.steps, params.schedule == "cosine"
    device = pick_device(job.execution.device)
    optimiser = torch.optim.Adam(method.parameter_groups(), params.learning_rate, fused=True)
    rates = [group["lr"] for group in optimiser.param_groups]
    start = _resume(job.out, method, optimiser)
    if not start:
        prepare(method, tokens, center, np.asarray(near["view"]), params, work)
    dtype = compute_dtype(device, job.execution.precision)
    pools = Pools(tokens, center, near, params.batch, params.memory_gib, params.seed, device, dtype, method.context)

    rows: list[dict[str, float]] = []
    with closing(pools):
        for step in range(start, steps):
            anchors, others = pools.batch(step)
            due = step % LOG_EVERY == 0 or step + 1 == steps
            loss, terms = method.loss(Batch(pools.table, pools.grid, anchors, others, step, steps), dtype, due)
            decay = 0.5 * (1 + math.cos(math.pi * step / steps)) if cosine else 1.0
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * decay
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if due:
                values = {"loss": float(loss.detach())} | {name: float(value) for name, value in terms.items()}
                if not math.isfinite(values["loss"]):
                    raise StageError(
                        f"step {step}: the loss is {values['loss']}",
                        next=Set("head.learning_rate", f"{params.learning_rate / 10:g}"),
                    )
                rows.append({"step": step, **values})
                work.tick(step + 1, steps, "steps")
            if (step + 1) % CHECKPOINT == 0 or step + 1 == steps:
                part = Part(start, step + 1)
                work.count(ran=True, first=_save(job.out, part, method, optimiser, rows))
                start, rows = step + 1, []
                if start < steps and watch(method, tokens, center, np.asarray(near["view"]), params) < COLLAPSED:
                    log.warning("head, step %d of %d: %s", start, steps, collapse(params.method))
    work.parts_total = len(job.out.markers())
    return {"items": steps, "views": len(near), "pool": pools.size}


def watch(method: Method, tokens: Tokens, center: np.ndarray, views: np.ndarray, params: MethodParams) -> float:
    """Effective number of groups of the codes of some training views, the same ones every time."""
    import torch

    views = views[np.linspace(0, len(views) - 1, min(len(views), WATCHED)).astype(int)]
    device = next(iter(method.state_dict().values()), torch.empty(0)).device
    values = torch.from_numpy(tokens.read(views)).to(device).float() - torch.from_numpy(center).to(device)
    method.eval()  # where a method has dropout of its own
    with torch.no_grad():
        codes = method.encode(values).compared.flatten(1, 2).float().cpu().numpy()
    method.train()
    return round(effective_groups(normalise(codes)), 3)


def _save(
    out: Artifact, part: Part, method: Method, optimiser: torch.optim.Optimizer, rows: list[dict[str, float]]
) -> bool:
    """Write a checkpoint and its marker; whether no other run had written that part before."""
    tensors = {f"head.{name}": value.detach().cpu().numpy() for name, value in method.state_dict().items()}
    for name, parameter in method.named_parameters():
        state = optimiser.state.get(parameter, {})  # none where no step has had a gradient for it
        tensors |= {f"{key}.{name}": state[key].cpu().numpy() for key in STATE if key in state}
    out.write_tensors(f"checkpoints/{part.name}.safetensors", tensors)
    out.write_table(f"steps/{part.name}.parquet", pa.Table.from_pylist(rows))
    return out.finish_part(part.name, {"loss": rows[-1]["loss"]})


STATE = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of a parameter."""


def _resume(out: Artifact, method: Method, optimiser: torch.optim.Optimizer) -> int:
    """Load the last checkpoint of an unbroken chain from step 0; the step to go on from."""
    chain = {int(name.split("-")[0]): name for name in out.markers()}
    step, last = 0, ""
    while step in chain:
        last = chain[step]
        step = int(last.split("-")[1])
    if last:
        found = tensors(out, f"checkpoints/{last}.safetensors")
        method.load_state_dict({name: found[f"head.{name}"] for name in method.state_dict()})
        for name, parameter in method.named_parameters():
            if f"step.{name}" in found:
                device = parameter.device
                optimiser.state[parameter] = {key: found[f"{key}.{name}"].to(device) for key in STATE}
    return step


STAGE = Stage("head", version=2, encoding=1, inputs=("features", "neighbours"), params=MethodParams, compute=compute)
