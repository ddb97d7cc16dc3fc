"""dataset: the table of images, the root that everything else is computed from.

Artifact: `images.parquet`, one row per image, sorted by split and id.
"""

from typing import Any, Literal

import pyarrow as pa

from pipeline.core.engine import Job, Stage, Work
from pipeline.core.params import Params, unhashed
from pipeline.datasets import folder

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("id", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("size", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("error", pa.string()),
    ]
)


class DatasetParams(Params):
    root: str = unhashed()
    """Folder or URL: ROOT/images/{train,val}/… with optional ROOT/labels/… and ROOT/dataset.yaml, or any folder of
    images. Content names the artifact, so moving the folder re-runs nothing."""
    layout: Literal["folder", "cocostuff27", "cityscapes27", "potsdam3"] = "folder"
    """How the root is laid out: `folder` as above; the others are published benchmarks as they lie on disk, in
    ROOT/{cocostuff,cityscapes,potsdam} or in ROOT itself, whose classes and label map are known."""


def table(items: list[folder.Item]) -> pa.Table:
    """The images table: (split, id, path, sha256, size in bytes, height, width in pixels, error)."""
    return pa.Table.from_pylist([item._asdict() for item in items], schema=SCHEMA)


def compute(job: Job, work: Work) -> dict[str, Any]:
    (root, digest), layout = job.roots["images"], job.params.layout
    items, notes = folder.scan(root, "images", job.out.store, lambda d, t: work.tick(d, t, "images"), layout)
    folder.check_digest(items, digest)
    job.out.write_table("images.parquet", table(items))
    counts: dict[str, int] = {}
    for item in items:
        counts[item.split] = counts.get(item.split, 0) + 1
    facts = {"items": len(items), "splits": counts, "bytes": sum(item.size for item in items)}
    return {**facts, "notes": notes} if notes else facts


STAGE = Stage("dataset", version=1, encoding=1, inputs=(), roots=("images",), params=DatasetParams, compute=compute)
