"""probe: linear classifiers trained with labels, on codes and on tokens. Only to measure; never in the output.

Artifact: `probe.safetensors` with `codes.weight` (class, D), `codes.bias`, `tokens.weight` (class, channel),
`tokens.bias`, and the `center` that is subtracted from tokens first; all float32. Of codes, what is compared.
A token's target is the share of each class in its patch, so that no label map is resampled.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from pipeline.artifacts.features import BLOCK, Tokens, training_views, view_pieces
from pipeline.artifacts.head import TrainedHead, open_head
from pipeline.artifacts.labels import LabelMaps
from pipeline.backbones.devices import pick_device
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import StageError
from pipeline.core.params import Params, borrowed
from pipeline.numerics.views import Window, area_fractions

if TYPE_CHECKING:
    import torch


class ProbeParams(Params):
    tokens: int = Field(300_000, ge=1)
    """At most this many labelled training tokens are used, the same number of every view."""
    epochs: int = Field(10, ge=1)
    batch: int = Field(2048, ge=1)
    """Tokens per step."""
    learning_rate: float = Field(3e-3, gt=0)
    seed: int = Field(0, ge=0, lt=2**32)
    center: str = borrowed("head.center")


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ProbeParams = job.params
    features = job.inputs["features"]
    device = pick_device(job.execution.device)
    head = open_head(job.inputs["head"], job.execution.device)
    maps = LabelMaps(job.inputs["labels"], job.roots["training_labels"].location)
    tokens, codes, shares = labelled_tokens(job, maps, head, work)
    if not len(tokens):
        raise StageError(
            "no training image has a label map", next="add labels for training images, or remove ROOT/labels"
        )
    center = head.center.cpu().numpy()
    tensors: dict[str, np.ndarray] = {"center": center}
    centred = tokens.astype(np.float32)
    centred -= center
    for name, inputs in (("codes", codes), ("tokens", centred)):
        weight, bias = fit_linear(inputs, shares, params, device)
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    job.out.write_tensors("probe.safetensors", tensors)
    return {"items": len(tokens), "images": features.manifest["images"], "classes": len(maps.names)}


def labelled_tokens(
    job: Job, maps: LabelMaps, head: TrainedHead, work: Work
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens (n, channel) float16 of labelled training views, of their codes what is compared, (n, D) float32, the head
    being applied to whole views, and their class shares (n, class) float32."""
    params: ProbeParams = job.params
    tokens = Tokens(job.inputs["features"])
    table, trained = view_pieces(job.inputs["features"]), training_views(job.inputs["features"])
    sampled = table.take(trained).select(["split", "id"])
    keys = zip(*(column.to_pylist() for column in sampled.columns), strict=True)
    labelled = trained[np.asarray([key in maps for key in keys], bool)]
    rows, columns = tokens.shape[1:3]
    each = min(rows * columns, max(1, params.tokens // max(1, len(labelled))))
    found: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    for start in range(0, len(labelled), BLOCK):
        work.tick(start, len(labelled), "views")
        part = table.take(labelled[start : start + BLOCK]).to_pylist()
        block = tokens.read(np.asarray([view["view"] for view in part]))
        encoded = head(block).compared
        for view, values, code in zip(part, _flat(block), _flat(encoded), strict=True):
            if not np.isfinite(values[0, 0]):  # its image could not be decoded
                continue
            box, size = Window(*(view[key] for key in Window._fields)), (view["image_height"], view["image_width"])
            top, left = floor(box.y0), floor(box.x0)
            window = slice(top, ceil(box.y0 + box.height)), slice(left, ceil(box.x0 + box.width))
            label = maps.window(view["split"], view["id"], window, size, view["path"])
            assert label is not None
            box = box._replace(y0=box.y0 - top, x0=box.x0 - left)
            share = area_fractions(label, box, rows, columns, len(maps.names), maps.ignore).reshape(rows * columns, -1)
            pick = np.flatnonzero(share.sum(1) > 0)
            if len(pick) > each:
                pick = np.random.default_rng([params.seed, view["view"]]).choice(pick, each, replace=False)
            found.append(values[pick])
            codes.append(code[pick])
            shares.append(share[pick])
    work.tick(len(labelled), len(labelled), "views")
    if not found:
        return np.empty((0, tokens.shape[-1]), np.float16), np.empty((0, 0)), np.empty((0, len(maps.names)))
    return np.concatenate(found), np.concatenate(codes), np.concatenate(shares)


def _flat(values: np.ndarray) -> np.ndarray:
    """(view, row, column, channel) to (view, token, channel)."""
    return values.reshape(len(values), -1, values.shape[-1])


def fit_linear(
    inputs: np.ndarray, shares: np.ndarray, params: ProbeParams, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression on soft targets: weight (class, D) and bias (class,) float32. Changes `inputs`.

    Inputs are standardised for the optimiser's sake (Adam, cosine decay to 0) and the scaling folded back into the
    weights. A token counts by its labelled share.
    """
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(params.seed)
    x, y = torch.from_numpy(np.ascontiguousarray(inputs, np.float32)), torch.from_numpy(shares)
    mean, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x, y = x.sub_(mean).div_(scale).to(device), y.to(device)  # inputs may be the largest thing in memory
    layer = torch.nn.Linear(x.shape[1], y.shape[1], device=device)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.Adam(layer.parameters(), params.learning_rate)
    steps = params.epochs * max(1, -(-len(x) // params.batch))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(params.epochs):
        for batch in torch.randperm(len(x), generator=generator).to(device).split(params.batch):
            target = y[batch]
            loss = -(target * F.log_softmax(layer(x[batch]), -1)).sum() / target.sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        weight = layer.weight.cpu() / scale
        bias = layer.bias.cpu() - weight @ mean
    return weight.numpy(), bias.numpy()


STAGE = Stage(
    "probe",
    version=3,
    encoding=1,
    inputs=("features", "head", "labels"),
    roots=("training_labels",),
    params=ProbeParams,
    compute=compute,
)
