"""The folder that an export writes to: files that appear whole or not at all, and what lets it be continued."""

import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.artifacts.labels import stem
from pipeline.core.errors import ConfigError

WORK = ".export"
"""What lies in the folder until the export is finished: a journal, and files that are being written."""


class Folder:
    """An output folder. Nothing is written outside of it, and a link is never followed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def work(self) -> Path:
        """A place for unfinished files, which goes when the export is finished."""
        work = self.root / WORK
        if work.is_symlink():
            raise ConfigError(f"{work} leads out of {self.root}", next="remove that link")
        work.mkdir(parents=True, exist_ok=True)
        return work

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Where to write a file or folder `name`; it gets that name when the block ends well. ConfigError for a name
        that leads out of the folder."""
        path = self.root / name
        check_name(name)
        if not path.parent.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError(f"{path.parent} leads out of {self.root}", next="give a folder without links in it")
        part = self.work / f"{secrets.token_hex(8)}{''.join(PurePosixPath(name).suffixes[-1:])}"
        try:
            yield part
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            os.replace(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
            raise

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file at once."""
        with self.new(name) as part:
            part.write_bytes(data.encode() if isinstance(data, str) else data)

    def clear(self) -> None:
        """The export is finished: nothing but its files is left."""
        shutil.rmtree(self.work, ignore_errors=True)


def check_name(name: str) -> None:
    """ConfigError for a name that is no path below a folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] == (WORK,) or "\0" in name:
        raise ConfigError(f"{name}: not a path below the split", next="rename the image")


def check_empty(out: Path, overwrite: bool) -> None:
    """ConfigError for a folder with something in it that is not to be overwritten and no export that was cut short."""
    if not overwrite and out.exists() and any(out.iterdir()) and not (out / WORK / Journal.NAME).is_file():
        raise ConfigError(f"{out} is not empty", next="name a new folder, or add --overwrite")


class Journal:
    """What an export has written so far, one line an image. A line that was cut short does not count."""

    NAME = "journal.jsonl"

    def __init__(self, folder: Folder, record: dict[str, Any], overwrite: bool) -> None:
        """record: what is exported, by which the export that was cut short is known again. ConfigError where another
        one lies in the folder."""
        self.folder, self.record = folder, record
        self.path = folder.root / WORK / self.NAME
        self.done: set[tuple[str, str]] = set()
        if overwrite:
            shutil.rmtree(folder.root / WORK, ignore_errors=True)
        self._mend()
        lines = self._lines()
        begun = next(lines, None)
        if begun is not None and begun != json.loads(json.dumps(record)):
            raise ConfigError(
                f"{folder.root} holds another export, which was cut short",
                next="name a new folder, or add --overwrite",
            )
        self.done = {(line["split"], line["id"]) for line in lines}
        self.begun = begun is not None

    def _mend(self) -> None:
        """Cut off a line that was cut short."""
        if self.path.is_file():
            with self.path.open("r+b") as file:
                kept = sum(len(line) for line in file if line.endswith(b"\n"))
                file.truncate(kept)

    def add(self, line: dict[str, Any]) -> None:
        """An image is done."""
        with (self.folder.work / self.NAME).open("a", encoding="utf-8") as file:
            if not self.begun:
                file.write(json.dumps(self.record) + "\n")
                self.begun = True
            file.write(json.dumps(line) + "\n")
        self.done.add((line["split"], line["id"]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        lines = self._lines()
        next(lines, None)
        return lines

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def file_names(names: list[tuple[str, str]], suffix: str, folders: bool) -> list[str]:
    """Where the files of each image, (split, id), go, without the suffix; no two the same: the image's path without its
    own suffix, below its split where each split has a folder.

    Where that is also another's, a folder, or longer than a file system allows: the image's whole name (a.jpg and a.png
    beside each other); where that is too, the name cut short and a digest of it.
    """

    def digested(id: str) -> str:
        head, slash, name = id.rpartition("/")
        return f"{head}{slash}{name.encode()[:200].decode(errors='ignore')}-{sha256(id.encode()).hexdigest()[:12]}"

    parents = {(split, str(parent)) for split, id in names for parent in PurePosixPath(id).parents}
    files = [(split, stem(id)) for split, id in names]
    for other in (str, digested):
        counts = Counter(files)
        taken = [
            counts[file] > 1
            or (file[0], file[1] + suffix) in parents
            or len((file[1].rpartition("/")[2] + suffix).encode()) > 255
            for file in files
        ]
        files = [
            (split, other(id)) if bad else file for (split, id), file, bad in zip(names, files, taken, strict=True)
        ]
    for split, file in files:
        check_name(file)
        if "/" in split:
            raise ConfigError(f"{split}: not the name of a split", next="rename that folder")
        check_name(split)
    return [f"{split}/{file}" if folders else file for split, file in files]
