"""Label maps by image, from a labels artifact."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.pieces import Pieces
from pipeline.datasets.benchmarks import layouts
from pipeline.images import files, formats, label_grids
from pipeline.images.pixels import DecodeError
from pipeline.numerics.views import ALL

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
        self._open: tuple[tuple[str, str], Any] = (("", ""), None)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return self._find(*key) is not None

    def read(self, image: dict[str, Any]) -> np.ndarray | None:
        """`window` of all of an image, a row of the table of images."""
        return self.window(image["split"], image["id"], ALL, (image["height"], image["width"]), image["path"])

    def window(
        self, split: str, image: str, window: tuple[slice, slice], size: tuple[int, int], path: str
    ) -> np.ndarray | None:
        """Some pixels of the label map of an image of `size` at `path`, on the grid of the image: (height, width)
        int32, None where it has none. Of what can be read by windows no more is read. ConfigError for ids of no class,
        StageError for a label of another shape."""
        row = self._row(split, image)
        if row is None:
            return None
        if (row["path"], path) != self._open[0]:
            self._open = (row["path"], path), self._on_grid(row, path, size)
        return self._checked(np.ascontiguousarray(self._open[1][window], np.int32), row["path"])

    def _on_grid(self, row: dict[str, Any], path: str, size: tuple[int, int]) -> Any:
        """A label map, a row of the table, as it lies on the image at a path; as it is where nobody knows the size of
        the image, whose header cannot be read."""
        (name, plane), (image, its_plane) = map(formats.split_plane, (row["path"], path))
        with _explained():
            file = formats.open_listed(self.root, name, row["sha256"], row["size"])
            label = formats.open_label(file, plane)
            if not all(size) or (self.coarse and label.shape == size):
                return label
            opened = partial(formats.open_image, files.stored(self.root, image), plane=its_plane)
            # Labels of a benchmark have the size of their images, or are not the published ones.
            found = None if self.coarse else label_grids.on_grid(label, file, opened, size, self.ignore)
        if found is None:
            own = f"{label.shape[1]}×{label.shape[0]}"
            raise StageError(
                f"{row['path']}: the label of {path} is {own}, the image {size[1]}×{size[0]}",
                next="save it in the shape of the image, or with a CRS where the image has one, and run again",
            )
        return found

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


def open_label(root: str, path: str, sha256: str, size: int) -> Any:
    """A listed label map that gives a window when it is sliced; StageError where it cannot be read."""
    name, plane = formats.split_plane(path)
    with _explained():
        return formats.open_label(formats.open_listed(root, name, sha256, size), plane)


def pieces(label: Any) -> Iterator[np.ndarray]:
    """What `open_label` gives, band after band."""
    height, width = label.shape
    rows = max(1, 2**24 // max(1, width))
    for top in range(0, height, rows):
        yield label[slice(top, min(height, top + rows)), slice(0, width)]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DecodeError as error:
        raise StageError(f"label map {error}", next="mend or remove that file and run again") from error
