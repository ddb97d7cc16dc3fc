"""labels: the table of label maps and class names. Read by `probe`, `scores` and `report` alone.

Artifact: the table `labels` in pieces (split, id, path, sha256, size) and `classes.json` (names,
ignore value; of a benchmark also `coarse`, pairs of a stored label and its class).
A label belongs to the image of the same split and the same path without its suffix.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.labels import TABLE, open_label, pieces, stem
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import ConfigError
from pipeline.core.params import Params, borrowed
from pipeline.core.pieces import write_pieces
from pipeline.datasets import folder

MOST_UNNAMED = 1000
"""Classes that may go without names: larger ids are colours or object numbers, and a table of them fits nowhere."""


class LabelsParams(Params):
    layout: str = borrowed("dataset.layout")


def compute(job: Job, work: Work) -> dict[str, Any]:
    (root, digest), layout = job.roots["labels"], job.params.layout
    listing = folder.scan(root, "labels", job.out.store, lambda d, t: work.tick(d, t, "label maps"), layout)
    description = folder.read_description(root, layout)
    listing.check(digest, description)
    _check_unique(item for items in listing.each() for item in items)
    names, ignore = description["classes"], description["ignore_index"]
    if not names:
        every = (item for items in listing.each() for item in items)
        opened = (open_label(root, item.path, item.sha256, item.size) for item in every)
        top = max(_largest(piece, ignore) for label in opened for piece in pieces(label))
        if top >= MOST_UNNAMED:
            raise ConfigError(
                f"labels: the largest id is {top}, and ids from {MOST_UNNAMED} on are taken for classes only where "
                "dataset.yaml names them",
                next="write classes: [NAME, …] to ROOT/dataset.yaml, or save labels that hold class ids",
            )
        names = [f"class {number}" for number in range(top + 1)]
    write_pieces(job.out, TABLE, map(_piece, listing.each()), FIRST)
    coarse = {"coarse": description["coarse"]} if "coarse" in description else {}
    job.out.write_json("classes.json", {"names": names, "ignore": ignore, **coarse})
    return {"items": len(listing), "classes": len(names)}


FIRST = pa.schema([("split", pa.string()), ("first", pa.string())])


def _piece(items: list[folder.Item]) -> tuple[pa.Table, dict[str, Any]]:
    columns = ("split", "id", "path", "sha256", "size")
    table = pa.table({name: [getattr(item, name) for item in items] for name in columns})
    return table, {"split": items[0].split, "first": items[0].id}


def _check_unique(items: Iterable[folder.Item]) -> None:
    """ConfigError where two label maps belong to one image: nothing says which of them is right. The items are sorted,
    so that between two of one image all others begin as these do."""
    near: list[tuple[str, folder.Item]] = []
    for item in items:
        own = stem(item.id)
        near = [(name, other) for name, other in near if other.split == item.split and item.id.startswith(name)]
        for name, other in near:
            if name == own:
                raise ConfigError(
                    f"{other.path} and {item.path} are labels of the same image", next="remove one of them"
                )
        near.append((own, item))


def _largest(label: np.ndarray, ignore: int) -> int:
    known = label[label != ignore]
    return max(0, int(known.max())) if known.size else 0


STAGE = Stage("labels", version=2, encoding=2, inputs=(), roots=("labels",), params=LabelsParams, compute=compute)
