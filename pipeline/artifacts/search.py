"""Reading a search artifact: finding patches like a patch, and patches of prototypes, over a whole corpus."""

import json
import mmap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.numerics.kmeans import normalise

STAGE, VERSION = "search", 2
"""What an index is called in a store, and its version: `gc` keeps those beside the runs that they were made of."""
SHARE = 0.2
"""Of the corpus that is looked through, cell by cell, the nearest cells first."""
FEW = 400_000
"""Patches that are all looked through, whatever their cells."""
TYPES = {"I8": np.int8, "U16": np.uint16, "I32": np.int32, "F16": np.float16, "F32": np.float32}
"""Of safetensors, as far as `search` writes them."""
KEPT = 8
"""Images whose best patches are compared by all components, per image that is wanted."""


class Place(NamedTuple):
    """A position of an image's plane."""

    image: int
    """Its row in the table of images."""
    y: int
    x: int


class Found(NamedTuple):
    """A place, and how like it is: a cosine of tokens or of codes."""

    place: Place
    score: float


class Index:
    """What the parts that are there hold of their images. Parts may be added while it is used, by one thread."""

    def __init__(self, basis: np.ndarray, center: np.ndarray, prototypes: int) -> None:
        self.basis, self.center, self.prototypes = basis, center, prototypes
        self.images: dict[int, dict[str, np.ndarray]] = {}
        self._table: _Table | None = None

    def add(self, first: int, tensors: dict[str, np.ndarray]) -> None:
        """Take in the arrays of images first, first + 1, …, as the stage `search` makes them."""
        start = 0
        for number, shape in enumerate(tensors["shape"]):
            stop = start + int(shape.prod())
            mine = {name: values[start:stop] for name, values in tensors.items() if name != "shape"}
            self.images[first + number] = {**mine, "shape": shape}
            start = stop
        self._table = None

    @property
    def table(self) -> "_Table":
        """All positions of all images, side by side; made when it is first asked for."""
        if self._table is None:
            self._table = _Table(dict(self.images), self.prototypes)
        return self._table

    def find(self, image: int, y: int, x: int, count: int) -> list[Found]:
        """The most similar patches of the corpus, the patch's own image first, at most one of an image."""
        own = self.images[image]
        at = y * int(own["shape"][1]) + x
        query = own["numbers"][at].astype(np.float32) * own["scale"][at]
        return self.table.find(query / np.linalg.norm(query).clip(1e-12), count)


class _Table:
    """Positions of many images side by side. A position's number counts through all images in their order."""

    def __init__(self, images: dict[int, dict[str, np.ndarray]], prototypes: int) -> None:
        self.rows = np.array(sorted(images), np.int64)
        each = [images[row] for row in self.rows.tolist()]
        self.numbers = [one["numbers"] for one in each]  # views of mapped files: never copied whole
        self.widths = np.array([int(one["shape"][1]) for one in each], np.int64)
        lengths = np.array([len(one["scale"]) for one in each], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.image = np.repeat(np.arange(len(each), dtype=np.int32), lengths)
        self.scale, self.nearest, self.second, self.cosine, self.lead = (
            np.concatenate([one[name] for one in each]) if each else np.zeros(0, kind)
            for name, kind in (
                *(("scale", np.float32), ("nearest", np.uint16), ("second", np.uint16)),
                *(("cosine", np.float16), ("lead", np.float16)),
            )
        )
        self.order = np.argsort(self.nearest, kind="stable").astype(np.uint32)
        self.cells = np.searchsorted(self.nearest[self.order], np.arange(prototypes + 1))
        self.coarse = np.concatenate([one["coarse"] for one in each]) if each else np.zeros((0, 0), np.int8)
        self.centroids = self._centroids(prototypes)

    def _centroids(self, prototypes: int) -> np.ndarray:
        """(prototypes, components) float32 unit vectors: the mean of some of the patches of each."""
        found = np.zeros((prototypes, self.coarse.shape[1]), np.float32)
        for cell, (start, stop) in enumerate(zip(self.cells, self.cells[1:], strict=False)):
            some = self.order[start:stop][:: max(1, (stop - start) // 256)]
            found[cell] = self.scale[some].astype(np.float32) @ self.coarse[some].astype(np.float32)
        return normalise(found)

    def place(self, at: int) -> Place:
        """Where the position of a number lies."""
        image = int(self.image[at])
        y, x = divmod(at - int(self.starts[image]), int(self.widths[image]))
        return Place(int(self.rows[image]), y, x)

    def find(self, query: np.ndarray, count: int) -> list[Found]:
        """The places nearest to a unit vector (C,), at most one of an image."""
        some = self._candidates(query)
        scores = _cosines(self.coarse, self.scale, some, query[: self.coarse.shape[1]])
        images = self.image[some]
        best = np.full(len(self.rows), -2, np.float32)
        np.maximum.at(best, images, scores)
        kept = np.argsort(-best, kind="stable")[: count * KEPT]
        found = []
        for image in kept[best[kept] > -2].tolist():
            here = some[images == image]
            here = here[np.argsort(-scores[images == image], kind="stable")[:64]]
            inside = here - self.starts[image]
            exact = (self.numbers[image][inside].astype(np.float32) @ query) * self.scale[here]
            top = int(exact.argmax())
            found.append(Found(self.place(int(here[top])), float(exact[top])))
        return sorted(found, key=lambda one: -one.score)[:count]

    def _candidates(self, query: np.ndarray) -> np.ndarray:
        """Numbers of the positions that are looked through: of the nearest cells."""
        if len(self.image) <= FEW:
            return np.arange(len(self.image))
        sizes = np.diff(self.cells)
        nearest = np.argsort(-(self.centroids @ query[: self.coarse.shape[1]]), kind="stable")
        wanted = max(FEW, SHARE * len(self.image))
        last = int(np.searchsorted(np.cumsum(sizes[nearest]), wanted)) + 1
        return np.concatenate([self.order[self.cells[cell] : self.cells[cell + 1]] for cell in nearest[:last]])

    def counts(self) -> np.ndarray:
        """(P,) int64: the positions that are nearest to each prototype."""
        return np.diff(self.cells)

    def members(self, prototypes: np.ndarray) -> np.ndarray:
        """Numbers of the positions that are nearest to one of these prototypes."""
        each = [self.order[self.cells[p] : self.cells[p + 1]] for p in prototypes.tolist()]
        return np.concatenate(each) if each else np.zeros(0, np.int64)

    def typical(self, prototypes: np.ndarray, count: int) -> list[Found]:
        """Places of these prototypes by cosine of their codes: every prototype in turn, the one with most patches
        first, at most one of an image where there are enough."""
        order = prototypes[np.argsort(self.counts()[prototypes], kind="stable")[::-1]]
        lines = []
        for p in order[:count].tolist():
            here = self.order[self.cells[p] : self.cells[p + 1]]
            if len(here):
                lines.append(here[np.argsort(self.cosine[here], kind="stable")[::-1][: 8 * count]].tolist())
        turns = (line[turn] for turn in range(8 * count) for line in lines if turn < len(line))
        return [Found(self.place(at), float(self.cosine[at])) for at in self._one_each(turns, count)]

    def borderline(self, prototypes: np.ndarray, count: int) -> list[Found]:
        """Places of these prototypes whose next prototype is another one and nearly as near; `score` is the lead."""
        here = self.members(prototypes)
        here = here[~np.isin(self.second[here], prototypes)]
        nearly = here[np.argsort(self.lead[here], kind="stable")[: 32 * count]]
        return [Found(self.place(at), float(self.lead[at])) for at in self._one_each(nearly.tolist(), count)]

    def _one_each(self, positions: Iterable[int], count: int) -> list[int]:
        """The first of these positions, of different images as far as possible."""
        seen: set[int] = set()
        first: list[int] = []
        later: list[int] = []
        for at in positions:
            image = int(self.image[at])
            (later if image in seen else first).append(at)
            seen.add(image)
            if len(first) == count:
                break
        return [*first, *later][:count]

    def beside(self, prototypes: np.ndarray) -> np.ndarray:
        """(P,) int64: how many patches of these prototypes have each other prototype as their next."""
        second = self.second[self.members(prototypes)]
        found = np.bincount(second, minlength=len(self.cells) - 1)
        found[prototypes] = 0
        return found


def _cosines(numbers: np.ndarray, scale: np.ndarray, some: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(n,) float32: of some positions to a vector, in blocks that fit a cache."""
    out = np.empty(len(some), np.float32)
    for start in range(0, len(some), 65_536):
        block = some[start : start + 65_536]
        out[start : start + len(block)] = numbers[block].astype(np.float32) @ query
    return out * scale[some]


def read_part(artifact: Artifact, part: str) -> dict[str, np.ndarray]:
    """The arrays of a part: of a local store mapped from its file, after the digest of the file was checked."""
    name = f"tokens/{part}.safetensors"
    if artifact.store.folder is None:
        return artifact.read_tensors(name)
    artifact.read(name)
    with (artifact.store.folder / artifact.data(artifact.file(name)["path"])).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for key, facts in json.loads(data[8:start]).items():
        first, last = facts["data_offsets"]
        values = np.frombuffer(memoryview(data)[start + first : start + last], TYPES[facts["dtype"]])
        found[key] = values.reshape(facts["shape"])
    return found
