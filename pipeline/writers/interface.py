"""What a writer is, and what it is given: a legend, the facts of an image, a label map."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pipeline.images.source import Georeference, PixelSize
from pipeline.numerics.palette import palette

if TYPE_CHECKING:
    from pipeline.writers.folder import Folder

STRIP = 2**22
"""Pixels of a label map that are held at a time."""


class LabelMap(Protocol):
    """Ids (height, width), uint8 or uint16. An array is one; so is what reads a window when it is sliced."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, window: tuple[slice, slice], /) -> np.ndarray: ...


@dataclass(frozen=True)
class Legend:
    """What the ids of label maps mean."""

    names: list[str]
    """Of the classes (groups): id i means names[i]."""
    nothing: int
    """The id of pixels that have none: 255, or 65535 beyond 255 classes."""
    colours: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    """(K, 3) uint8; of none given, `class_colours`."""
    nodes: list[dict[str, Any]] | None = None
    """Where classes are nodes of the tree: the `node` of each, and its `parent`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Which run, which artifact: what `classes.json` says of where these classes are from."""

    def __post_init__(self) -> None:
        if not len(self.colours):
            object.__setattr__(self, "colours", class_colours(len(self.names)))

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """uint8 for up to 255 classes, else uint16."""
        return np.uint8 if self.nothing <= 255 else np.uint16

    def css(self, number: int) -> str:
        """`#d55e00`"""
        return "#" + bytes(self.colours[number]).hex()

    @property
    def distinct(self) -> list[str]:
        """The names, no two the same: for formats in which a name is a key."""
        taken: dict[str, None] = {}
        for name in self.names:
            taken[next(other for other in _numbered(name) if other not in taken)] = None
        return list(taken)

    def from_one(self, ids: np.ndarray) -> np.ndarray:
        """Ids as they are where 0 means nothing: id + 1."""
        return np.where(ids == self.nothing, 0, ids + 1).astype(self.dtype)


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name} ({number})"
        number += 1


def class_colours(k: int) -> np.ndarray:
    """(k, 3) uint8: `palette`, which repeats after 2048 colours."""
    return np.resize(palette(min(k, 2048)), (k, 3))


@dataclass(frozen=True)
class ImageFacts:
    """The image that a label map is of."""

    split: str
    id: str
    """Its path below the split."""
    path: str
    """Its path below the root."""
    name: str
    """Where its files go below the output folder, without a suffix; no two images have the same."""
    file_name: str = ""
    """Its path below its split; where several splits are exported, below the folder of these."""
    pixel_size: PixelSize | None = None
    georeference: Georeference | None = None
    levels: tuple[tuple[int, int], ...] = ()
    """(height, width) of each level that the image is stored in, finest first."""
    scores: Callable[[], Iterator[np.ndarray]] | None = None
    """Where scores were asked for: per class, a map (height, width) uint8 of its probability × 255."""


class Done(NamedTuple):
    """What is known of an image that has been written."""

    image: ImageFacts
    height: int
    width: int
    pixels: dict[int, int]
    """How many pixels each id has that occurs; those without a class are left out."""
    made: Any
    """What the writer returned."""


class Writer(NamedTuple):
    """How one format is written: image by image, then what holds all of them."""

    one: "Callable[[Folder, Legend, ImageFacts, LabelMap], Any]"
    """Writes the files of an image. Returns what `finish` needs of it, as JSON."""
    finish: "Callable[[Folder, Legend, Iterable[Done]], None] | None" = None
    """Writes what is one file for all images. `Done` may be gone through several times, one at a time in memory."""
    suffix: str = ""
    """The longest ending that it appends to an image's name."""
    first: int = 0
    """The value of class 0 in its files: 1 where 0 must mean nothing."""


def strips(ids: LabelMap, rows: int = 0) -> Iterator[tuple[slice, np.ndarray]]:
    """A label map from top to bottom, so many rows at a time, by default about `STRIP` pixels: rows, and the ids in
    them."""
    height, width = ids.shape
    rows = rows or max(1, STRIP // max(1, width))
    for top in range(0, height, rows):
        at = slice(top, min(top + rows, height))
        yield at, ids[at, slice(0, width)]


def whole(ids: LabelMap) -> np.ndarray:
    """All of a label map."""
    height, width = ids.shape
    return np.ascontiguousarray(ids[slice(0, height), slice(0, width)])


class Mapped:
    """A label map whose ids are looked up in a table when they are read."""

    def __init__(self, ids: LabelMap, table: np.ndarray) -> None:
        self.ids, self.table, self.shape, self.dtype = ids, table, ids.shape, table.dtype

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        return np.asarray(self.table[self.ids[window]])
