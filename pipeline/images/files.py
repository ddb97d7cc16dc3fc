"""The files under a root, a folder or a bucket: reading one whole or by ranges. Which there are: `walking`.

What a file holds is no matter here. How a read is checked against the listing: `open_file`.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import obstore
from obstore.exceptions import PreconditionError

from pipeline.core.errors import StageError, StoreError
from pipeline.core.retries import IO_ERRORS
from pipeline.core.store import GO_ON, first_line, local_folder, open_store
from pipeline.images.ranges import Ranges

if TYPE_CHECKING:
    from obstore import GetOptions

TRIES = 3
"""How often a listing reads a file before it gives up: an I/O error may pass."""
SMALL = 2**26
"""Files below this many bytes (64 MiB) are read whole, and their digest is checked."""
HEAD = 2**16
"""Bytes of an object that are read when its header is looked at."""
BLOCK = 2**23
"""Bytes read at a time where a large file is read from end to end."""
OBJECT = "etag:"
"""How the identity of an object begins, which has the place of the sha256 of a local file."""
Result = TypeVar("Result")


class Found(NamedTuple):
    """One file of a walk."""

    path: str
    """Below the root."""
    size: int
    """Bytes."""
    stamp: str
    """Changes when the file does: size and time of change."""
    modified: float
    """Seconds since the epoch of its last change."""
    members: "tuple[Found, ...]" = ()
    """Of an image that is several files, all of them."""
    identity: str = ""
    """Of an object: `OBJECT`, its bytes and its ETag, which stand for its content. Empty for a local file, and where a
    store lists no ETags: what has been read then says which content it is."""


class Memory(NamedTuple):
    """A file whose bytes are in memory."""

    name: str
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def content(self) -> bytes:
        return self.data

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def read_rows(self, offset: int, step: int, count: int, length: int) -> bytes:
        return b"".join(self.data[at : at + length] for at in range(offset, offset + count * step, step))

    def stream(self) -> io.BytesIO:
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class Stored:
    """A file that is read by ranges. Each read checks that it is still the one that was opened.

    Holds no open handle, so it needs no closing and any thread may read. Reads raise StoreError where the file cannot
    be read, StageError where it changed.
    """

    root: str
    name: str
    """Its path below the root."""
    size: int
    tag: str
    """Size and time of change of a local file, the ETag of an object."""
    sha256: str = ""
    """What `content` must have; empty: not known, or the tag says it."""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end of the file."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        folder = local_folder(self.root)
        if folder is None:
            return self._read_object(offset, length)
        with self._opened(folder) as file:
            file.seek(offset)
            return file.read(length)

    def read_rows(self, offset: int, step: int, count: int, length: int) -> bytes:
        """`length` bytes at each of `count` places, which are `step` apart: of a local file these alone are read, of an
        object what lies between, too."""
        folder = local_folder(self.root)
        if folder is None:
            data = self.read(offset, (count - 1) * step + length)
            return b"".join(data[at : at + length] for at in range(0, count * step, step))
        with self._opened(folder) as file:
            number = file.fileno()
            return b"".join([os.pread(number, length, at) for at in range(offset, offset + count * step, step)])

    @contextmanager
    def _opened(self, folder: Path) -> Iterator[io.BufferedReader]:
        try:
            with (folder / self.name).open("rb") as file:
                if tag(os.fstat(file.fileno())) != self.tag:
                    raise changed(self.name)
                yield file
        except OSError as error:
            raise StoreError(f"cannot read {self.name}: {error.strerror or error}", next=GO_ON) from error

    def _read_object(self, offset: int, length: int) -> bytes:
        store = open_store(self.root)
        options: GetOptions = {"range": (offset, offset + length), "if_match": self.tag}
        with store.wrap_errors("cannot read", self.name):
            try:
                return bytes(obstore.get(store.objects, self.name, options=options).bytes())
            except PreconditionError:
                raise changed(self.name) from None
            except FileNotFoundError as error:
                raise StoreError(f"cannot read {store.path_of(self.name)}: {first_line(error)}", next=GO_ON) from None

    def content(self) -> bytes:
        """All of it, checked against its digest."""
        data = b"".join(self.blocks())
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise changed(self.name)
        return data

    def blocks(self) -> Iterator[bytes]:
        """All of it, `BLOCK` bytes at a time."""
        for offset in range(0, self.size, BLOCK):
            yield self.read(offset, BLOCK)

    def stream(self) -> io.BufferedReader:
        """It as a seekable file object."""
        return io.BufferedReader(Ranges(self.read, self.size), 2**16)


@dataclass(frozen=True)
class Begun(Stored):
    """One of which the first bytes were read: of most formats no more is needed to see what an image measures. Where
    more is, all of a small file is read at once."""

    start: bytes = field(default=b"", repr=False)

    def read(self, offset: int, length: int) -> bytes:
        if self.start and min(offset + length, self.size) > len(self.start) and self.size < SMALL:
            object.__setattr__(self, "start", super().read(0, self.size))
        if min(offset + length, self.size) <= len(self.start):
            return self.start[offset : offset + length]
        return super().read(offset, length)


@dataclass(frozen=True)
class Folder:
    """A folder that is one image. What reads it opens what lies in it."""

    root: str
    name: str
    size: int
    """Bytes of all its files, as they were listed."""

    def content(self) -> bytes:
        return b""  # it has none of its own

    def read(self, offset: int, length: int) -> bytes:
        return b""

    def stream(self) -> io.BytesIO:
        return io.BytesIO()


File = Memory | Stored | Folder
FOLDERS = (".zarr",)
"""Endings of folders that are one image."""


def open_file(root: str, path: str, sha256: str, size: int, keep: bool = True) -> File:
    """A listed file. Below `SMALL` bytes it is read here and now, and must have the digest that was listed; a larger
    one, and one not to `keep` in memory, must have the size that was listed, and at every read the time of change or
    ETag that it has here. An object that was listed by its ETag must have that at every read. Of a folder nothing is
    checked.

    StageError if it changed since it was listed; FileNotFoundError or another OSError where it cannot be read.
    """
    if path.lower().endswith(FOLDERS):
        _checked_folder(root, path)
        return Folder(root, path, size)
    if sha256.startswith(OBJECT):
        there = listed_object(root, path, sha256, size)
        return Memory(path, there.content()) if size < SMALL and keep else there
    if size < SMALL and keep:
        data = read_file(root, path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise changed(path)
        return Memory(path, data)
    file = stored(root, path, sha256 if keep else "")
    if file.size != size:
        raise changed(path)
    return file


def listed_object(root: str, path: str, identity: str, size: int) -> Stored:
    """An object that was listed by its ETag: nothing is asked of the store before the first read."""
    if _checked_folder(root, path) is not None:
        raise changed(path)
    return Stored(root, path, size, identity.removeprefix(OBJECT).partition(":")[2])


def begun(root: str, path: str, identity: str, size: int) -> "Begun":
    """`listed_object` with its first `HEAD` bytes."""
    file = listed_object(root, path, identity, size)
    return Begun(root, path, size, file.tag, start=file.read(0, HEAD))


def stored(root: str, path: str, sha256: str = "") -> Stored:
    """A file as it is now, to be read by ranges."""
    folder = _checked_folder(root, path)
    if folder is not None:
        stat = (folder / path).stat()
        return Stored(root, path, stat.st_size, tag(stat), sha256)
    store = open_store(root)
    with store.wrap_errors("cannot read", path):
        facts = obstore.head(store.objects, path)
    return Stored(root, path, facts["size"], facts["e_tag"] or "*", sha256)


def read_file(root: str, path: str) -> bytes:
    """The bytes of one file under a root. Raises OSError; StageError for a path that leads out of it."""
    folder = _checked_folder(root, path)
    return (folder / path).read_bytes() if folder else open_store(root).get(path)


def patiently(path: str, read: Callable[[], Result]) -> Result:
    """What `read` returns, tried `TRIES` times; FileNotFoundError, or StageError that names the file."""
    for left in reversed(range(TRIES)):
        try:
            return read()
        except FileNotFoundError:
            raise
        except IO_ERRORS as error:
            if not left:
                raise unreadable(path, error) from error
    raise AssertionError


def read_or_explain(root: str, path: str) -> bytes:
    """The bytes of a file, tried `TRIES` times; FileNotFoundError, or StageError that names the file."""
    return patiently(path, lambda: read_file(root, path))


def changed(path: str) -> StageError:
    """A file is not what was listed."""
    return StageError(
        f"{path} changed since it was listed", next="run the same command again: it lists the files again"
    )


def within(path: str) -> str:
    """The outermost folder on a path that is itself an image; empty where there is none."""
    folders = path.split("/")[:-1]
    number = next((n for n, name in enumerate(folders, 1) if name.lower().endswith(FOLDERS)), 0)
    return "/".join(folders[:number])


def tag(stat: os.stat_result) -> str:
    """What changes when a local file does: its size and time of change."""
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _checked_folder(root: str, path: str) -> Path | None:
    """The folder of a local root, None for a bucket. StageError for a path that leads out of the root."""
    if path.startswith("/") or ".." in path.split("/"):
        raise StageError(f"{path} is not below dataset.root", next="look at who wrote this store: no listing says that")
    return local_folder(root)


def unreadable(path: object, error: Exception) -> StageError:
    """A file or folder that cannot be read, and why."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return StageError(f"{path} cannot be read: {reason}", next="make it readable or remove it, and run again")
