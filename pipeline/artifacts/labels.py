"""Label maps by image, from a labels artifact."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

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

    def __contains__(self, key: tuple[str, str]) -> bool:
        return self._find(*key) is not None

    def read(self, split: str, image: str) -> np.ndarray | None:
        """The label map of an image (height, width) ints, None where it has none. ConfigError for ids of no class."""
        found = self._find(split, image)
        if found is None:
            return None
        row = self.pieces.row(found)
        label = read_label(self.root, row["path"], row["sha256"], row["size"])
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


def check_size(label: np.ndarray, image: str, height: int, width: int) -> None:
    """StageError unless a label has the size of its image; 0 × 0 is an image whose header cannot be read."""
    if height and label.shape != (height, width):
        raise StageError(
            f"the label of {image} is {label.shape[1]}×{label.shape[0]}, the image {width}×{height}",
            next="mend or remove that label map and run again",
        )


def read_label(root: str, path: str, sha256: str, size: int) -> np.ndarray:
    """A listed label map; StageError where it cannot be read."""
    name, plane = formats.split_plane(path)
    try:
        return formats.read_label(formats.open_listed(root, name, sha256, size), plane)
    except DecodeError as error:
        raise StageError(f"label map {error}", next="mend or remove that file and run again") from error
