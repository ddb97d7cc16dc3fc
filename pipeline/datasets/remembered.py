"""What was found in the files under a root, in pieces, and remembered in the `cache/scan` of a store.

A piece is a run of files in the order of the listing. Where it ends follows from the names in it, so that a file that
comes or goes changes one piece. A piece's name is the digest of its paths and stamps: one that is known is not looked
into. All of this can be deleted at any time, and no fingerprint depends on it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

import pyarrow as pa

from pipeline.core.artifact import from_parquet, to_parquet
from pipeline.core.errors import StageError, StoreError
from pipeline.core.fingerprint import digest
from pipeline.core.store import Store, local_folder
from pipeline.datasets.digests import READING, Facts
from pipeline.images.files import Found

MEAN = 2048
"""Files in a piece, on average."""
MOST = 4 * MEAN
"""… and at most."""
INDEX = "index.parquet"


class File(NamedTuple):
    """A file of a listing: where it belongs, and what was found on disk."""

    split: str
    id: str
    found: Found


class Piece(NamedTuple):
    """A run of files of one split: what is asked for without reading what was found in them."""

    name: str
    """The digest of its paths and stamps."""
    split: str
    first: str
    """The id of its first file."""
    files: int
    items: int
    """Images, or label maps: a file may hold several."""
    digest: str
    """Of the items' split, path and sha256: a leaf of the tree whose root is the digest of the listing."""
    refused: int
    """Items that cannot be read."""
    errors: str
    """JSON: the reasons of the first of them."""
    wide: int
    """Files with more than three channels."""
    widest: str
    """JSON: path and channels of the first of them."""


SCHEMA = pa.schema([(name, pa.int64() if kind is int else pa.string()) for name, kind in Piece.__annotations__.items()])


def pieces(files: Iterable[File]) -> Iterator[list[File]]:
    """Files cut into pieces."""
    piece: list[File] = []
    for file in files:
        if piece and _ends(piece, file):
            yield piece
            piece = []
        piece.append(file)
    if piece:
        yield piece


def _ends(piece: list[File], following: File) -> bool:
    last = piece[-1]
    if last.split != following.split or len(piece) >= MOST:
        return True
    # Planes of one file sort behind the name of the file: a name that goes on from it stays in its piece.
    return crc32(last.id.encode(errors="surrogateescape")) % MEAN == 0 and not following.id.startswith(last.id)


def name_of(piece: list[File]) -> str:
    """The digest of the paths and stamps of a piece."""
    found = sha256()
    for file in piece:
        found.update(f"{file.found.path}\0{file.found.stamp}\0".encode(errors="surrogateescape"))
    return found.hexdigest()


class Memory:
    """What is remembered of a root. `cache` None: nothing, and what is added is kept in memory."""

    def __init__(self, cache: Store | None, root: str, kind: str) -> None:
        where = local_folder(root)
        self.cache = cache
        self.folder = f"cache/scan/{digest([READING, str(where or root), kind])}"
        self.index = self._read_index()
        self.known = {piece.name: piece for piece in self.index}
        self.firsts = [(piece.split, piece.first) for piece in self.index]
        self._held: dict[str, pa.Table] = {}
        self._last: tuple[str, dict[str, Facts]] = "", {}

    def facts(self, file: File) -> Facts | None:
        """What was found in a file, where it has not changed since."""
        at = bisect_right(self.firsts, (file.split, file.id)) - 1
        if at < 0:
            return None
        name = self.index[at].name
        if self._last[0] != name:
            try:
                self._last = name, dict(self._rows(name))
            except (OSError, pa.ArrowInvalid):
                self._last = name, {}
        found = self._last[1].get(file.found.path)
        return found if found is not None and found.stamp == file.found.stamp else None

    def add(self, piece: Piece, found: list[tuple[str, Facts]], passing: set[str]) -> None:
        """Remember what was found in the files of a piece, in the store; but of the paths that are `passing` in this
        process alone."""
        columns = zip(*(facts for _, facts in found), strict=True)
        table = pa.table({"path": [path for path, _ in found], **dict(zip(Facts._fields, columns, strict=True))})
        if passing or self.cache is None:
            self._held[piece.name] = table
        if self.cache is not None:
            kept = table.filter(pa.array([path not in passing for path, _ in found]))
            self.cache.put(self._path(piece.name), to_parquet(kept))

    def rows(self, piece: Piece) -> list[tuple[str, Facts]]:
        """(path, facts) of the files of a piece. StageError where somebody else has listed the files anew meanwhile, or
        what was remembered is damaged."""
        try:
            return self._rows(piece.name)
        except (OSError, pa.ArrowInvalid) as error:
            if isinstance(error, StoreError):
                raise
            assert self.cache is not None
            self.cache.delete(f"{self.folder}/{INDEX}")
            raise StageError(
                "what was remembered of the files is gone or damaged", next="run the same command again: it lists anew"
            ) from None

    def close(self, found: list[Piece]) -> None:
        """Remember these pieces and no others."""
        if self.cache is None or found == self.index:
            return
        self.cache.put(f"{self.folder}/{INDEX}", to_parquet(pa.Table.from_pylist([p._asdict() for p in found], SCHEMA)))
        names = {piece.name for piece in found}
        self.cache.delete(*(self._path(piece.name) for piece in self.index if piece.name not in names))

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}.parquet"

    def _rows(self, name: str) -> list[tuple[str, Facts]]:
        if name in self._held:
            table = self._held[name]
        else:
            if self.cache is None:
                raise FileNotFoundError(name)
            table = from_parquet(self.cache.get(self._path(name)))
        columns = (table[name].to_pylist() for name in ("path", *Facts._fields))
        return [(path, Facts(*facts)) for path, *facts in zip(*columns, strict=True)]

    def _read_index(self) -> list[Piece]:
        if self.cache is None:
            return []
        try:
            table = from_parquet(self.cache.get(f"{self.folder}/{INDEX}"))
            return sorted((Piece(**row) for row in table.to_pylist()), key=lambda piece: piece[1:3])
        except (OSError, pa.ArrowInvalid, TypeError):
            return []
