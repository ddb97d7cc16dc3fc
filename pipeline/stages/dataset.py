"""dataset: the table of images, the root that everything else is computed from.

Artifact: `images.parquet`, one row per image, sorted by split and id; `sparse.json`, rows of the images that may be
without content in places (nodata, slide glass), where there are such.
"""

from typing import Any, Literal

import pyarrow as pa
from pydantic import field_validator, model_validator

from pipeline.artifacts.images import SPARSE
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.params import Params, unhashed
from pipeline.datasets import folder
from pipeline.datasets.scale import PixelSizeParams

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
    channels: list[int | str] | Literal["pca"] | None = unhashed(None)
    """Which channels of each image are seen: three names, or numbers that count from 1, such as [nir, red, green]; or
    one, seen as grey; `pca`: the first three principal components of all of them over the corpus, which the stage
    `reading` finds. None: the first three, or the first of fewer. Hashed by `features`."""
    values: tuple[float, float] | Literal["percentiles", "asinh", "zscale", "corpus"] | None = unhashed(None)
    """How values become 8 bits: [LOW, HIGH] become 0 and 255; `percentiles`: the 2nd and 98th of each channel of an
    image; `corpus`: those of the corpus, the same for all images, which the stage `reading` finds; `asinh`: the 1st to
    the 99.9th, with faint values spread; `zscale`: as astronomers do. Limits are those of a whole image, never of a
    part of it. None: 8-bit values as they are, others as docs/formats.md says."""

    pixel_size: PixelSizeParams | str | None = unhashed(None)
    """What a pixel measures, where files do not say it or say it wrong: {x: 0.25, y: 0.25, unit: µm} (or m, °, arcsec)
    for all images, or a CSV file with the columns path (below `root`), x, y, unit. Areas are computed with it."""

    @field_validator("channels")
    @classmethod
    def _three_or_one(cls, value: list[int | str] | str | None) -> list[int | str] | str | None:
        if isinstance(value, list) and len(value) not in (1, 3):
            raise ValueError(f"name three channels, or one, not {len(value)}")
        return value

    @field_validator("values")
    @classmethod
    def _ascending(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not value[0] < value[1]:
            raise ValueError(f"the first limit, {value[0]}, must be below the second, {value[1]}")
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> "DatasetParams":
        if self.channels == "pca" and self.values not in (None, "corpus"):
            raise ValueError("channels: pca has values of its own, those of the corpus: leave values out")
        return self

    def packages(self) -> dict[str, str]:
        return {"astropy": "dataset.values=zscale"} if self.values == "zscale" else {}


def table(items: list[folder.Item]) -> pa.Table:
    """The images table: (split, id, path, sha256, size in bytes, height, width in pixels, error)."""
    return pa.Table.from_pylist([item._asdict() for item in items], schema=SCHEMA)


def compute(job: Job, work: Work) -> dict[str, Any]:
    (root, digest), layout = job.roots["images"], job.params.layout
    items, notes = folder.scan(root, "images", job.out.store, lambda d, t: work.tick(d, t, "images"), layout)
    folder.check_digest(items, digest)
    job.out.write_table("images.parquet", table(items))
    sparse = [row for row, item in enumerate(items) if item.sparse]
    if sparse:
        job.out.write_json(SPARSE, sparse)
    counts: dict[str, int] = {}
    for item in items:
        counts[item.split] = counts.get(item.split, 0) + 1
    facts = {"items": len(items), "splits": counts, "bytes": sum(item.size for item in items)}
    return {**facts, "notes": notes} if notes else facts


STAGE = Stage("dataset", version=1, encoding=1, inputs=(), roots=("images",), params=DatasetParams, compute=compute)
