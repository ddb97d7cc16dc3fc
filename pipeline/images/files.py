"""The files under a root, a folder or a bucket: walking them, and reading one. What they are is no matter here."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.retries import IO_ERRORS
from pipeline.core.store import Store, local_folder

TRIES = 3
"""How often a listing reads a file before it gives up: an I/O error may pass."""


def read_file(root: str, path: str) -> bytes:
    """The bytes of one file under a root. Raises OSError; StageError for a path that leads out of it."""
    if path.startswith("/") or ".." in path.split("/"):
        raise StageError(f"{path} is not below dataset.root", next="look at who wrote this store: no listing says that")
    folder = local_folder(root)
    return (folder / path).read_bytes() if folder else Store(root, create=False).get(path)


def read_or_explain(root: str, path: str) -> bytes:
    """The bytes of a file, tried `TRIES` times; FileNotFoundError, or StageError that names the file."""
    for left in reversed(range(TRIES)):
        try:
            return read_file(root, path)
        except FileNotFoundError:
            raise
        except IO_ERRORS as error:
            if not left:
                raise _unreadable(path, error) from error
    raise AssertionError


def _unreadable(path: object, error: Exception) -> StageError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return StageError(f"{path} cannot be read: {reason}", next="make it readable or remove it, and run again")


def read_checked(root: str, path: str, sha256: str) -> bytes:
    """The bytes of a file that must still be what was listed; StageError if it changed since."""
    data = read_file(root, path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StageError(f"{path} changed since it was listed", next="run the same command again: it lists anew")
    return data


def has_folder(root: str, name: str) -> bool:
    folder = local_folder(root)
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(f"dataset.root: {folder} is not a folder", next=Set("dataset.root", "FOLDER"))
        return (folder / name).is_dir()
    parent, _, last = name.rpartition("/")
    return last in Store(root, create=False).folders(parent)


def walk(root: str, top: str) -> Iterator[tuple[str, str, float]]:
    """(path below the root, stamp of size and change, time of change) of every file; links to folders not followed.
    StageError for a folder that cannot be listed: what lies in it would be missing in silence.

    Hidden files and folders are left out, and so is ROOT/labels where the images have no folder of their own.
    """
    start = len(top) + 1 if top else 0
    for path, size, stamp, modified in _files(root, top):
        names = path[start:].split("/")
        if not any(name.startswith(".") for name in names) and (top or names[0] != "labels" or len(names) == 1):
            yield path, f"{size}:{stamp}", modified


def _files(root: str, top: str) -> Iterator[tuple[str, int, float, float]]:
    folder = local_folder(root)
    if folder is None:
        for entry in Store(root, create=False).entries(top):
            yield entry.path, entry.size, entry.modified, entry.modified
        return

    def refuse(error: OSError) -> NoReturn:
        raise _unreadable(error.filename, error) from error

    for parent, folders, names in os.walk(folder / top, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            try:
                stat = path.stat() if path.is_file() else None
            except PermissionError as error:  # of the folder that it lies in, or that a link leads to
                refuse(error)
            if stat is not None:
                yield path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns, stat.st_mtime
