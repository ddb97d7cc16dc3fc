"""labels: the table of label maps and class names. Read by `probe`, `scores` and `report` alone.

Artifact: `labels.parquet` (split, id, path, sha256, size) and `classes.json` (names, ignore value; of a benchmark also
`coarse`, pairs of a stored label and its class).
A label belongs to the image of the same split and the same path without its suffix.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.labels import open_label, pieces, stem
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import ConfigError
from pipeline.core.params import Params, borrowed
from pipeline.datasets import folder

MOST_UNNAMED = 1000
"""Classes that may go without names: larger ids are colours or object numbers, and a table of them fits nowhere."""


class LabelsParams(Params):
    layout: str = borrowed("dataset.layout")


def compute(job: Job, work: Work) -> dict[str, Any]:
    (root, digest), layout = job.roots["labels"], job.params.layout
    items = folder.scan(root, "labels", job.out.store, lambda d, t: work.tick(d, t, "label maps"), layout).items
    description = folder.read_description(root, layout)
    folder.check_digest(items, digest, description)
    _check_unique(items)
    names, ignore = description["classes"], description["ignore_index"]
    if not names:
        opened = (open_label(root, item.path, item.sha256, item.size) for item in items)
        top = max(_largest(piece, ignore) for label in opened for piece in pieces(label))
        if top >= MOST_UNNAMED:
            raise ConfigError(
                f"labels: the largest id is {top}, and ids from {MOST_UNNAMED} on are taken for classes only where "
                "dataset.yaml names them",
                next="write classes: [NAME, …] to ROOT/dataset.yaml, or save labels that hold class ids",
            )
        names = [f"class {number}" for number in range(top + 1)]
    columns = ("split", "id", "path", "sha256", "size")
    job.out.write_table("labels.parquet", pa.table({name: [getattr(i, name) for i in items] for name in columns}))
    coarse = {"coarse": description["coarse"]} if "coarse" in description else {}
    job.out.write_json("classes.json", {"names": names, "ignore": ignore, **coarse})
    return {"items": len(items), "classes": len(names)}


def _check_unique(items: list[folder.Item]) -> None:
    """ConfigError where two label maps belong to one image: nothing says which of them is right."""
    seen: dict[tuple[str, str], str] = {}
    for item in items:
        other = seen.setdefault((item.split, stem(item.id)), item.path)
        if other != item.path:
            raise ConfigError(f"{other} and {item.path} are labels of the same image", next="remove one of them")


def _largest(label: np.ndarray, ignore: int) -> int:
    known = label[label != ignore]
    return max(0, int(known.max())) if known.size else 0


STAGE = Stage("labels", version=1, encoding=1, inputs=(), roots=("labels",), params=LabelsParams, compute=compute)
