"""Colours of groups, classes and the baseline's clusters: what is compared by eye has one colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from pipeline.numerics.metrics import match
from pipeline.numerics.palette import palette

NONE = -1
"""The tone of a pixel that has no group, cluster or class."""


@dataclass(frozen=True)
class Colouring:
    """A tone is a row of `names` and `colours`; the first K are the groups'."""

    names: list[str]
    """Of a group that is matched to a class the class's."""
    colours: np.ndarray
    """(n, 3) uint8; the groups' are `palette(K)`, as in exported masks, or those that a person gave."""
    groups: np.ndarray
    """(K,) int64: the tone of each group, which is its number."""
    classes: np.ndarray
    """(C,) int64: that of the group that is matched to the class, else one of its own."""
    baseline: np.ndarray
    """(B,) int64: that of its class where it is matched to one; else that of the group it shares most pixels with,
    one to one; else one of its own."""


def colouring(
    k: int,
    classes: list[str],
    matching: list[int],
    baseline_matching: list[int],
    overlap: np.ndarray,
    given: Sequence[tuple[str, str]] = (),
) -> Colouring:
    """The tones of K groups.

    matching, baseline_matching: the class of each group and of each of the baseline's clusters, −1 = none, or empty.
    overlap: (B, K) int64, the pixels that a cluster of the baseline and a group share.
    given: name and `#rrggbb` of each group, where a person said what they are.
    """
    group_of = {c: number for number, c in enumerate(matching[:k]) if 0 <= c < len(classes)}
    names, fresh = [f"group {group}" for group in range(k)], count(k)
    for c, named in group_of.items():
        names[named] = classes[c]
    names[: len(given)] = [name for name, _ in given]
    of_class = [group_of[c] if c in group_of else next(fresh) for c in range(len(classes))]
    names += [name for c, name in enumerate(classes) if c not in group_of]

    tones = np.full(len(overlap), NONE, np.int64)
    for at, c in enumerate(baseline_matching[: len(overlap)]):
        tones[at] = of_class[c] if 0 <= c < len(classes) else NONE
    free = np.flatnonzero(tones == NONE)
    left = np.setdiff1d(np.arange(k), tones)
    shared = overlap[np.ix_(free, left)]
    paired = match(np.concatenate([shared, np.zeros((1, len(left)), np.int64)]))
    for cluster, group in zip(free, paired, strict=True):
        tones[cluster] = left[group] if group >= 0 else next(fresh)
        names += [f"k-means cluster {cluster}"] if group < 0 else []
    colours = palette(len(names))
    for number, (_, color) in enumerate(given):
        colours[number] = list(bytes.fromhex(color[1:]))
    return Colouring(names, colours, np.arange(k), np.array(of_class, np.int64), tones)


def tones(ids: np.ndarray, of: np.ndarray) -> np.ndarray:
    """A map of ids (H, W) as one of tones; ids outside of `of` (n,) have none."""
    known = (ids >= 0) & (ids < len(of))
    return np.append(of, NONE)[np.where(known, ids, len(of)).astype(np.int64)]
