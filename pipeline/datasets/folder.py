"""A folder (or bucket) of images: listing, splits, ids, content digests.

ROOT/images/{train,val,…}/… with optional ROOT/labels/{train,val,…}/… and ROOT/dataset.yaml, or any folder of images;
or, where a `layout` is named, a published benchmark as it lies on disk (`benchmarks`).
An image's id is its path below its split folder. Content decides: where ROOT lies is never part of a fingerprint.
"""

import json
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import yaml

from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.fingerprint import digest
from pipeline.core.store import Store
from pipeline.datasets import digests
from pipeline.datasets.benchmarks import LAYOUTS, layouts
from pipeline.datasets.benchmarks import listing as benchmark
from pipeline.datasets.finding import Listed, find
from pipeline.datasets.remembered import File, Memory, Piece, name_of, pieces
from pipeline.images import files, formats, walking

EXAMPLES = 4
"""Files of a piece that stand for the others in an estimate."""
FIRST_THREE = "the first three are seen, unless dataset.channels names others"


class Item(NamedTuple):
    """One image, or label map, of a listing."""

    split: str
    id: str
    path: str
    """Path below the root."""
    sha256: str
    size: int
    height: int
    """0 where the header cannot be read."""
    width: int
    error: str
    """Why the header cannot be read, else empty."""
    sparse: bool = False
    """Whether pixels may be without content: nodata, slide glass."""


@dataclass(frozen=True)
class Listing:
    """What lies under a root: piece by piece, sorted by split, then id."""

    pieces: list[Piece]
    notes: list[str]
    """What a user must know of it: files left out, images that cannot be read, lists that are not the published."""
    read: Callable[[Piece], list[Item]]
    examples: list[File] = field(default_factory=list)
    """Some files of each piece, where there are pieces whose files were not looked into: these say how many they are
    and no more."""

    def __len__(self) -> int:
        return sum(piece.items for piece in self.pieces)

    def each(self) -> Iterator[list[Item]]:
        """The items of every piece."""
        return map(self.read, self.pieces)

    @property
    def items(self) -> list[Item]:
        """All of them in memory."""
        return [item for piece in self.each() for item in piece]

    @property
    def splits(self) -> dict[str, int]:
        """{split: its items}, in the order of the splits."""
        found: dict[str, int] = {}
        for piece in self.pieces:
            found[piece.split] = found.get(piece.split, 0) + piece.items
        return found

    def digest(self, extra: Any = None, splits: Container[str] | None = None) -> str:
        """The digest of split, path below the root and content of every file (and `extra`), not of where the root lies.
        The path, because the artifacts hold it: a root that is laid out otherwise could not be read by it."""
        leaves = [[piece.split, piece.digest] for piece in self.pieces if splits is None or piece.split in splits]
        return digest([leaves, extra])

    def check(self, wanted: str, extra: Any = None) -> None:
        """StageError unless it is still the one that a run was planned with."""
        if self.digest(extra) != wanted:
            raise StageError(
                "files changed since the run was planned", next="run the same command again: it lists anew"
            )


def scan(
    root: str,
    kind: str,
    cache: Store | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    layout: str = "folder",
    look: bool = True,
) -> Listing:
    """List the images (`kind="images"`) or label maps (`kind="labels"`) under a root, with their content digests.

    Every file is read once (`digests`); what is known of a piece of the listing whose files have not changed is not
    even looked at. Objects that the bucket gives an ETag of are read for their headers alone, and without `look` not
    at all. `progress` is called, where files are read, with the number of files gone through, and of all.
    ConfigError where there is nothing to list, or a benchmark's `layout` lacks something.
    """
    listed, memory = find(root, kind, layout), Memory(cache, root, kind)
    found: list[Piece] = []
    examples, unseen, done = [], 0, 0
    with ThreadPoolExecutor(8) as pool:
        for files_of_piece in pieces(listed.files):
            known = memory.known.get(name_of(files_of_piece))
            if known is None and not look and all(file.found.identity for file in files_of_piece):
                known = _unseen(files_of_piece)
                unseen += 1
            if not look:
                examples += files_of_piece[:: -(-len(files_of_piece) // EXAMPLES)]
            found.append(known or _new_piece(root, kind, files_of_piece, memory, pool, listed, done, progress))
            done += len(files_of_piece)
    if not unseen:
        memory.close(found)
    notes = list(listed.notes)
    if layout == "folder":
        notes += _wide(found)
    if refused := sum(piece.refused for piece in found):
        errors = [error for piece in found for error in json.loads(piece.errors)]
        shown = "; ".join(errors[:3]) + (f"; and {refused - 3} more" if refused > 3 else "")
        notes.append(f"{refused} of {sum(piece.items for piece in found)} images cannot be read: {shown}")
    return Listing(found, notes, lambda piece: _items(memory.rows(piece), listed.split_of), examples if unseen else [])


def _new_piece(
    root: str,
    kind: str,
    piece: list[File],
    memory: Memory,
    pool: ThreadPoolExecutor,
    listed: Listed,
    done: int,
    progress: Callable[[int, int], None],
) -> Piece:
    """Read what is not known of a piece, and remember it."""
    for file in piece:
        _check_name(file.found.path)
    facts = [memory.facts(file) for file in piece]
    fresh = [at for at, known in enumerate(facts) if known is None]
    for at, read in zip(fresh, pool.map(lambda at: digests.read(root, kind, piece[at].found), fresh), strict=True):
        facts[at] = read
        progress(done + at + 1, listed.total)
    rows = [(file.found.path, known) for file, known in zip(piece, facts, strict=True) if known is not None]
    items = _items(rows, listed.split_of)
    # A file changed in the last two seconds may change again within its time stamp's grain: not remembered.
    recent = time.time() - 2
    passing = {file.found.path for file in piece if file.found.modified >= recent and not file.found.identity}
    leaf = _unseen(piece).digest if all(file.found.identity for file in piece) else _leaf(items)
    errors = [item.error for item in items if item.error]
    wide = sorted((path, known.channels) for path, known in rows if known.channels)
    made = Piece(
        name_of(piece) + "+" * bool(passing),
        piece[0].split,
        piece[0].id,
        len(piece),
        len(items),
        leaf,
        len(errors),
        json.dumps(errors[:3]),
        len(wide),
        json.dumps(wide[:1]),
    )
    memory.add(made, rows, passing)
    return made


def _unseen(piece: list[File]) -> Piece:
    """A piece of objects, as far as their names and identities say: its digest is of the files, whatever they hold."""
    found = sha256()
    for file in piece:
        _check_name(file.found.path)
        found.update(f"{file.split}\0{file.found.path}\0{file.found.identity}\0".encode())
    split, first, count = piece[0].split, piece[0].id, len(piece)
    return Piece(name_of(piece), split, first, count, count, found.hexdigest(), 0, "[]", 0, "[]")


def look_into(root: str, kind: str, listing: Listing, most: int) -> list[Item]:
    """The images in `most` files of each split or a few more, of a listing whose files were not looked into."""
    found: list[Item] = []
    for split in listing.splits:
        files = [file for file in listing.examples if file.split == split]
        for file in files[:: -(-len(files) // most) or 1]:
            facts = digests.read(root, kind, file.found)
            found.append(Item(split, file.id, file.found.path, *facts[1:6], facts.sparse))
    return found


def _check_name(path: str) -> None:
    if path != path.encode(errors="replace").decode():
        name = path.encode(errors="backslashreplace").decode()
        raise ConfigError(f"dataset.root: the name {name} is not UTF-8", next="rename that file")
    if formats.split_plane(path)[1]:
        raise ConfigError(
            f"dataset.root: the name {path} is that of a plane of {formats.split_plane(path)[0]}",
            next="rename that file: what follows its # names an image in a file of several",
        )


def _leaf(items: list[Item]) -> str:
    """The digest of some items."""
    found = sha256()
    for item in items:
        found.update(f"{item.split}\0{item.path}\0{item.sha256}\0".encode())
    return found.hexdigest()


def _items(rows: list[tuple[str, digests.Facts]], split_of: Callable[[str], tuple[str, str]]) -> list[Item]:
    """The images of files: one of each, or each of its planes."""
    found = []
    for path, facts in rows:
        for keys, height, width in json.loads(facts.planes) if facts.planes else [({}, facts.height, facts.width)]:
            name = formats.join_plane(path, keys)
            split, id = split_of(name)
            height, width = (height, width) if facts.height else (0, 0)
            found.append(Item(split, id, name, facts.sha256, facts.size, height, width, facts.error, facts.sparse))
    return sorted(found, key=lambda item: (item.split, item.id))


def _wide(found: list[Piece]) -> list[str]:
    """A note on images with more than three channels."""
    many = sum(piece.wide for piece in found)
    if not many:
        return []
    path, channels = min(line for piece in found for line in json.loads(piece.widest))
    return [f"{many} files have more than three channels, first {path} ({channels}): {FIRST_THREE}"]


def has_labels(root: str, layout: str = "folder") -> bool:
    """Whether ROOT/labels (or a benchmark's folder of labels) holds a label map."""
    if layout != "folder":
        return benchmark.labelled(root, layout)
    found = walking.walk(root, "labels") if walking.has_folder(root, "labels") else ()
    return any(entry.path.lower().endswith(formats.LABEL_SUFFIXES) for entry in found)


def training_splits(present: set[str]) -> list[str]:
    """The splits that neighbours, head and clusters are fitted on: `train` where there is one, else all."""
    return ["train"] if "train" in present else sorted(present)


def predicted_splits(present: set[str], wanted: list[str]) -> list[str]:
    """The splits that get masks: those wanted; a folder with one split is predicted on itself."""
    chosen = sorted(present & set(wanted))
    if chosen:
        return chosen
    if len(present) == 1:
        return sorted(present)
    raise ConfigError(
        f"masks.splits: none of {', '.join(wanted)} is in the dataset, which has {', '.join(sorted(present))}",
        next=Set("masks.splits", [sorted(present)[-1]]),
    )


def read_description(root: str, layout: str = "folder") -> dict[str, Any]:
    """`classes` (names) and `ignore_index` of ROOT/dataset.yaml; empty names and 255 where there is none.

    Of a benchmark these are known, and `coarse` too: pairs of a stored label and its class.
    """
    if layout != "folder":
        known = LAYOUTS[layout]
        pairs = [list(pair) for pair in sorted(known.coarse.items())]
        return {"classes": list(known.classes), "ignore_index": layouts.IGNORE, "coarse": pairs}
    try:
        text = files.read_or_explain(root, "dataset.yaml")
    except FileNotFoundError:
        return {"classes": [], "ignore_index": 255}
    try:
        content = yaml.safe_load(text) or {}
        classes, ignore = content.get("classes") or [], content.get("ignore_index", 255)
        if not isinstance(classes, list):  # a string would be taken letter by letter, a mapping by its keys
            raise TypeError("classes must be a list of names")
        if type(ignore) is not int:
            raise TypeError(f"ignore_index must be a whole number, not {ignore}")
        return {"classes": [str(name) for name in classes], "ignore_index": ignore}
    except (yaml.YAMLError, RecursionError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"dataset.yaml: {reason}", next="write it as in README.md, or remove it to score without class names"
        ) from error
