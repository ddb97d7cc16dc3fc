"""Walking the files under a root, a folder or a bucket. What one holds: `files`."""

import os
from collections.abc import Iterator

from pipeline.core.errors import ConfigError, Set
from pipeline.core.store import local_folder, open_store
from pipeline.images.files import OBJECT, Found, tag, unreadable, within


def has_folder(root: str, name: str) -> bool:
    folder = local_folder(root)
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(f"dataset.root: {folder} is not a folder", next=Set("dataset.root", "FOLDER"))
        return (folder / name).is_dir()
    parent, _, last = name.rpartition("/")
    return last in open_store(root).folders(parent)


def walk(root: str, top: str) -> Iterator[Found]:
    """Every file below a folder of the root, in the order of their paths (a bucket's in its own order, which is nearly
    always that); links to folders are not followed.
    StageError for a folder that cannot be listed: what lies in it would be missing in silence.

    Hidden files and folders are left out, and so is ROOT/labels where the images have no folder of their own.
    """
    start = len(top) + 1 if top else 0
    for entry in _files(root, top):
        names = entry.path[start:].split("/")
        shown = within(entry.path) or not any(name.startswith(".") for name in names)
        if shown and (top or names[0] != "labels" or len(names) == 1):
            yield entry


def _files(root: str, top: str) -> Iterator[Found]:
    folder = local_folder(root)
    if folder is None:
        for entry in open_store(root).entries(top):
            identity = f"{OBJECT}{entry.size}:{entry.tag}" if entry.tag else ""
            stamp = identity or f"{entry.size}:{entry.modified}"
            yield Found(entry.path, entry.size, stamp, entry.modified, identity=identity)
        return

    base = str(folder)
    levels = [iter(_listed(base, top))]
    while levels:
        path = next(levels[-1], None)
        if path is None:
            levels.pop()
        elif path.endswith("/"):
            levels.append(iter(_listed(base, path[:-1])))
        else:
            try:
                stat = os.stat(f"{base}/{path}")
            except PermissionError as error:  # of the folder that it lies in, or that a link leads to
                raise unreadable(error.filename, error) from error
            yield Found(path, stat.st_size, tag(stat), stat.st_mtime)


def _listed(base: str, folder: str) -> list[str]:
    """The files and folders of a folder, below `base`, in the order of the paths of what lies in them. The name of a
    folder ends with a slash."""
    found = []
    start = f"{folder}/" if folder else ""
    try:
        with os.scandir(f"{base}/{folder}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found += [] if entry.name.startswith(".") else [f"{start}{entry.name}/"]
                elif _is_file(entry):
                    found.append(f"{start}{entry.name}")
    except OSError as error:
        raise unreadable(error.filename, error) from error
    return sorted(found)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file, or a link to one. PermissionError where that cannot be known."""
    try:
        return entry.is_file()
    except PermissionError:
        raise
    except OSError:  # links in a circle
        return False
