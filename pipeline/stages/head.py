"""head: what turns tokens into codes, by one of the methods of `pipeline.heads`. The backbone never runs here.

Artifact: `head.safetensors` (the method's tensors, and the `center` that is subtracted from tokens first; its metadata
name the method, its settings and the channels), `losses.parquet` (the training log; no rows where nothing is trained by
steps), and a checkpoint part every few hundred steps, from which a killed run goes on.

Every random draw of step t comes from a generator seeded with (seed, t), so a checkpoint holds no generator state.
"""

import json
import logging
import math
from contextlib import closing
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from pipeline.artifacts.features import PART, Tokens, read_center
from pipeline.artifacts.head import COLLAPSED, collapse, tensors
from pipeline.artifacts.suggestion import chosen_k
from pipeline.backbones.devices import compute_dtype, keep_freed_memory, pick_device
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import Params, hashed, variant
from pipeline.heads import METHODS
from pipeline.heads.cause import CauseParams
from pipeline.heads.interface import Batch, Method, MethodParams
from pipeline.heads.pca import PcaParams
from pipeline.heads.pool import Pools
from pipeline.heads.primaps import PrimapsParams
from pipeline.heads.smooseg import SmoosegParams
from pipeline.heads.stego import StegoParams
from pipeline.heads.stegoflow import StegoflowParams
from pipeline.numerics.kmeans import effective_groups, normalise

log = logging.getLogger("stegoflow")


class HeadParams(Params):
    method: Literal["stego", "stegoflow", "smooseg", "cause", "primaps", "pca", "none"] = "stegoflow"
    """`stego`: a small network trained with the correspondence loss, as published. `stegoflow`: the same on tokens in
    their context, balanced to K groups. `smooseg`, `cause`, `primaps`: successors of STEGO, as far as cached tokens and
    no labels go. `pca`: principal components of the tokens. `none`: the tokens themselves. Only the section of the
    chosen method counts."""
    center: Literal["dataset", "none"] = "dataset"
    """`dataset` subtracts the training splits' mean token before neighbours, clustering and head."""
    memory_gib: float = Field(1.5, gt=0)
    """Training tokens up to this size are held whole; of larger sets a pool of this size, changed in the background."""
    seed: int = Field(0, ge=0, lt=2**32)
    stego: StegoParams = variant("method", StegoParams())
    stegoflow: StegoflowParams = variant("method", StegoflowParams())
    smooseg: SmoosegParams = variant("method", SmoosegParams())
    cause: CauseParams = variant("method", CauseParams())
    primaps: PrimapsParams = variant("method", PrimapsParams())
    pca: PcaParams = variant("method", PcaParams())

    @property
    def section(self) -> Any:
        """The chosen method's settings; the bare seed for one that has none."""
        return getattr(self, self.method, None) or MethodParams(seed=self.seed)


CHECKPOINT = 500
"""Steps per checkpoint part."""
LOG_EVERY = 10
SAMPLE = 200
"""Training views that `prepare` sees at most."""
WATCHED = 32
"""Training views whose codes are looked at for a collapse, at every checkpoint."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: HeadParams = with_k(job.params, job.inputs.get("suggestion"))
    near = job.inputs["neighbours"].read_table("neighbours.parquet", ["view", "neighbours"])
    center = read_center(job.inputs["features"], params.center)
    tokens = Tokens(job.inputs["features"])
    keep_freed_memory()
    device = pick_device(job.execution.device)
    torch.manual_seed(params.seed)  # the initial weights; all later draws have generators of their own
    method = METHODS[params.method](params.section, len(center)).to(device)
    if getattr(params.section, "steps", 0):
        facts = train(method, tokens, center, near, params, job, work)
        table = pa.concat_tables(job.out.read_table(f"steps/{name}.parquet") for name in sorted(job.out.markers()))
    else:
        sampled = prepare(method, tokens, center, np.asarray(near["view"]), params, work)
        facts = {"items": len(near), "views": len(near), "sample": sampled}
        table = pa.table({"step": pa.array([], pa.int64())})
    job.out.write_table("losses.parquet", table)
    facts["groups"] = watch(method, tokens, center, np.asarray(near["view"]), params)
    weights = {name: value.detach().cpu().numpy() for name, value in method.state_dict().items()}
    settings = json.dumps(hashed(params.section), sort_keys=True)
    rebuilt = {"method": params.method, "params": settings, "channels": str(len(center))}
    job.out.write_tensors("head.safetensors", {**weights, "center": center}, **rebuilt)
    return {**facts, "bytes": sum(w.nbytes for w in weights.values())}


def prepare(
    method: Method, tokens: Tokens, center: np.ndarray, views: np.ndarray, params: HeadParams, work: Work
) -> int:
    """Let a method see a sample of the training views, at most `SAMPLE` and what `memory_gib` holds; how many."""
    if type(method).prepare is Method.prepare:
        return 0
    each = int(np.prod(tokens.shape[1:])) * 4  # bytes of a view
    count = min(len(views), SAMPLE, max(1, int(params.memory_gib * 2**30 // each)))
    views = np.sort(np.random.default_rng([params.seed, 3]).choice(views, count, replace=False))
    device = pick_device(work.job.execution.device)
    sample = torch.empty((count, *tokens.shape[1:]), device=device)
    for start in range(0, count, PART):
        work.tick(start, count, "views")
        block = torch.from_numpy(tokens.read(views[start : start + PART])).to(device)
        sample[start : start + len(block)] = block.float() - torch.from_numpy(center).to(device)
    with torch.no_grad():
        method.prepare(sample, params.seed)
    work.tick(count, count, "views")
    return count


def with_k(params: HeadParams, suggestion: Artifact | None) -> HeadParams:
    """The params with the suggested K in the chosen section, where that wants one and none was given."""
    section = params.section
    if getattr(section, "k", 0) is not None:
        return params
    return params.model_copy(update={params.method: section.model_copy(update={"k": chosen_k(None, suggestion)})})


def train(
    method: Method,
    tokens: Tokens,
    center: np.ndarray,
    near: pa.Table,
    params: HeadParams,
    job: Job,
    work: Work,
) -> dict[str, Any]:
    """The loop of a method that is trained by steps, from its last checkpoint or the beginning."""
    section = params.section
    steps, cosine = section.steps, getattr(section, "schedule", "constant") == "cosine"
    device = pick_device(job.execution.device)
    optimiser = torch.optim.Adam(method.parameter_groups(), section.learning_rate, fused=True)
    rates = [group["lr"] for group in optimiser.param_groups]
    start = _resume(job.out, method, optimiser)
    if not start:
        prepare(method, tokens, center, np.asarray(near["view"]), params, work)
    dtype = compute_dtype(device, job.execution.precision)
    pools = Pools(tokens, center, near, section.batch, params.memory_gib, params.seed, device, dtype, method.context)

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
                    field = f"head.{params.method}.learning_rate"
                    raise StageError(
                        f"step {step}: the loss is {values['loss']}",
                        next=Set(field, f"{section.learning_rate / 10:g}"),
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


def watch(method: Method, tokens: Tokens, center: np.ndarray, views: np.ndarray, params: HeadParams) -> float:
    """Effective number of groups of the codes of some training views, the same ones every time."""
    views = views[np.linspace(0, len(views) - 1, min(len(views), WATCHED)).astype(int)]
    device = next(iter(method.state_dict().values()), torch.empty(0)).device
    values = torch.from_numpy(tokens.read(views)).to(device).float() - torch.from_numpy(center).to(device)
    method.eval()  # where a method has dropout of its own
    with torch.no_grad():
        codes = method.encode(values).flatten(1, 2)[..., : method.leading].float().cpu().numpy()
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


STAGE = Stage("head", version=1, encoding=1, inputs=("features", "neighbours"), params=HeadParams, compute=compute)
