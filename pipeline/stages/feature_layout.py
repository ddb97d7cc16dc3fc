"""Laying out the Zarr group of a features artifact: its attributes and arrays, all of them before the first value."""

from typing import Any

from zarr.codecs import Crc32cCodec
from zarr.errors import ContainsArrayError, ContainsGroupError

from pipeline.core.engine import Job
from pipeline.core.params import hashed
from pipeline.models.backbones import describe
from pipeline.stages.feature_store import GROUP, open_group


def create(job: Job, views: int, part: int, encoding: int) -> None:
    """Lay out the group for so many views, `part` of them in a shard, unless it is there. Whoever loses a race for a
    piece of it looks again."""
    for chance in reversed(range(10)):
        try:
            with job.out.store.telling("cannot write", job.out.data(GROUP)):
                return _lay_out(job, views, part, encoding)
        except (ContainsArrayError, ContainsGroupError):
            if not chance:
                raise


def _lay_out(job: Job, views: int, part: int, encoding: int) -> None:
    patch, channels, _ = describe(job.params.backbone)
    rows, columns = job.params.views.size[0] // patch, job.params.views.size[1] // patch
    group = open_group(job.out, "a")
    attributes: dict[str, Any] = {
        "encoding-type": "stegoflow-features",
        "encoding-version": encoding,
        "fingerprint": job.out.fingerprint,
        "params": hashed(job.params),
        "patch_px": patch,
        "views": "views.*.parquet beside this group, one row per view; y0, x0, height, width in image pixels",
    }
    if dict(group.attrs) != attributes:  # its digest may be in a manifest by now: equal bytes are left alone
        group.attrs.update(attributes)
    if "center" in group:
        return
    arrays: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...], str, list[str], str]] = [
        (
            "tokens",
            (views, rows, columns, channels),
            (1, rows, columns, channels),
            (part, rows, columns, channels),
            "float16",
            ["view", "row", "column", "channel"],
            "patch tokens of the frozen backbone (dimensionless)",
        ),
        ("mean", (views, channels), (part, channels), (part, channels), "float32", ["view", "channel"], "mean token"),
        (
            "pooled",
            (views, channels),
            (part, channels),
            (part, channels),
            "float32",
            ["view", "channel"],
            "L2-normalised mean token",
        ),
        (
            "center",
            (channels,),
            (channels,),
            (channels,),
            "float32",
            ["channel"],
            "mean token of the training splits' plain views",
        ),
    ]
    for name, shape, chunks, shards, dtype, dimensions, meaning in arrays:
        group.require_array(
            name,
            shape=shape,
            chunks=chunks,
            shards=shards,
            dtype=dtype,
            fill_value=float("nan"),
            compressors=[Crc32cCodec()],
            dimension_names=dimensions,
            attributes={"long_name": meaning, "units": "1"},
            config={"write_empty_chunks": True},
        )
