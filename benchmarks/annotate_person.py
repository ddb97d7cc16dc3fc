"""A simulated person, who sees what the page shows of training images and answers from their labels.

Names a group by the majority of the patches shown of it, splits groups that look mixed along the tree, and clicks the
largest visible error of a few images. Nothing of the val split is seen.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from pipeline.artifacts.annotation import naming
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.clusters import Clusters
from pipeline.numerics.classify import fit
from pipeline.numerics.proposals import doubt, propose
from pipeline.numerics.tree import members, shares

SHOWN = 16
"""Patches that the person looks at before naming a group."""
IMAGES = 5
"""Images on the screen when the person looks for an error."""
NAMED = 24
"""Names at most before the person begins to click."""
MIXED = 0.7
"""A group is mixed where fewer of the patches shown are of one class."""


@dataclass
class Corpus:
    """What the person sees: training images of one run."""

    clusters: Clusters
    classes: int
    codes: np.ndarray
    """(image, row, column, D) float16, unit descriptors of patches."""
    truth: np.ndarray
    """(image, row, column) int64, the label in the middle of each patch; −1 where it has none."""
    nearest: np.ndarray = field(init=False)
    """(image, row, column) int64: the nearest prototype."""

    def __post_init__(self) -> None:
        vectors = self.clusters.vectors.T
        self.nearest = np.stack([(codes.astype(np.float32) @ vectors).argmax(-1) for codes in self.codes])


class Person:
    """Counts interactions: a name, a split and a click are one each."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self.corpus, self.generator, self.seed = corpus, np.random.default_rng(seed), seed
        self.groups: dict[int, int] = {}
        """Node → class."""
        self.points: list[tuple[int, int, int]] = []
        """(image, row, column)."""
        self.wanted: list[int] = []
        self.spent = self.named = 0
        self.seen = np.zeros(len(corpus.codes))
        every = np.arange(corpus.nearest.size)
        self.sample = self.generator.choice(every, min(12_000, len(every)), replace=False)

    # Naming ----------------------------------------------------------------------------------------------------------

    def look(self, node: int) -> tuple[int, float]:
        """The class of most patches shown of a node, −1 where none has a label, and their share."""
        inside = np.isin(self.corpus.nearest, members(self.corpus.clusters.tree, node)) & (self.corpus.truth >= 0)
        found = self.corpus.truth[inside]
        if not len(found):
            return -1, 1.0
        counts = np.bincount(self.generator.choice(found, min(SHOWN, len(found)), replace=False))
        return int(counts.argmax()), float(counts.max() / counts.sum())

    def name(self, limit: int) -> None:
        """Name the groups of a cut, then split mixed ones, the largest first, until `limit` interactions are spent."""
        tree, self.named = self.corpus.clusters.tree, limit
        first = min(len(tree.sizes), max(2, round(0.7 * limit)))
        share = shares(tree)
        known: dict[int, tuple[int, float]] = {}
        """Node → its class as named, from above too, and the purity that it seems to have."""
        for node in self.corpus.clusters.cut(first).nodes.tolist()[:limit]:
            known[node] = self.look(node)
            self.groups[node] = known[node][0]
            self.spent += 1
        while self.spent < limit:
            mixed = {node: share[node] * (1 - purity) for node, (_, purity) in known.items() if purity < MIXED}
            mixed = {node: loss for node, loss in mixed.items() if node >= len(tree.sizes)}
            if not mixed:
                break
            node = max(mixed, key=lambda node: mixed[node])
            self.spent += 1
            before, _ = known.pop(node)
            for child in tree.merges[node - len(tree.sizes)].tolist():
                said, purity = self.look(child)
                if said != before and self.spent < limit:
                    self.groups[child] = said
                    self.spent += 1
                known[child] = self.groups.get(child, before), purity

    # Clicking --------------------------------------------------------------------------------------------------------

    def classifier(self) -> Classes:
        """What the stage `classes` makes of what was said."""
        clusters, groups = self.corpus.clusters, {node: said for node, said in self.groups.items() if said >= 0}
        node = naming(clusters.tree, groups)[: len(clusters.vectors)]
        points = np.asarray([self.corpus.codes[at] for at in self.points], np.float32)
        vectors, member = fit(
            clusters.vectors,
            np.asarray([groups.get(at, -1) for at in node.tolist()]),
            np.where(node < 0, np.arange(len(node)), node),
            points.reshape(-1, clusters.vectors.shape[1]),
            np.asarray(self.wanted, np.int64),
        )
        names = [str(number) for number in range(self.corpus.classes)]
        return Classes(vectors, member, names, names)

    def images(self, found: Classes, where_next: bool) -> np.ndarray:
        """The images that the person looks at: any, or those that the page proposes."""
        count = len(self.corpus.codes)
        if not where_next or not len(found.vectors):
            return self.generator.choice(count, min(IMAGES, count), replace=False)
        flat = self.corpus.codes.reshape(-1, self.corpus.codes.shape[-1])[self.sample].astype(np.float32)
        cell, image = self.corpus.nearest.ravel()[self.sample], self.sample // self.corpus.nearest[0].size
        clicked = [self.corpus.nearest[at] for at in self.points]
        points = np.bincount(np.asarray(clicked, np.int64), minlength=len(self.corpus.clusters.vectors))
        chosen = propose(doubt(found.values(flat)), image, cell, self.seen, points, IMAGES, self.seed + self.spent)
        self.seen[chosen] += 0.5
        return chosen

    def click(self, where_next: bool) -> None:
        """Look at some images, and click the middle of the largest error in one of them."""
        found, best = self.classifier(), (0, (0, 0, 0))
        for image in self.images(found, where_next).tolist():
            truth = self.corpus.truth[image]
            values = found.values(self.corpus.codes[image].astype(np.float32))
            wrong = ~np.isfinite(values).any(-1) | (values.argmax(-1) != truth)
            for at in self.points:
                if at[0] == image:
                    wrong[at[1:]] = False
            for said in np.unique(truth[wrong & (truth >= 0)]).tolist():
                size, place = largest(wrong & (truth == said))
                best = max(best, (size, (image, *place)))
        self.spent += 1
        if best[0]:
            self.points.append(best[1])
            self.wanted.append(int(self.corpus.truth[best[1]]))
            self.seen[best[1][0]] += 0.5


def largest(mask: np.ndarray) -> tuple[int, tuple[int, int]]:
    """The size of the largest region of a mask (h, w), and the place in it that is farthest from its border."""
    regions, _ = ndimage.label(mask)
    sizes = np.bincount(regions.ravel())[1:]
    inside = np.pad(regions == sizes.argmax() + 1, 1)
    row, column = np.unravel_index(ndimage.distance_transform_edt(inside)[1:-1, 1:-1].argmax(), mask.shape)
    return int(sizes.max()), (int(row), int(column))


def curve(corpus: Corpus, mode: str, seed: int, counts: tuple[int, ...], score: Any) -> dict[int, float]:
    """What `score` says of the classifier after each number of interactions. `mode` is one of `MODES`."""
    found: dict[int, float] = {}
    if mode == "names":
        for count in counts:
            person = Person(corpus, seed)
            person.name(count)
            found[count] = score(person.classifier())
        return found
    person = Person(corpus, seed)
    for count in counts:
        names = 0 if mode == "clicks" else min(NAMED, count)
        if names != person.named:  # another plan: begin again
            person = Person(corpus, seed)
            person.name(names)
        while person.spent < count:
            person.click(where_next=mode == "next")
        found[count] = score(person.classifier())
    return found


MODES = {
    "names": "names alone",
    "clicks": "clicks alone",
    "both": "both",
    "next": "both, and where next",
}
