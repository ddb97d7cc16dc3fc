"""A table in pieces: read back row by row, by ranges and in any order; nothing of it is taken for a stray or unseen."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.artifact import Artifact, record
from pipeline.core.errors import DamageError
from pipeline.core.gc import _strays
from pipeline.core.pieces import Pieces, write_pieces
from pipeline.core.store import Store
from pipeline.core.verify import verify_artifact

SIZES = (3, 1, 4)


@pytest.fixture
def artifact(tmp_path):
    made = Artifact(Store(tmp_path), "numbers", "f" * 64)
    starts = np.cumsum([0, *SIZES])
    tables = (
        (pa.table({"n": range(start, start + size), "text": [f"{n}" for n in range(size)]}), {"even": size % 2 == 0})
        for start, size in zip(starts.tolist(), SIZES, strict=False)
    )
    write_pieces(made, "table", tables, pa.schema([("even", pa.bool_())]))
    made.store.create(f"{made.root}/manifest.json", record("manifest", {"files": made.files}))
    return Artifact(made.store, "numbers", "f" * 64)


def test_rows_come_back(artifact):
    table = Pieces(artifact, "table")
    assert (len(table), table.count, table.index["even"].to_pylist()) == (8, 3, [False, False, True])
    assert [table.row(n)["n"] for n in range(8)] == list(range(8))
    for start in range(9):
        for stop in range(start, 9):
            assert table.rows(start, stop)["n"].to_pylist() == list(range(start, stop))
    assert table.take(np.array([0, 2, 3, 7, 7, 1]))["n"].to_pylist() == [0, 2, 3, 7, 7, 1]
    assert len(table.take(np.array([], np.int64))) == 0
    assert table.read(["n"])["n"].to_pylist() == list(range(8))
    assert [start for start, _ in table.each()] == [0, 3, 4]


def test_the_collector_knows_pieces(artifact):
    entries = list(artifact.store.entries(artifact.root))
    assert len(entries) == 5
    assert _strays(artifact, entries) == []
    artifact.store.put(artifact.data("table/000009.0123456789abcdef.parquet"), b"of a run that was overtaken")
    assert len(_strays(artifact, list(artifact.store.entries(artifact.root)))) == 1


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_damaged_piece_is_found(how, artifact):
    assert [problem for problem in verify_artifact(artifact) if "table" in problem.file] == []
    path = artifact.data(Pieces(artifact, "table").index["path"][1].as_py())
    if how == "gone":
        artifact.store.delete(path)
    else:
        data = bytearray(artifact.store.get(path))
        data[len(data) // 2] ^= 1
        artifact.store.put(path, bytes(data))
    assert [problem.file for problem in verify_artifact(artifact) if "table" in problem.file] == [path]
    with pytest.raises(DamageError):
        Pieces(artifact, "table").rows(3, 5)
