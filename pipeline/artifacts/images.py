"""The table of images of a dataset artifact, and what a run has for each of them: looked up by id, read on demand."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, Generic, TypeVar, overload

from pipeline.core.artifact import Artifact
from pipeline.core.pieces import Pieces

Value = TypeVar("Value")
Key = str | tuple[str, str]
"""An image's id; with its split, "val/a/b.jpg" or ("val", "a/b.jpg"), where several splits hold that id."""


TABLE = "images"
"""Of a dataset artifact: the table of images, in pieces of one split each."""

TOGETHER = 64
"""Rows that are read at once where one is asked for: its neighbours follow."""


class Ranges(Sequence[int]):
    """Ascending rows, as ranges: a split of millions of images is two numbers."""

    def __init__(self, *ranges: range) -> None:
        self.ranges = [one for one in ranges if len(one)]
        self.stops = list(accumulate(map(len, self.ranges)))

    def __len__(self) -> int:
        return self.stops[-1] if self.stops else 0

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> "Ranges": ...
    def __getitem__(self, at: int | slice) -> "int | Ranges":
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                raise ValueError("rows are sliced without a step")
            begins = [0, *self.stops]
            return Ranges(*(r[max(0, start - b) : max(0, stop - b)] for r, b in zip(self.ranges, begins, strict=False)))
        at = at + len(self) if at < 0 else at
        if not 0 <= at < len(self):
            raise IndexError(at)
        number = bisect_right(self.stops, at)
        return self.ranges[number][at - (self.stops[number - 1] if number else 0)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.ranges)


class Images:
    """The images of a dataset: a row (split, id, path, sha256, size, height, width, error, sparse) for each, by split
    and id. Read piece by piece."""

    def __init__(self, dataset: Artifact) -> None:
        self.pieces = Pieces(dataset, TABLE)
        self.firsts = list(zip(*(self.pieces.index[name].to_pylist() for name in ("split", "first")), strict=True))
        self._rows: tuple[int, list[dict[str, Any]]] = (-1, [])
        self.splits: dict[str, range] = {}
        """The rows of each split."""
        start = 0
        for split, count in dataset.manifest["splits"].items():
            self.splits[split], start = range(start, start + count), start + count

    def __len__(self) -> int:
        return len(self.pieces)

    def find(self, split: str, id: str, rows: Sequence[int]) -> int | None:
        """The one of these ascending rows that is an image of a split."""
        number = bisect_right(self.firsts, (split, id)) - 1
        if number < 0:
            return None
        piece, start = self.pieces.piece(number), self.pieces.starts[number]
        column = piece["id"]
        at = bisect_left(range(len(piece)), id, key=lambda row: column[row].as_py())
        if at == len(piece) or column[at].as_py() != id or self.firsts[number][0] != split:
            return None
        place = bisect_left(rows, start + at)
        return start + at if place < len(rows) and rows[place] == start + at else None

    def row(self, row: int) -> dict[str, Any]:
        """All that is known of the image in a row."""
        start = row - row % TOGETHER
        if self._rows[0] != start:
            self._rows = start, self.pieces.rows(start, min(start + TOGETHER, len(self))).to_pylist()
        return dict(self._rows[1][row - start])

    def name(self, row: int) -> tuple[str, str]:
        """(split, id) of a row."""
        return self._values(row, "split", "id")

    def file(self, row: int) -> tuple[str, str, int]:
        """(path below the root, sha256, bytes) of a row."""
        return self._values(row, "path", "sha256", "size")

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) in pixels of a row; (0, 0) where the header cannot be read."""
        return self._values(row, "height", "width")

    def _values(self, row: int, *columns: str) -> tuple[Any, ...]:
        number = self.pieces.number(row)
        piece, at = self.pieces.piece(number), row - self.pieces.starts[number]
        return tuple(piece[name][at].as_py() for name in columns)


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
        parts = [self.rows[slice(*self._at[name])] for name in self._at if name in names]
        if all(isinstance(part, Ranges) for part in parts):
            return ByImage(self.images, Ranges(*chain.from_iterable(part.ranges for part in parts)), self.read)  # type: ignore[attr-defined]
        return ByImage(self.images, list(chain.from_iterable(parts)), self.read)

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
