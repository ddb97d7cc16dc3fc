"""dataset: the table of images, the root that everything else is computed from.

Artifact: the table `images` in pieces, one row per image, sorted by split and id; a piece is of one split, and its
index names the first image of each.
"""

import logging
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
from pydantic import field_validator, model_validator

from pipeline.artifacts.images import TABLE
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.params import Params, unhashed
from pipeline.core.pieces import write_pieces
from pipeline.core.store import local_folder
from pipeline.datasets import folder
from pipeline.datasets.scale import PixelSizeParams

log = logging.getLogger("stegoflow")
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
        ("sparse", pa.bool_()),
    ]
)
FIRST = pa.schema([("split", pa.string()), ("first", pa.string())])
"""What the index says of a piece."""


class DatasetParams(Params):
    root: str = unhashed()
    """Folder or URL: ROOT/images/{train,val}/… with optional ROOT/labels/… and ROOT/dataset.yaml, or any folder of
    images. Content names the artifact, so moving the folder re-runs nothing."""
    layout: Literal["folder", "cocostuff27", "cityscapes27", "potsdam3"] = "folder"
    """How the root is laid out: `folder` as above; the others are published benchmarks as they lie on disk, in
    ROOT/{cocostuff,cityscapes,potsdam} or in ROOT itself, whose classes and label map are known."""
    channels: list[int | str] | list[list[int | str]] | Literal["pca"] | None = unhashed(None)
    """Which channels of each image are seen: three names, or numbers that count from 1, such as [nir, red, green]; or
    one, seen as grey; a list of threes, such as [[nir, red, green], [red, green, blue]]: the backbone sees each, and
    their tokens are averaged; `pca`: the first three principal components of all of them over the corpus, which the
    stage `reading` finds. None: the first three, or the first of fewer. Hashed by `features`."""
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
    def _three_or_one(cls, value: Any) -> Any:
        several = isinstance(value, list) and bool(value) and isinstance(value[0], list)
        if several and (len(value) < 2 or any(len(one) != 3 for one in value)):
            raise ValueError("of a list of lists each names three channels, and there are two lists at least")
        if isinstance(value, list) and not several and len(value) not in (1, 3):
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
    """A table of images: (split, id, path, sha256, size in bytes, height, width in pixels, error, and whether pixels
    may be without content)."""
    columns = zip(*items, strict=True) if items else [()] * len(SCHEMA)
    return pa.table(dict(zip(folder.Item._fields, columns, strict=True)), schema=SCHEMA)


def compute(job: Job, work: Work) -> dict[str, Any]:
    (root, digest), layout = job.roots["images"], job.params.layout
    listing = folder.scan(root, "images", job.out.store, lambda d, t: work.tick(d, t, "images"), layout)
    listing.check(digest)
    if local_folder(root) is None:  # planning may not have looked into the objects
        for note in listing.notes:
            log.warning("%s", note)
    size = pixels = sparse = 0

    def pieces() -> Iterator[tuple[pa.Table, dict[str, Any]]]:
        nonlocal size, pixels, sparse
        for items in listing.each():
            size += sum(item.size for item in items)
            pixels += sum(item.height * item.width for item in items)
            sparse += sum(item.sparse for item in items)
            yield table(items), {"split": items[0].split, "first": items[0].id}

    write_pieces(job.out, TABLE, pieces(), FIRST)
    facts = {"items": len(listing), "splits": listing.splits, "bytes": size, "pixels": pixels, "sparse": sparse}
    return {**facts, "notes": listing.notes} if listing.notes else facts


STAGE = Stage("dataset", version=1, encoding=2, inputs=(), roots=("images",), params=DatasetParams, compute=compute)
