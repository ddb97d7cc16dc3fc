"""The files of a listing in their order: by split, then by id."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.core.errors import ConfigError, Set
from pipeline.core.store import MARK, redact
from pipeline.datasets.benchmarks import listing as benchmark
from pipeline.datasets.remembered import File
from pipeline.images import files, formats, walking
from pipeline.images.gathering import gather

SOLE_SPLIT = "all"
"""The split's name where a folder has no split sub-folders."""
TOGETHER = (".mrxs", ".dcm", ".vrt")
"""Endings of files that are one image with others."""


class Listed(NamedTuple):
    """Files to be listed, and what is known of them beforehand."""

    files: Iterator[File]
    split_of: Callable[[str], tuple[str, str]]
    """From a path below the root, (split, id)."""
    total: int
    notes: list[str]
    """What was left out, and in which way a benchmark is not the published one."""


def image_folder(root: str) -> str:
    """The part of the root that holds images: `images` where there is such a folder, else all of it."""
    return "images" if walking.has_folder(root, "images") else ""


def find(root: str, kind: str, layout: str) -> Listed:
    """The images or label maps under a root. ConfigError where there are none, or a benchmark lacks something."""
    if layout != "folder":
        found, split_of = benchmark.find(root, kind, layout)
        notes = benchmark.notes(root, layout) if kind == "images" else []
        return Listed(_sorted(found, split_of), split_of, len(found), notes)
    top = image_folder(root) if kind == "images" else "labels"
    suffixes = formats.SUFFIXES if kind == "images" else formats.LABEL_SUFFIXES
    look = _look(root, top, suffixes)
    if look.whole:
        return _whole(root, kind, top, suffixes)
    notes = look.notes if kind == "images" else []
    if not look.total:
        raise _nothing(root, top, suffixes, notes)
    split_of = _splitter(top, "train" in look.splits)
    tops = [f"{top}/{split}".strip("/") for split in sorted(look.splits)] if "train" in look.splits else [top]
    each = (entry for below in tops for entry in walking.walk(root, below) if _is(entry, suffixes))
    return Listed((File(*split_of(entry.path), entry) for entry in each), split_of, look.total, notes)


class _Look(NamedTuple):
    """What a first walk finds."""

    total: int
    """Files that are listed."""
    splits: set[str]
    """The folders directly below the top that hold one."""
    whole: bool
    """Whether the files have to be seen together: images of several files, a store among them, files beside the
    splits, a bucket with an order of its own."""
    notes: list[str]


def _look(root: str, top: str, suffixes: tuple[str, ...]) -> _Look:
    start = len(top) + 1 if top else 0
    splits, count, whole = set(), 0, False

    def paths() -> Iterator[str]:
        nonlocal count, whole
        last = ""
        for entry in walking.walk(root, top):
            path = entry.path
            whole |= path.lower().endswith(TOGETHER) or bool(files.within(path)) or path.endswith(f"/{MARK}")
            whole |= path < last
            last = path
            if _is(entry, suffixes):
                splits.add(path[start:].rpartition("/")[0].partition("/")[0])
                count += 1
            yield path

    notes = formats.left_out(paths())
    return _Look(count, splits, whole or ({"", "train"} <= splits), notes)


def _is(entry: files.Found, suffixes: tuple[str, ...]) -> bool:
    return entry.path.lower().endswith(suffixes)


def _whole(root: str, kind: str, top: str, suffixes: tuple[str, ...]) -> Listed:
    """The files of a folder that have to be seen together: slides, mosaics, series."""
    every = gather(root, walking.walk(root, top))
    found = [entry for entry in every if _is(entry, suffixes)]
    notes = formats.left_out(entry.path for entry in every) if kind == "images" else []
    if not found:
        raise _nothing(root, top, suffixes, notes)
    start = len(top) + 1 if top else 0
    split_of = _splitter(top, any(entry.path[start:].startswith("train/") for entry in found))
    return Listed(_sorted(found, split_of), split_of, len(found), notes)


def _sorted(found: list[files.Found], split_of: Callable[[str], tuple[str, str]]) -> Iterator[File]:
    return iter(sorted(File(*split_of(entry.path), entry) for entry in found))


def _nothing(root: str, top: str, suffixes: tuple[str, ...], notes: list[str]) -> ConfigError:
    where = f"{redact(root)}/{top}".rstrip("/")
    left = f"; {some(notes)}" if notes else ""
    return ConfigError(
        f"dataset.root: no image under {where} (looked for {', '.join(suffixes)}){left}",
        next=("name a folder of images: ", Set("dataset.root", "FOLDER")),
    )


def _splitter(top: str, with_train: bool) -> Callable[[str], tuple[str, str]]:
    start = len(top) + 1 if top else 0

    def split_of(path: str) -> tuple[str, str]:
        split, slash, rest = path[start:].partition("/")
        return (split, rest) if with_train and slash else (SOLE_SPLIT, path[start:])

    return split_of


def some(names: list[str]) -> str:
    """The first three of a list of sentences, and how many more there are."""
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")
