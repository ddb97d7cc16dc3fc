"""Published benchmarks as they lie on disk: which files there should be, which are missing, and what labels mean.

A benchmark is one `Layout`, a table of names; `survey` compares it with what is there. Nothing here reads a disk.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

IGNORE = 255
"""The class of pixels whose stored label belongs to no class."""
SPLITS = ("train", "val")


class Layout(NamedTuple):
    """How a benchmark lies on disk. All paths are below `folder`; `{split}` stands for train or val."""

    folder: str
    """Its folder below ROOT. ROOT may also be that folder itself."""
    images: tuple[str, str]
    """Folder and ending of the images. An id is what stands between the two."""
    labels: tuple[str, str]
    """Folder and ending of the label maps; the id joins an image to its label."""
    lists: dict[str, tuple[str, ...]]
    """For each split the files that may list its ids, one per line; the first is the published one, the others are
    taken where it is missing. Empty: every image of the folder."""
    classes: tuple[str, ...]
    coarse: dict[int, int]
    """Stored label → class id. Every other label is ignored."""
    images_from: str
    """What to do about missing images, as a sentence; so for labels and lists."""
    labels_from: str
    lists_from: str


class Tree(NamedTuple):
    """A root as `survey` sees it. Paths are below the root."""

    has: Callable[[str], bool]
    """Whether there is such a folder."""
    walk: Callable[[str], Iterable[str]]
    """The paths of all files below a folder."""
    read: Callable[[str], bytes | None]
    """A file's bytes; None where there is no such file."""


class Survey(NamedTuple):
    """What `survey` found."""

    entries: list[tuple[str, str, str]]
    """(split, id, path below the root), sorted."""
    missing: list[tuple[str, str]]
    """What is missing or wrong, and what to do about it."""
    unlabelled: list[str]
    """Of label maps: folders that hold none for a whole split."""


def survey(layout: Layout, kind: str, tree: Tree) -> Survey:
    """The images (`kind="images"`) or label maps (`kind="labels"`) of a benchmark, and what is missing of them.

    A split without any label map is a split without labels; where some are missing, that is said.
    """
    base = _base(layout, tree)
    lists = _lists(layout, base, tree)
    entries: list[tuple[str, str, str]] = []
    missing: list[tuple[str, str]] = []
    unlabelled: list[str] = []
    owner: dict[str, str] = {}
    files, source = (layout.images, layout.images_from) if kind == "images" else (layout.labels, layout.labels_from)
    for split in SPLITS:
        top = _folder(files, base, split)
        found = _by_id(files, base, split, tree)
        if not found and kind == "images":
            missing.append((f"{top} {'is missing' if found is None else f'holds no {files[1]} file'}", source))
        elif not found:
            unlabelled.append(top)
        if split in lists:
            where, wanted = lists[split]
        elif layout.lists:
            where, wanted = base + layout.lists[split][0], []
        else:
            where, wanted = _folder(layout.images, base, split), sorted(_by_id(layout.images, base, split, tree) or ())
        if layout.lists and not wanted and kind == "images":
            missing.append((f"{where} {'is empty' if split in lists else 'is missing'}", layout.lists_from))
        if not found:
            continue
        lost = [id for id in wanted if id not in found]
        if lost:
            first = f"{top}/{lost[0]}{files[1]}"
            missing.append((f"{len(lost)} of the {len(wanted)} {kind} of {where} are missing, first {first}", source))
        here = [(split, id, found[id]) for id in wanted if id in found]
        both = [id for _, id, path in here if owner.setdefault(path, split) != split]
        if both:
            missing.append((f"{len(both)} ids are in train and in val, first {both[0]}", layout.lists_from))
        entries += here
    return Survey(sorted(entries), list(dict.fromkeys(missing)), list(dict.fromkeys(unlabelled)))


def labelled(layout: Layout, tree: Tree) -> bool:
    """Whether there is a label map of any split."""
    base = _base(layout, tree)
    folders = [_folder(layout.labels, base, split) for split in SPLITS]
    return any(path.endswith(layout.labels[1]) for top in folders if tree.has(top) for path in tree.walk(top))


def notes(layout: Layout, tree: Tree) -> list[str]:
    """What a reader of the scores must know: lists that are not the published ones. Reads the lists alone."""
    base = _base(layout, tree)
    found = []
    for split, (source, ids) in _lists(layout, base, tree).items():
        first = base + layout.lists[split][0]
        if source != first:
            found.append(f"{first} is missing: {split} is the {len(ids)} images of {source}, not the published set")
    return found


def to_classes(label: np.ndarray, coarse: Iterable[tuple[int, int]]) -> np.ndarray:
    """Class ids (H, W) int32 of stored labels (H, W) ints, by pairs of stored label and class; others: `IGNORE`."""
    pairs = np.asarray(list(coarse))
    table = np.full(pairs[:, 0].max() + 1, IGNORE, np.int32)
    table[pairs[:, 0]] = pairs[:, 1]
    known = (label >= 0) & (label < len(table))
    return np.where(known, table[np.where(known, label, 0)], IGNORE).astype(np.int32)


def _base(layout: Layout, tree: Tree) -> str:
    """What stands before every path: the benchmark's folder, or nothing where the root is that folder itself."""
    inside = not tree.has(layout.folder) and tree.has(layout.images[0].partition("/")[0])
    return "" if inside else f"{layout.folder}/"


def _folder(files: tuple[str, str], base: str, split: str) -> str:
    return base + files[0].format(split=split)


def _by_id(files: tuple[str, str], base: str, split: str, tree: Tree) -> dict[str, str] | None:
    """{id: path} of the files of one split; None where there is no such folder."""
    top = _folder(files, base, split)
    if not tree.has(top):
        return None
    return {path[len(top) + 1 : -len(files[1])]: path for path in tree.walk(top) if path.endswith(files[1])}


def _lists(layout: Layout, base: str, tree: Tree) -> dict[str, tuple[str, list[str]]]:
    """{split: (the list that is there, its ids, sorted)}; a split none of whose lists is there is left out."""
    found = {}
    for split, names in layout.lists.items():
        for name in names:
            data = tree.read(base + name)
            if data is not None:
                ids = {line.strip() for line in data.decode(errors="replace").splitlines()} - {""}
                found[split] = base + name, sorted(ids)
                break
    return found
