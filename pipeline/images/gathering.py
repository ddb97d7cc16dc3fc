"""Images that are several files: an OME-Zarr, a slide and its parts, a mosaic and its tiles. Each is listed once.

- The files below a folder `a.zarr` are that image.
- `a.mrxs` has its parts in the folder `a` beside it.
- The `.dcm` files of one folder that belong to one series are one slide, under the name of the first.
- The files that a `.vrt` names are its tiles, and no images of their own.
"""

from collections.abc import Iterable
from hashlib import sha256

from pipeline.core.fingerprint import digest
from pipeline.core.store import MARK
from pipeline.images import geo
from pipeline.images.files import Found, patiently, stored, within
from pipeline.images.pixels import DecodeError

SERIES = b"\x20\x00\x0e\x00UI"
"""DICOM's tag (0020,000E), Series Instance UID, in the explicit encoding that slides have."""


def gather(root: str, every: Iterable[Found]) -> list[Found]:
    """The files of a walk, with those that make one image put together under its path. A store of this program that
    lies among them is passed over: its arrays are no images."""
    every = list(every)
    stores = tuple(entry.path.removesuffix(MARK) for entry in every if entry.path.endswith(f"/{MARK}"))
    every = [entry for entry in every if not entry.path.startswith(stores)] if stores else every
    folders: dict[str, list[Found]] = {}
    plain: dict[str, Found] = {}
    for entry in every:
        name = within(entry.path)
        if name:
            folders.setdefault(name, []).append(entry)
        else:
            plain[entry.path] = entry
    found = [_one(name, members) for name, members in folders.items()]
    taken: set[str] = set()
    for main, members in (*_slides(plain), *_series(root, plain), *_mosaics(root, plain)):
        taken.update(member.path for member in members)
        found.append(_one(main, members, plain[main].size))
    return [*found, *(entry for path, entry in plain.items() if path not in taken)]


def _one(path: str, members: list[Found], size: int | None = None) -> Found:
    """An image of several files. size: that of its own file; by default that of all of them."""
    members = sorted(members)
    stamp = sha256("\n".join(f"{m.path}:{m.stamp}" for m in members).encode(errors="replace")).hexdigest()
    total = sum(member.size for member in members) if size is None else size
    return Found(path, total, stamp, max(member.modified for member in members), tuple(members), _identity(members))


def _identity(members: list[Found]) -> str:
    """Of objects that are one image, where all of them have one."""
    if not all(member.identity for member in members):
        return ""
    return digest([[member.path, member.identity] for member in members])


def _slides(plain: dict[str, Found]) -> list[tuple[str, list[Found]]]:
    """MIRAX slides and their folders."""
    found = []
    for path in plain:
        if path.lower().endswith(".mrxs"):
            inside = f"{path[:-5]}/"
            found.append((path, [plain[path], *(entry for name, entry in plain.items() if name.startswith(inside))]))
    return found


def _series(root: str, plain: dict[str, Found]) -> list[tuple[str, list[Found]]]:
    """DICOM files by folder and series."""
    groups: dict[tuple[str, bytes], list[Found]] = {}
    for path, entry in sorted(plain.items()):
        if path.lower().endswith(".dcm"):
            head = patiently(path, lambda path=path: stored(root, path).read(0, 2**16))  # type: ignore[misc]
            at = head.find(SERIES)
            length = int.from_bytes(head[at + 6 : at + 8], "little")
            series = head[at + 8 : at + 8 + length] if at >= 0 else path.encode(errors="replace")
            groups.setdefault((path.rpartition("/")[0], series), []).append(entry)
    return [(members[0].path, members) for members in groups.values()]


def _mosaics(root: str, plain: dict[str, Found]) -> list[tuple[str, list[Found]]]:
    """VRTs and their tiles, as far as those are there. One that is refused stands alone: opening it says why."""
    found = []
    for path in sorted(plain):
        if path.lower().endswith(".vrt"):
            try:
                tiles = geo.tiles_of(patiently(path, lambda path=path: stored(root, path)))  # type: ignore[misc]
            except (DecodeError, UnicodeDecodeError):
                continue
            found.append((path, [plain[path], *(plain[tile] for tile in tiles if tile in plain)]))
    return found
