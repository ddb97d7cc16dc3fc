"""The table of images of a dataset artifact, and what a run has for each of them: looked up by id, read on demand."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Generic, TypeVar

import pyarrow as pa

from pipeline.core.artifact import Artifact

Value = TypeVar("Value")
Key = str | tuple[str, str]
"""An image's id; with its split, "val/a/b.jpg" or ("val", "a/b.jpg"), where several splits hold that id."""


SPARSE = "sparse.json"
"""Of a dataset artifact: rows of the images whose pixels may be without content. Missing where there are none."""


def sparse_images(dataset: Artifact) -> list[int]:
    """The rows of the images whose pixels may be without content."""
    return [int(row) for row in dataset.read_json(SPARSE)] if SPARSE in dataset.manifest["files"] else []


class Images:
    """The images of a dataset: a row (split, id, path, sha256, size, height, width) for each, by split and id."""

    def __init__(self, dataset: Artifact) -> None:
        self.table: pa.Table
        self.splits: dict[str, range]
        """The rows of each split."""
        self.table, self.splits = dataset.held("images.parquet", _by_split)

    def find(self, split: str, id: str, rows: Sequence[int]) -> int | None:
        """The one of these ascending rows that is an image of a split."""
        column = self.table["id"]
        at = bisect_left(rows, id, *_inside(rows, self.splits[split]), key=lambda row: column[row].as_py())
        return rows[at] if at < len(rows) and self.name(rows[at]) == (split, id) else None

    def name(self, row: int) -> tuple[str, str]:
        """(split, id) of a row."""
        return self.table["split"][row].as_py(), self.table["id"][row].as_py()

    def file(self, row: int) -> tuple[str, str, int]:
        """(path below the root, sha256, bytes) of a row."""
        path, sha256, size = (self.table[name][row].as_py() for name in ("path", "sha256", "size"))
        return path, sha256, size

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) in pixels of a row; (0, 0) where the header cannot be read."""
        return self.table["height"][row].as_py(), self.table["width"][row].as_py()


class ByImage(Mapping[str, Value], Generic[Value]):
    """What there is for each of some images, read when it is asked for.

    Keys are ids where all these images are of one split, else "split/id". Any `Key` finds a value. KeyError for an
    image that is not among them, or an id that several splits hold.
    """

    def __init__(self, images: Images, rows: Sequence[int], read: Callable[[int], Value]) -> None:
        self.images = images
        self.rows = rows
        """Rows of the table of images, ascending."""
        self.read = read
        """The value of one of these rows."""
        inside = {split: _inside(rows, every) for split, every in images.splits.items()}
        self._at = {split: at for split, at in inside.items() if at[0] < at[1]}

    @property
    def splits(self) -> list[str]:
        """The splits that the images are of."""
        return list(self._at)

    def split(self, *names: str) -> "ByImage[Value]":
        """Only the images of these splits."""
        rows = list(chain.from_iterable(self.rows[slice(*self._at[name])] for name in self._at if name in names))
        return ByImage(self.images, rows, self.read)

    def __getitem__(self, key: Key) -> Value:
        return self.read(self.row(key))

    def __contains__(self, key: object) -> bool:
        try:
            self.row(key)  # type: ignore[arg-type]
        except KeyError:
            return False
        return True

    def row(self, key: Key) -> int:
        """The row of an image in the table of images."""
        if isinstance(key, tuple):
            readings = [[key]]
        else:
            split, _, rest = key.partition("/")
            readings = [[(split, rest)], [(name, key) for name in self._at]]
            readings = readings if len(self._at) > 1 else readings[::-1]
        for names in readings:
            found = {name: row for name in names if (row := self._find(*name)) is not None}
            if len(found) > 1:
                raise KeyError(f"{key} is in several splits: write {' or '.join(map('/'.join, found))}")
            if found:
                return next(iter(found.values()))
        raise KeyError(f"{key}: no image of {', '.join(self._at) or 'no split'} has this id")

    def _find(self, split: str, id: str) -> int | None:
        return self.images.find(split, id, self.rows) if split in self._at else None

    def __iter__(self) -> Iterator[str]:
        for row in self.rows:
            split, id = self.images.name(row)
            yield id if len(self._at) == 1 else f"{split}/{id}"

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<{len(self.rows):,} images of {', '.join(self._at) or 'no split'}>"


def _inside(rows: Sequence[int], every: range) -> tuple[int, int]:
    """Where ascending rows begin and stop to be inside a range."""
    return bisect_left(rows, every.start), bisect_right(rows, every.stop - 1)


def _by_split(dataset: Artifact, name: str) -> tuple[pa.Table, dict[str, range]]:
    table = dataset.read_table(name, ["split", "id", "path", "sha256", "size", "height", "width"])
    column = table["split"]
    splits, start = {}, 0
    while start < len(column):
        split = column[start].as_py()
        stop = bisect_right(range(len(column)), split, start, key=lambda row: column[row].as_py())
        splits[split], start = range(start, stop), stop
    return table, splits
