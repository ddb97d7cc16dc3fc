"""A folder (or bucket) of images: listing, splits, ids, content digests.

ROOT/images/{train,val,…}/… with optional ROOT/labels/{train,val,…}/… and ROOT/dataset.yaml, or any folder of images;
or, where a `layout` is named, a published benchmark as it lies on disk (`LAYOUTS`).
An image's id is its path below its split folder. Content decides: where ROOT lies is never part of a fingerprint.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.fingerprint import digest
from pipeline.core.store import Store, local_folder, redact
from pipeline.datasets.benchmarks import cityscapes27, cocostuff27, layouts, potsdam3
from pipeline.images import files, formats

LAYOUTS = {
    "cocostuff27": cocostuff27.LAYOUT,
    "cityscapes27": cityscapes27.LAYOUT,
    "potsdam3": potsdam3.LAYOUT,
}
"""What `layout` may be, beside `folder`."""

LABEL_SUFFIXES = (".png", ".tif", ".tiff")
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


def image_folder(root: str) -> str:
    """The part of the root that holds images: `images` where there is such a folder, else all of it."""
    return "images" if files.has_folder(root, "images") else ""


def has_labels(root: str, layout: str = "folder") -> bool:
    """Whether ROOT/labels (or a benchmark's folder of labels) holds a label map."""
    if layout != "folder":
        return layouts.labelled(LAYOUTS[layout], _tree(root))
    found = files.walk(root, "labels") if files.has_folder(root, "labels") else ()
    return any(path.lower().endswith(LABEL_SUFFIXES) for path, _, _ in found)


def scan(
    root: str,
    kind: str,
    cache: Store | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    layout: str = "folder",
) -> list[Item]:
    """List the images (`kind="images"`) or label maps (`kind="labels"`) under a root, with their content digests.

    Every file is read once; the digests are then remembered in `cache` by path, size and time of change (or ETag).
    That memory can be deleted at any time and no fingerprint depends on it. Sorted by split, then id.
    ConfigError where there is nothing to list, or a benchmark's `layout` lacks something.
    """
    found, split_of = _find(root, kind) if layout == "folder" else _find_benchmark(root, kind, layout)
    for path, _, _ in found:
        if path != path.encode(errors="replace").decode():
            name = path.encode(errors="backslashreplace").decode()
            raise ConfigError(f"dataset.root: the name {name} is not UTF-8", next="rename that file")
    known = _remembered(cache, root, kind)
    now = time.time()
    fresh = [entry for entry in found if known.get(entry[0], (None,))[0] != entry[1]]

    def read(entry: tuple[str, str, float]) -> tuple[str, tuple[Any, ...]]:
        path, stamp, _ = entry
        data = files.read_or_explain(root, path)
        try:
            height, width = formats.size(data, path) if kind == "images" else (0, 0)
            error = ""
        except formats.DecodeError as failure:
            height, width, error = 0, 0, str(failure)
        return path, (stamp, hashlib.sha256(data).hexdigest(), len(data), height, width, error)

    with ThreadPoolExecutor(8) as pool:
        for done, (path, facts) in enumerate(pool.map(read, fresh), 1):
            known[path] = facts
            progress(done, len(fresh))
    if cache is not None and fresh:
        # A file changed in the last two seconds may change again within its time stamp's grain: not remembered.
        settled = {path: known[path] for path, _, modified in found if modified < now - 2}
        _remember(cache, root, kind, settled)
    items = [Item(*split_of(path), path, *known[path][1:]) for path, _, _ in found]
    return sorted(items, key=lambda item: (item.split, item.id))


def _find(root: str, kind: str) -> tuple[list[tuple[str, str, float]], Callable[[str], tuple[str, str]]]:
    """The files of a plain folder as `files.walk` gives them, and the function from a path to (split, id)."""
    top = image_folder(root) if kind == "images" else "labels"
    suffixes = formats.SUFFIXES if kind == "images" else LABEL_SUFFIXES
    found = [entry for entry in files.walk(root, top) if entry[0].lower().endswith(suffixes)]
    if not found:
        where = f"{redact(root)}/{top}".rstrip("/")
        raise ConfigError(
            f"dataset.root: no image under {where} (looked for {', '.join(suffixes)})",
            next=("name a folder of images: ", Set("dataset.root", "FOLDER")),
        )
    return found, _splitter([path for path, _, _ in found], top)


def _find_benchmark(
    root: str, kind: str, layout: str
) -> tuple[list[tuple[str, str, float]], Callable[[str], tuple[str, str]]]:
    """The same for a benchmark; ConfigError that names what is missing."""
    facts: dict[str, tuple[str, float]] = {}
    found = layouts.survey(LAYOUTS[layout], kind, _tree(root, facts))
    if found.missing:
        what, todo = found.missing[0]
        more = len(found.missing) - 1
        rest = f" ({more} more: stegoflow doctor CONFIG lists all)" if more else ""
        raise ConfigError(f"dataset.root: {layout} in {redact(root)}: {what}{rest}", next=todo)
    names = {path: (split, id) for split, id, path in found.entries}
    return [(path, *facts[path]) for path in names], names.__getitem__


def shortcomings(root: str, layout: str) -> list[tuple[str, str, str]]:
    """Everything that a benchmark lacks: (`error` or `warning`, what, what to do). Nothing for a plain folder."""
    if layout == "folder":
        return []
    known, tree = LAYOUTS[layout], _tree(root)
    images, labels = (layouts.survey(known, kind, tree) for kind in ("images", "labels"))
    return [
        *(("error", *line) for line in images.missing + labels.missing),
        *(
            ("warning", f"{where}: no label map, so no scores and no probe of it", known.labels_from)
            for where in labels.unlabelled
        ),
        *(("warning", note, known.lists_from) for note in layouts.notes(known, tree)),
    ]


def notes(root: str, layout: str) -> list[str]:
    """What a reader of the scores must know of how a benchmark was listed."""
    return [] if layout == "folder" else layouts.notes(LAYOUTS[layout], _tree(root))


def _tree(root: str, facts: dict[str, tuple[str, float]] | None = None) -> layouts.Tree:
    """A root for `layouts`; what `files.walk` says of each file that was walked past goes to `facts`."""

    def walk(top: str) -> Iterator[str]:
        for path, stamp, modified in files.walk(root, top):
            if facts is not None:
                facts[path] = stamp, modified
            yield path

    def read(path: str) -> bytes | None:
        try:
            return files.read_or_explain(root, path)
        except FileNotFoundError:
            return None

    return layouts.Tree(lambda name: files.has_folder(root, name), walk, read)


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


def _cache_path(root: str, kind: str) -> str:
    where = local_folder(root)
    return f"cache/scan/{digest([str(where or root), kind])}.parquet"


def _remembered(cache: Store | None, root: str, kind: str) -> dict[str, tuple[Any, ...]]:
    if cache is None:
        return {}
    try:
        table = pq.read_table(pa.BufferReader(cache.get(_cache_path(root, kind))))
        return {row["path"]: tuple(row.values())[1:] for row in table.to_pylist()}
    except (OSError, pa.ArrowInvalid):
        return {}


def _remember(cache: Store, root: str, kind: str, known: dict[str, tuple[Any, ...]]) -> None:
    names = ("path", "stamp", "sha256", "size", "height", "width", "error")
    table = pa.Table.from_pylist([dict(zip(names, (path, *facts), strict=True)) for path, facts in known.items()])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    cache.put(_cache_path(root, kind), sink.getvalue().to_pybytes())
