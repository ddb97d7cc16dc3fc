"""A folder (or bucket) of images: listing, splits, ids, content digests.

ROOT/images/{train,val,…}/… with optional ROOT/labels/{train,val,…}/… and ROOT/dataset.yaml, or any folder of images;
or, where a `layout` is named, a published benchmark as it lies on disk (`benchmarks`).
An image's id is its path below its split folder. Content decides: where ROOT lies is never part of a fingerprint.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.fingerprint import digest
from pipeline.core.store import Store, redact
from pipeline.datasets import digests
from pipeline.datasets.benchmarks import LAYOUTS, layouts
from pipeline.datasets.benchmarks import listing as benchmark
from pipeline.images import files, formats
from pipeline.images.gathering import gather

FIRST_THREE = "the first three are seen, unless dataset.channels names others"
SOLE_SPLIT = "all"
"""The split's name where a folder has no split sub-folders."""


class Item(NamedTuple):
    """One file of a listing."""

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


def image_folder(root: str) -> str:
    """The part of the root that holds images: `images` where there is such a folder, else all of it."""
    return "images" if files.has_folder(root, "images") else ""


class Listing(NamedTuple):
    """What lies under a root."""

    items: list[Item]
    """Sorted by split, then id."""
    notes: list[str]
    """What a user must know of it: files left out, images that cannot be read, lists that are not the published."""


def has_labels(root: str, layout: str = "folder") -> bool:
    """Whether ROOT/labels (or a benchmark's folder of labels) holds a label map."""
    if layout != "folder":
        return benchmark.labelled(root, layout)
    found = files.walk(root, "labels") if files.has_folder(root, "labels") else ()
    return any(entry.path.lower().endswith(formats.LABEL_SUFFIXES) for entry in found)


def scan(
    root: str,
    kind: str,
    cache: Store | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    layout: str = "folder",
) -> Listing:
    """List the images (`kind="images"`) or label maps (`kind="labels"`) under a root, with their content digests.

    Every file is read once (`digests`). ConfigError where there is nothing to list, or a benchmark's `layout` lacks
    something.
    """
    if layout == "folder":
        found, split_of, notes = _find(root, kind)
    else:
        found, split_of = benchmark.find(root, kind, layout)
        notes = benchmark.notes(root, layout) if kind == "images" else []
    paths = [entry.path for entry in found]
    for path in paths:
        if path != path.encode(errors="replace").decode():
            name = path.encode(errors="backslashreplace").decode()
            raise ConfigError(f"dataset.root: the name {name} is not UTF-8", next="rename that file")
        if formats.split_plane(path)[1]:
            raise ConfigError(
                f"dataset.root: the name {path} is that of a plane of {formats.split_plane(path)[0]}",
                next="rename that file: what follows its # names an image in a file of several",
            )
    known = digests.read_all(root, kind, found, cache, progress)
    items = [item for path in paths for item in _items(path, split_of, known[path])]
    items.sort(key=lambda item: (item.split, item.id))
    if layout == "folder":
        notes += _wide({path: known[path].channels for path in paths})
    if refused := [item.error for item in items if item.error]:
        notes.append(f"{len(refused)} of {len(items)} images cannot be read: {some(refused)}")
    return Listing(items, notes)


def _items(path: str, split_of: Callable[[str], tuple[str, str]], facts: digests.Facts) -> list[Item]:
    """The images of a file: one, or each of its planes."""
    found = []
    for keys, height, width in json.loads(facts.planes) if facts.planes else [({}, facts.height, facts.width)]:
        name = formats.join_plane(path, keys)
        split, id = split_of(name)
        height, width = (height, width) if facts.height else (0, 0)
        found.append(Item(split, id, name, facts.sha256, facts.size, height, width, facts.error, facts.sparse))
    return found


def _wide(channels: dict[str, str]) -> list[str]:
    """A note on images with more than three channels."""
    wide = sorted(path for path, names in channels.items() if names)
    if not wide:
        return []
    many = f"{len(wide)} files have more than three channels, first {wide[0]} ({channels[wide[0]]})"
    return [f"{many}: {FIRST_THREE}"]


def some(names: list[str]) -> str:
    """The first three of a list of sentences, and how many more there are."""
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def _find(root: str, kind: str) -> tuple[list[files.Found], Callable[[str], tuple[str, str]], list[str]]:
    """The files of a plain folder, the function from a path to (split, id), and notes on what was left out."""
    top = image_folder(root) if kind == "images" else "labels"
    suffixes = formats.SUFFIXES if kind == "images" else formats.LABEL_SUFFIXES
    every = gather(root, files.walk(root, top))
    found = [entry for entry in every if entry.path.lower().endswith(suffixes)]
    notes = formats.left_out(entry.path for entry in every) if kind == "images" else []
    if not found:
        where = f"{redact(root)}/{top}".rstrip("/")
        left = f"; {some(notes)}" if notes else ""
        raise ConfigError(
            f"dataset.root: no image under {where} (looked for {', '.join(suffixes)}){left}",
            next=("name a folder of images: ", Set("dataset.root", "FOLDER")),
        )
    return found, _splitter([entry.path for entry in found], top), notes


def content_digest(items: list[Item], extra: Any = None) -> str:
    """The digest of a listing: split, path below the root and content of every file (and `extra`), not where the root
    lies. The path, because the artifacts hold it: a root that is laid out otherwise could not be read by it."""
    return digest([[[item.split, item.path, item.sha256] for item in items], extra])


def check_digest(items: list[Item], wanted: str, extra: Any = None) -> None:
    """StageError unless a listing is still the one that a run was planned with."""
    if content_digest(items, extra) != wanted:
        raise StageError("files changed since the run was planned", next="run the same command again: it lists anew")


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


def _splitter(paths: list[str], top: str) -> Callable[[str], tuple[str, str]]:
    start = len(top) + 1 if top else 0
    with_train = any(path[start:].startswith("train/") for path in paths)

    def split_of(path: str) -> tuple[str, str]:
        split, slash, rest = path[start:].partition("/")
        return (split, rest) if with_train and slash else (SOLE_SPLIT, path[start:])

    return split_of
