"""labels: the table of label maps and class names. Read by `probe`, `scores` and `report` alone.

Artifact: `labels.parquet` (split, id, path, sha256, size) and `classes.json` (names, ignore value; of a benchmark also
`coarse`, pairs of a stored label and its class).
A label belongs to the image of the same split and the same path without its suffix.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.params import Params, borrowed
from pipeline.datasets import folder
from pipeline.datasets.benchmarks import layouts
from pipeline.images import files
from pipeline.images import formats as images

MOST_UNNAMED = 1000
"""Classes that may go without names: larger ids are colours or object numbers, and a table of them fits nowhere."""


class LabelsParams(Params):
    layout: str = borrowed("dataset.layout")


def stem(name: str) -> str:
    """An id without its suffix: what joins an image to its label."""
    head, dot, tail = name.rpartition(".")
    return head if dot and "/" not in tail else name


def compute(job: Job, work: Work) -> dict[str, Any]:
    root, layout = job.roots["labels"], job.params.layout
    items = folder.scan(root, "labels", job.out.store, lambda done, total: work.tick(done, total, "label maps"), layout)
    description = folder.read_description(root, layout)
    folder.check_digest(items, job.inputs["content"].fingerprint, description)
    _check_unique(items)
    names, ignore = description["classes"], description["ignore_index"]
    if not names:
        top = max(_largest(_decode(files.read_file(root, item.path), item.path), ignore) for item in items)
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


def _decode(data: bytes, path: str) -> np.ndarray:
    try:
        return images.decode_label(data, path)
    except images.DecodeError as error:
        raise StageError(f"label map {error}", next="mend or remove that file and run again") from error


def check_size(label: np.ndarray, image: str, height: int, width: int) -> None:
    """StageError unless a label has the size of its image; 0 × 0 is an image whose header cannot be read."""
    if height and label.shape != (height, width):
        raise StageError(
            f"the label of {image} is {label.shape[1]}×{label.shape[0]}, the image {width}×{height}",
            next="mend or remove that label map and run again",
        )


def _largest(label: np.ndarray, ignore: int) -> int:
    known = label[label != ignore]
    return max(0, int(known.max())) if known.size else 0


class LabelMaps:
    """Label maps by (split, image id), read and checked against their digests on demand."""

    def __init__(self, artifact: Artifact, root: str) -> None:
        classes = artifact.read_json("classes.json")
        self.names: list[str] = classes["names"]
        self.ignore: int = classes["ignore"]
        self.coarse: list[tuple[int, int]] = classes.get("coarse", [])
        self.root = root
        self.table, self.rows = artifact.held("labels.parquet", _by_image)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return (key[0], stem(key[1])) in self.rows

    def read(self, split: str, image: str) -> np.ndarray | None:
        """The label map of an image (height, width) ints, None where it has none. ConfigError for ids of no class."""
        number = self.rows.get((split, stem(image)))
        if number is None:
            return None
        (row,) = self.table.slice(number, 1).to_pylist()
        label = _decode(files.read_checked(self.root, row["path"], row["sha256"]), row["path"])
        if self.coarse:
            return layouts.to_classes(label, self.coarse)
        unknown = label[((label < 0) | (label >= len(self.names))) & (label != self.ignore)]
        if unknown.size:
            raise ConfigError(
                f"{row['path']} holds the id {unknown[0]}, but there are {len(self.names)} classes (0 to "
                f"{len(self.names) - 1}) and ignore_index is {self.ignore}",
                next="name every class in ROOT/dataset.yaml, or set pixels without a class to its ignore_index",
            )
        return label


def _by_image(artifact: Artifact, name: str) -> tuple[pa.Table, dict[tuple[str, str], int]]:
    """The table of label maps, and the row of each (split, image id without suffix)."""
    table = artifact.read_table(name, ["split", "id", "path", "sha256"])
    keys = zip(table["split"].to_pylist(), map(stem, table["id"].to_pylist()), strict=True)
    return table, {key: number for number, key in enumerate(keys)}


STAGE = Stage(
    "labels", version=1, encoding=1, inputs=("content",), params=LabelsParams, compute=compute, needs_labels=True
)
