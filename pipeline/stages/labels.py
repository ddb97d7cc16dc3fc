"""labels: the table of label maps and class names. Read by `probe`, `scores` and `report` alone.

Artifact: `labels.parquet` (split, id, path, sha256, size) and `classes.json` (names, ignore value, number of classes).
A label belongs to the image of the same split and the same path without its suffix.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import StageError
from pipeline.core.params import Params
from pipeline.datasets import folder, images


class LabelsParams(Params):
    pass


def stem(name: str) -> str:
    """An id without its suffix: what joins an image to its label."""
    head, dot, tail = name.rpartition(".")
    return head if dot and "/" not in tail else name


def compute(job: Job, work: Work) -> dict[str, Any]:
    root = job.roots["labels"]
    items = folder.scan(root, "labels", job.out.store, lambda done, total: work.tick(done, total, "label maps"))
    description = folder.read_description(root)
    folder.check_digest(items, job.inputs["content"].fingerprint, description)
    names, ignore = description["classes"], description["ignore_index"]
    if not names:
        top = max(_largest(images.decode_label(folder.read_file(root, i.path), i.path), ignore) for i in items)
        names = [f"class {number}" for number in range(top + 1)]
    columns = ("split", "id", "path", "sha256", "size")
    job.out.write_table("labels.parquet", pa.table({name: [getattr(i, name) for i in items] for name in columns}))
    job.out.write_json("classes.json", {"names": names, "ignore": ignore})
    return {"items": len(items), "classes": len(names)}


def _largest(label: np.ndarray, ignore: int) -> int:
    known = label[label != ignore]
    return int(known.max()) if known.size else 0


class LabelMaps:
    """Label maps by (split, image id), read and checked against their digests on demand."""

    def __init__(self, artifact: Artifact, root: str) -> None:
        classes = artifact.read_json("classes.json")
        self.names: list[str] = classes["names"]
        self.ignore: int = classes["ignore"]
        self.root = root
        rows = artifact.read_table("labels.parquet", ["split", "id", "path", "sha256"]).to_pylist()
        self.rows = {(row["split"], stem(row["id"])): row for row in rows}

    def __contains__(self, key: tuple[str, str]) -> bool:
        return (key[0], stem(key[1])) in self.rows

    def read(self, split: str, image: str) -> np.ndarray | None:
        """The label map of an image (height, width) ints, None where it has none."""
        row = self.rows.get((split, stem(image)))
        if row is None:
            return None
        data = folder.read_checked(self.root, row["path"], row["sha256"])
        try:
            return images.decode_label(data, row["path"])
        except images.DecodeError as error:
            raise StageError(f"label map {error}", next="mend or remove that file and run again") from error


STAGE = Stage(
    "labels", version=1, encoding=1, inputs=("content",), params=LabelsParams, compute=compute, needs_labels=True
)
