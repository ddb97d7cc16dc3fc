"""Label maps by image, from a labels artifact."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.pieces import Pieces
from pipeline.datasets.benchmarks import layouts
from pipeline.images import formats
from pipeline.images.pixels import DecodeError

TABLE = "labels"
"""Of a labels artifact: the table of label maps, in pieces of one split each."""


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
        self.pieces = Pieces(artifact, TABLE)
        self.firsts = list(zip(*(self.pieces.index[name].to_pylist() for name in ("split", "first")), strict=True))
        self._open: tuple[str, Any] = ("", None)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return self._find(*key) is not None

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
        found = self._find(split, image)
        return None if found is None else self.pieces.row(found)

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

    def _find(self, split: str, image: str) -> int | None:
        """The row of an image's label map, whose id is that of the image with another suffix or none."""
        wanted = stem(image)
        for begin in (wanted, f"{wanted}."):
            for row, id in self._from(split, begin):
                if stem(id) == wanted:
                    return row
                if begin == wanted or not id.startswith(begin):
                    break
        return None

    def _from(self, split: str, id: str) -> Iterator[tuple[int, str]]:
        """The rows of a split and their ids, from an id on."""
        for number in range(max(0, bisect_right(self.firsts, (split, id)) - 1), self.pieces.count):
            if self.firsts[number][0] == split:
                ids = self.pieces.piece(number)["id"]
                at = bisect_left(range(len(ids)), id, key=lambda row: ids[row].as_py())
                for row in range(at, len(ids)):
                    yield self.pieces.starts[number] + row, ids[row].as_py()
            elif self.firsts[number][0] > split:
                return


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
