"""What a listed file holds: its digest, and the size of its image."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pipeline.core.fingerprint import digest
from pipeline.images import files, formats
from pipeline.images.pixels import DecodeError

READING = 3
"""Raised when files are read otherwise: what was refused may be an image now."""


class Facts(NamedTuple):
    """What a file holds."""

    stamp: str
    """Of the file when it was read."""
    sha256: str
    """… of a local file; of an object its identity (`files.OBJECT`)."""
    size: int
    """Bytes."""
    height: int
    """0 for a label map, and where the header cannot be read."""
    width: int
    error: str
    """Why the header cannot be read, else empty."""
    planes: str
    """JSON: [keys, height, width] of each image or label map in it where there are several, else empty."""
    sparse: bool
    """Whether pixels may be without content."""
    channels: str
    """The names of its channels where they are more than three, else empty."""


def read(root: str, kind: str, entry: files.Found) -> Facts:
    """The facts of a file, or of several that are one image."""
    file: files.File
    if kind == "labels" and entry.identity and not entry.path.lower().endswith(formats.PLANED):
        return Facts(entry.stamp, entry.identity, entry.size, 0, 0, "", "", False, "")
    if entry.members:
        file, sha256 = _several(root, entry)
    elif entry.identity:
        sha256 = entry.identity
        file = files.patiently(entry.path, lambda: files.begun(root, entry.path, sha256, entry.size))
    elif entry.size < files.SMALL and not entry.path.lower().endswith(formats.BY_PATH):
        file = files.Memory(entry.path, files.read_or_explain(root, entry.path))
        sha256 = hashlib.sha256(file.data).hexdigest()
    else:
        file, sha256 = files.patiently(entry.path, lambda: _digest(root, entry.path))
    height, width, error, planes, sparse, channels = 0, 0, "", "", False, ""
    try:
        several = formats.planes(file)
        planes = json.dumps(several) if len(several) > 1 else ""
        if kind == "images":
            image = formats.open_image(file, plane=several[0][0] if several else None)
            height, width = image.size
            sparse = image.sparse
            names = [name for name in image.channels if name != "A"]
            channels = ", ".join(names[:20]) if len(names) > 3 and names != ["C", "M", "Y", "K"] else ""
    except DecodeError as failure:
        error = str(failure) if kind == "images" else ""  # of a label map, reading it says so
    return Facts(entry.stamp, sha256, entry.size, height, width, error, planes, sparse, channels)


def _several(root: str, entry: files.Found) -> tuple[files.File, str]:
    """An image that is several files, and the digest of their paths and contents."""
    if entry.identity:
        return formats.open_listed(root, entry.path, entry.identity, entry.size), entry.identity
    with ThreadPoolExecutor(8) as pool:
        paths = [member.path for member in entry.members]
        found = pool.map(lambda path: files.patiently(path, lambda: _digest(root, path))[1], paths)
        sha256 = digest(sorted(zip(paths, found, strict=True)))
    return formats.open_listed(root, entry.path, sha256, entry.size), sha256


def _digest(root: str, path: str) -> tuple[files.Stored, str]:
    """A large file and its digest, block by block."""
    file, sha256 = files.stored(root, path), hashlib.sha256()
    for block in file.blocks():
        sha256.update(block)
    return file, sha256.hexdigest()
