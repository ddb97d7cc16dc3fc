"""features: the frozen backbone over every view, once. Its patch tokens go to sharded Zarr.

Artifact: `features.zarr` (group) with `tokens` (view, row, column, channel) float16, or int8 with their `scale` (view,
channel) float32; `mean` (view, channel) float32, `center` (channel) float32; the table `views` in pieces, one row per
view, and `known`, the rows that were copied. A hole or an undecodable image is NaN, in int8 −128.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import model_validator

from pipeline.artifacts.feature_layout import create
from pipeline.artifacts.feature_totals import check_failed, gathered, training_mean
from pipeline.artifacts.features import (
    GROUP,
    TABLE,
    arrays,
    metadata_files,
    open_group,
    part_of,
    view_pieces,
)
from pipeline.artifacts.images import Images
from pipeline.artifacts.known_rows import copy_known, write_known
from pipeline.artifacts.view_listing import INDEX, seen_by, tables, training_shapes
from pipeline.artifacts.view_reader import ViewReader
from pipeline.artifacts.views import (
    Splits,
    ViewParams,
    view_size,
)
from pipeline.backbones.devices import autocast, pick_device
from pipeline.backbones.facts import describe, file_sha256
from pipeline.backbones.weights import find_weights
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.params import Params, borrowed, derived, unhashed
from pipeline.core.pieces import write_pieces
from pipeline.images.pixels import DecodeError
from pipeline.numerics.codecs import quantise

log = logging.getLogger("stegoflow")

if TYPE_CHECKING:
    from pipeline.backbones.vit import Backbone


class FeaturesParams(Params):
    backbone: str = "vit_small_patch14_dinov2"
    """A timm ViT by name: DINO, DINOv2 (with registers or not), DINOv3, or any other."""
    weights: str = unhashed("hub")
    """`hub` (timm's weights of that name), `packaged` (the demo's), or a .safetensors/.pth file. Hashed by content."""
    weights_sha256: str = derived(lambda features: weights_digest(features.backbone, features.weights))
    block: int | None = None
    """Which transformer block's output, 0-based, negative from the end; none: the last. Later ones are not computed."""
    facet: Literal["token", "key"] = "token"
    """The block's output tokens, or the keys of its attention."""
    norm: Literal["auto", "always", "never"] = "auto"
    """The final LayerNorm: `auto` applies it only when the last block is taken."""
    views: ViewParams = ViewParams()
    mirror: Literal["none", "predicted", "all"] = "predicted"
    """Which images also get mirrored views (averaged with the plain ones in `masks`, never trained on)."""
    predicted: list[str] = borrowed("masks.splits")
    codec: Literal["fp16", "int8"] = "fp16"
    """How tokens are stored. `int8`: in steps of 0.3 standard deviations of each channel in its view, compressed: a
    quarter of the bytes. Whatever it is, tokens are read as float16."""
    channels: list[int | str] | list[list[int | str]] | str | None = borrowed("dataset.channels", optional=True)
    values: tuple[float, float] | str | None = borrowed("dataset.values", optional=True)
    max_failed_fraction: float = unhashed(0.1, ge=0, le=1)
    """Share of images that may be undecodable before the stage gives up."""

    def packages(self) -> dict[str, str]:
        return {"astropy": "dataset.values=zscale"} if self.values == "zscale" else {}

    @model_validator(mode="after")
    def _fits(self) -> FeaturesParams:
        patch, _, blocks = describe(self.backbone)
        for name, side in zip(("height", "width"), self.views.size or (), strict=bool(self.views.size)):
            if side % patch or side <= 0:
                near = max(patch, round(side / patch) * patch)
                raise ValueError(f"views.size: the {name} {side} is no multiple of the patch {patch}; {near} is")
        if self.block is not None and not -blocks <= self.block < blocks:
            raise ValueError(f"block: {self.block} is not one of the {blocks} blocks of {self.backbone}")
        return self


def weights_digest(backbone: str, weights: str) -> str:
    """sha256 of the file that `weights` means: how weights enter the fingerprint. It is remembered."""
    path = find_weights(backbone, weights)
    try:
        return file_sha256(path, _digest)
    except OSError as error:
        why = f"features.weights: {path} cannot be read: {error.strerror}"
        raise ConfigError(why, next=("make it readable, or ", Set("features.weights", "FILE"))) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: FeaturesParams = job.params
    images = Images(job.inputs["dataset"])
    splits = Splits.of(images.splits, params.predicted)
    patch, channels, _ = describe(params.backbone)
    size = view_size(training_shapes(images, splits), params.views, patch)
    index = write_pieces(job.out, TABLE, tables(job, work, images, size, splits), INDEX)
    count = sum(index["rows"].to_pylist())
    if not count:
        raise StageError(
            "no image has content: nodata or glass is everywhere", next="look at the images, or at their nodata value"
        )
    tokens = size[0] // patch * (size[1] // patch)
    part = part_of(count, 2 * tokens * channels)
    create(job, count, size, part, STAGE.encoding)
    copied_from = write_known(job.out)
    work.parts(encode_part, count, part, "views")

    failed, missing, copied = gathered(job.out)
    check_failed(failed, len(images), params.max_failed_fraction)
    group = open_group(job.out, "r+")
    center = training_mean(job.out, group, missing)
    with job.out.store.wrap_errors("cannot write", job.out.data(f"{GROUP}/center/c/0"), center.nbytes):
        group["center"][:] = center  # type: ignore[index]
    for name in metadata_files(params.codec):
        job.out.record_file(name)
    return {
        "items": count,
        "images": len(images),
        "failed": {path: failed[path] for path in sorted(failed)[:NAMED]},
        "failed_images": len(failed),
        "copied": copied,
        "copied_from": copied_from,
        "shape": list(group["tokens"].shape),  # type: ignore[union-attr]
        "view": list(size),
        "part": part,
        "weights": params.weights if params.weights in ("hub", "packaged") else params.weights.rsplit("/", 1)[-1],
        "bytes": sum(entry.size for entry in job.out.store.entries(job.out.data(GROUP))),
    }


NAMED = 1000
"""Images that could not be decoded, as the manifest names them at most; the markers name all."""


def encode_part(job: Job, part: Part) -> dict[str, Any]:
    """Encode views start..stop−1, or copy them from an earlier artifact that holds them, and write their shard."""
    rows = view_pieces(job.out).rows(*part).to_pylist()
    group = open_group(job.out, "r+")
    names = [name for name in arrays(job.params.codec) if name != "center"]
    opened: dict[str, Any] = {name: group[name] for name in names}  # each a request
    stored = {name: np.empty((len(rows), *array.shape[1:]), array.dtype) for name, array in opened.items()}
    copied = copy_known(job, part, stored)
    new = [i for i in range(len(rows)) if i not in copied]
    tokens = np.full((len(new), *stored["tokens"].shape[1:]), np.nan, np.float32)
    failed = _encode(job, dict(enumerate(rows[i] for i in new)), tokens)
    check_finite(tokens, [rows[i] for i in new], failed)
    # float16 ends at 65504: a backbone whose tokens pass that would become infinite in silence.
    limit = np.finfo(np.float16).max
    clipped = int(np.count_nonzero(np.abs(tokens) > limit))
    for name, values in _coded(job, np.clip(tokens, -limit, limit)).items():
        stored[name][new] = values
    for name, values in stored.items():
        array = opened[name].with_config({"write_empty_chunks": True})
        with job.out.store.wrap_errors("cannot write", job.out.data(f"{GROUP}/{name}"), values.nbytes):
            array[part.start : part.stop] = values
    missing = [part.start + i for i in new if rows[i]["path"] in failed]
    return {"failed": failed, "missing": missing, "clipped": clipped, "copied": len(copied)}


def _coded(job: Job, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of every array for tokens (view, row, column, channel) float32."""
    mean = tokens.mean(axis=(1, 2))
    if job.params.codec == "fp16":
        return {"tokens": tokens.astype(np.float16), "mean": mean}
    numbers, scale = quantise(tokens, mean)
    return {"tokens": numbers, "scale": scale, "mean": mean}


def check_finite(tokens: np.ndarray, rows: list[dict[str, Any]], failed: Container[str]) -> None:
    """StageError that names the first image with NaN or infinity among its tokens, (view, row, column, channel).

    `failed` are the paths of `rows` that could not be decoded: their NaN is meant.
    """
    finite = np.isfinite(tokens).all(axis=(1, 2, 3))
    for row, good in zip(rows, finite, strict=True):
        if not good and row["path"] not in failed:
            raise StageError(
                f"the backbone gives NaN or infinite features for {row['path']}",
                next=(
                    Set("execution.precision", "fp32"),
                    "; if it is that already, the weights are damaged: ",
                    Set("features.weights", "FILE"),
                ),
            )


def _encode(job: Job, rows: dict[int, dict[str, Any]], tokens: np.ndarray) -> dict[str, str]:
    """Run the backbone on some rows of a part, into `tokens`, of several triples of channels their mean; the paths that
    cannot be decoded, and why. A thread decodes and resizes the next batches meanwhile."""
    import torch

    params: FeaturesParams = job.params
    failed: dict[str, str] = {}
    if not rows:
        return failed
    device = pick_device(job.execution.device)
    backbone = _backbone(
        params.backbone, params.weights, params.weights_sha256, params.block, params.facet, params.norm, str(device)
    )
    for indices, pixels in _ahead(_batches(rows, job, failed), depth=2):
        found = []
        for seen in pixels:
            batch = torch.from_numpy(seen).to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode(), autocast(device, job.execution.precision):
                found.append(backbone(batch).float().cpu().numpy())
        tokens[indices] = np.mean(found, axis=0) if len(found) > 1 else found[0]
    return failed


@lru_cache(maxsize=2)
def _backbone(name: str, weights: str, sha256: str, block: int | None, facet: Any, norm: Any, device: str) -> Backbone:
    from pipeline.backbones.vit import create_backbone

    if _digest(find_weights(name, weights)) != sha256:
        raise StageError(f"the weights {weights} changed since the run was planned", next="run the same command again")
    return create_backbone(name, weights, block=block, facet=facet, norm=norm).to(device)


def _batches(
    rows: dict[int, dict[str, Any]], job: Job, failed: dict[str, str]
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Positions of rows, and the pixels of their views (triple of channels, view, height, width, 3)."""
    readers = [ViewReader(job.roots["images"].location, seen) for seen in seen_by(job)]
    indices: list[int] = []
    pixels: list[np.ndarray] = []
    for index, row in rows.items():
        try:
            size = round(row["scale_y"] * row["height"]), round(row["scale_x"] * row["width"])
            view = np.stack([images.read(row, size) for images in readers])
        except DecodeError as error:
            failed[row["path"]] = str(error).removeprefix(f"{row['path']}: ")
            continue
        indices.append(index)
        pixels.append(view[:, :, ::-1] if row["mirrored"] else view)
        if len(indices) == job.execution.batch_size:
            yield indices, np.stack(pixels, axis=1)
            indices, pixels = [], []
    if indices:
        yield indices, np.stack(pixels, axis=1)


def _ahead(batches: Iterator[Any], depth: int) -> Iterator[Any]:
    """The same batches, made by a thread that stays up to `depth` ahead; its error is raised here."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, batches, None) for _ in range(depth))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, batches, None))
            yield batch


STAGE = Stage(
    "features",
    version=2,
    encoding=2,
    inputs=("dataset", "reading?"),
    roots=("images", "pixel_sizes?"),
    params=FeaturesParams,
    compute=compute,
)
