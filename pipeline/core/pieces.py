"""A table of the whole corpus in pieces: Parquet files of consecutive rows, and an index of them.

`NAME/pieces.parquet` has a row for each piece: `start` and `rows`, where it lies (`path`, `bytes`, `sha256`), and what
its writer wants to know without reading it. No process holds more than a few pieces.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.artifact import Artifact, from_parquet, to_parquet

INDEX = "pieces.parquet"
FILE = [("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())]
SCHEMA = pa.schema([("start", pa.int64()), ("rows", pa.int64()), *FILE])
KEPT = 8
"""Pieces that a process keeps."""


def write_pieces(
    out: Artifact, name: str, tables: Iterable[tuple[pa.Table, dict[str, Any]]], facts: pa.Schema | None = None
) -> pa.Table:
    """Write a table piece by piece, and its index, which is returned. With each piece come the values of the index's
    further columns, whose types are `facts`."""
    rows, start = [], 0
    for number, (table, more) in enumerate(tables):
        file = out.put(f"{name}/{number:06d}.parquet", to_parquet(table))
        rows.append({"start": start, "rows": len(table), **file, **more})
        start += len(table)
    index = pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, *(facts or ())]))
    out.write_table(f"{name}/{INDEX}", index)
    return index


class Pieces:
    """A table that `write_pieces` wrote."""

    def __init__(self, artifact: Artifact, name: str) -> None:
        self.artifact, self.name = artifact, name
        self.index: pa.Table = artifact.held(f"{name}/{INDEX}", Artifact.read_table)
        """A row per piece."""
        starts = np.asarray(self.index["start"])
        self.starts = [*starts.tolist(), int(np.asarray(self.index["rows"]).sum())]
        """The first row of each piece, and at the end the number of rows."""

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def count(self) -> int:
        """Pieces."""
        return len(self.index)

    def piece(self, number: int) -> pa.Table:
        """One piece. DamageError where it is not what was written."""
        path, size, sha256 = (self.index[column][number].as_py() for column in ("path", "bytes", "sha256"))
        return _piece(self.artifact, path, size, sha256)

    def number(self, row: int) -> int:
        """The piece that a row is in."""
        return bisect_right(self.starts, row, hi=self.count) - 1

    def each(self) -> Iterator[tuple[int, pa.Table]]:
        """Every piece with the number of its first row."""
        for number in range(self.count):
            yield self.starts[number], self.piece(number)

    def row(self, row: int) -> dict[str, Any]:
        """One row."""
        (found,) = self.rows(row, row + 1).to_pylist()
        return found

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows start..stop−1."""
        found = []
        while start < stop:
            number = self.number(start)
            end = min(stop, self.starts[number + 1])
            found.append(self.piece(number).slice(start - self.starts[number], end - start))
            start = end
        return pa.concat_tables(found) if found else self.piece(0).slice(0, 0)

    def take(self, rows: np.ndarray) -> pa.Table:
        """Some rows in their order; they should ascend, so that a piece is read once."""
        rows = np.asarray(rows, np.int64)
        numbers = np.searchsorted(np.asarray(self.starts[1:]), rows, side="right")
        ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(rows)]
        found, start = [], 0
        for end in ends if len(rows) else ():
            number = int(numbers[start])
            found.append(self.piece(number).take(rows[start:end] - self.starts[number]))
            start = end
        return pa.concat_tables(found) if found else self.piece(0).slice(0, 0)

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All of it in memory."""
        found = [piece.select(columns) if columns else piece for _, piece in self.each()]
        return pa.concat_tables(found)


def files_of_pieces(artifact: Artifact, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """{"path", "bytes", "sha256"} of every piece whose index is among these data files."""
    for name in names:
        if name.endswith(f"/{INDEX}"):
            yield from artifact.read_table(name, [column for column, _ in FILE]).to_pylist()


@lru_cache(maxsize=KEPT)
def _piece(artifact: Artifact, path: str, size: int, sha256: str) -> pa.Table:
    return from_parquet(artifact.get({"path": path, "bytes": size, "sha256": sha256}))
