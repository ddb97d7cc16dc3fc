"""Label maps by image, from a labels artifact."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError, StageError
from pipeline.datasets.benchmarks import layouts
from pipeline.images import formats
from pipeline.images.pixels import DecodeError


def stem(name: str) -> str:
    """An id without its suffix: what joins an image to its label."""
    head, dot, tail = name.rpartition(".")
    return head if dot and "/" not in tail else name


class LabelMaps:
    """Label maps by (split, image id), read and checked against their digests on demand."""

    def __init__(self, artifact: Artifact, root: str) -> None:
        classes = artifact.read_json("classes.json")
        self.names: list[str] = classes["names"]
        self.ignore: int = classes["ignore"]
        self.coarse: list[tuple[int, int]] = classes.get("coarse", [])
        self.root = root
        self.table, self.rows = artifact.held("labels.parquet", _by_image)
        self._open: tuple[str, Any] = ("", None)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return (key[0], stem(key[1])) in self.rows

    def read(self, split: str, image: str) -> np.ndarray | None:
        """The label map of an image (height, width) ints, None where it has none. ConfigError for ids of no class."""
        row = self._row(split, image)
        if row is None:
            return None
        return self._checked(read_label(self.root, row["path"], row["sha256"], row["size"]), row["path"])

    def window(
        self, split: str, image: str, window: tuple[slice, slice], size: tuple[int, int], path: str
    ) -> np.ndarray | None:
        """Some pixels of the label map of an image of `size` at `path`; of what can be read by windows no more is read.
        StageError for a label of another size."""
        row = self._row(split, image)
        if row is None:
            return None
        if row["path"] != self._open[0]:
            self._open = row["path"], open_label(self.root, row["path"], row["sha256"], row["size"])
        label = self._open[1]
        check_size(label, path, *size)
        return self._checked(np.ascontiguousarray(label[window], np.int32), row["path"])

    def _row(self, split: str, image: str) -> dict[str, Any] | None:
        number = self.rows.get((split, stem(image)))
        return None if number is None else self.table.slice(number, 1).to_pylist()[0]

    def _checked(self, label: np.ndarray, path: str) -> np.ndarray:
        """A label map in classes."""
        if self.coarse:
            return layouts.to_classes(label, self.coarse)
        unknown = label[((label < 0) | (label >= len(self.names))) & (label != self.ignore)]
        if unknown.size:
            raise ConfigError(
                f"{path} holds the id {unknown[0]}, but there are {len(self.names)} classes (0 to "
                f"{len(self.names) - 1}) and ignore_index is {self.ignore}",
                next="name every class in ROOT/dataset.yaml, or set pixels without a class to its ignore_index",
            )
        return label


def _by_image(artifact: Artifact, name: str) -> tuple[pa.Table, dict[tuple[str, str], int]]:
    """The table of label maps, and the row of each (split, image id without suffix)."""
    table = artifact.read_table(name, ["split", "id", "path", "sha256", "size"])
    keys = zip(table["split"].to_pylist(), map(stem, table["id"].to_pylist()), strict=True)
    return table, {key: number for number, key in enumerate(keys)}


def check_size(label: Any, image: str, height: int, width: int) -> None:
    """StageError unless a label has the size of its image; 0 × 0 is an image whose header cannot be read."""
    if height and label.shape != (height, width):
        raise StageError(
            f"the label of {image} is {label.shape[1]}×{label.shape[0]}, the image {width}×{height}",
            next="mend or remove that label map and run again",
        )


def read_label(root: str, path: str, sha256: str, size: int) -> np.ndarray:
    """A listed label map; StageError where it cannot be read."""
    return _read(formats.read_label, root, path, sha256, size)


def open_label(root: str, path: str, sha256: str, size: int) -> Any:
    """A listed label map that gives a window when it is sliced; StageError where it cannot be read."""
    return _read(formats.open_label, root, path, sha256, size)


def pieces(label: Any) -> Iterator[np.ndarray]:
    """What `open_label` gives, band after band."""
    height, width = label.shape
    rows = max(1, 2**24 // max(1, width))
    for top in range(0, height, rows):
        yield label[slice(top, min(height, top + rows)), slice(0, width)]


def _read(read: Callable[..., Any], root: str, path: str, sha256: str, size: int) -> Any:
    name, plane = formats.split_plane(path)
    try:
        return read(formats.open_listed(root, name, sha256, size), plane)
    except DecodeError as error:
        raise StageError(f"label map {error}", next="mend or remove that file and run again") from error
