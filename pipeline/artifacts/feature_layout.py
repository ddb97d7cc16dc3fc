"""Laying out the Zarr group of a features artifact: its attributes and arrays, all of them before the first value."""

import math
from typing import Any

from pipeline.artifacts.features import GROUP, arrays, open_group
from pipeline.backbones.facts import describe
from pipeline.core.engine import Job
from pipeline.core.params import hashed
from pipeline.numerics.codecs import LOST

DIMENSIONS = {"tokens": ["view", "row", "column", "channel"], "center": ["channel"]}
"""… of those arrays that are not (view, channel)."""
MEANING = {
    "tokens": "patch tokens of the frozen backbone (dimensionless)",
    "scale": "length of a step of the view's int8 tokens",
    "mean": "mean token",
    "center": "mean token of the training splits' plain views",
}
CHUNK = 2**13
"""Numbers of a chunk of tokens, where views are smaller: 16 KiB of float16."""
QUANTISED = "patch tokens of the frozen backbone in steps: token = number * scale + mean; -128 is NaN"


def create(job: Job, views: int, size: tuple[int, int], part: int, encoding: int) -> None:
    """Lay out the group for so many views of `size` = (height, width) pixels, `part` of them in a shard, unless it is
    there. Whoever loses a race for a piece of it looks again."""
    from zarr.errors import ContainsArrayError, ContainsGroupError

    for chance in reversed(range(10)):
        try:
            with job.out.store.wrap_errors("cannot write", job.out.data(GROUP)):
                return _lay_out(job, views, size, part, encoding)
        except (ContainsArrayError, ContainsGroupError):
            if not chance:
                raise


def chunk_of(part: int, numbers: int) -> int:
    """Views in a chunk of tokens: one, of views of so few numbers several, a power of two."""
    return min(part, 1 << (CHUNK // numbers).bit_length() - 1) if numbers < CHUNK else 1


def _lay_out(job: Job, views: int, size: tuple[int, int], part: int, encoding: int) -> None:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    patch, channels, _ = describe(job.params.backbone)
    rows, columns = size[0] // patch, size[1] // patch
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
    shapes = {"tokens": (views, rows, columns, channels), "center": (channels,)}
    for name in arrays(job.params.codec):
        shape = shapes.get(name, (views, channels))
        shards = shape if name == "center" else (part, *shape[1:])
        codes = job.params.codec != "fp16" and name in ("tokens", "scale")
        numbers = codes and name == "tokens"
        group.require_array(
            name,
            shape=shape,
            chunks=(chunk_of(part, math.prod(shape[1:])), *shape[1:]) if name == "tokens" else shards,
            shards=shards,
            dtype="int8" if numbers else "float16" if name == "tokens" else "float32",
            fill_value=LOST if numbers else float("nan"),
            compressors=[*([ZstdCodec(level=1)] if codes else []), Crc32cCodec()],
            dimension_names=DIMENSIONS.get(name, ["view", "channel"]),
            attributes={"long_name": QUANTISED if numbers else MEANING[name], "units": "1"},
            config={"write_empty_chunks": True},
        )
