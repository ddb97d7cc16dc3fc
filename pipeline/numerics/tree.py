"""The tree of prototypes: in which order they become one, and what a cut of it says.

Leaves are the prototypes, 0 … P − 1; the i-th merge makes node P + i of two earlier nodes (as in SciPy's `linkage`). A
node's number never changes. A cut into n groups is the forest after the first P − n merges.
"""

from typing import NamedTuple

import numpy as np


class Tree(NamedTuple):
    """Merges of P prototypes."""

    merges: np.ndarray
    """(P − 1, 2) int64: the two nodes that become one."""
    heights: np.ndarray
    """(P − 1,) float64, rising to 1: the share of the variance between prototypes that is lost by then."""
    sizes: np.ndarray
    """(P,) int64: how many tokens of the sample are nearest to each prototype."""


class Cut(NamedTuple):
    """Groups of prototypes. A group's value in a label map is its position here."""

    nodes: np.ndarray
    """(n,) int64: nodes of the tree, the one with most tokens first, of equals the lower number."""
    group: np.ndarray
    """(P,) int64: the position in `nodes` of each prototype's group."""

    def best(self, values: np.ndarray) -> np.ndarray:
        """The largest value of each group's prototypes: (…, P) to (…, n)."""
        order = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[order], np.arange(len(self.nodes)))
        return np.maximum.reduceat(values[..., order], starts, axis=-1)


def ward(means: np.ndarray, sizes: np.ndarray, groups: np.ndarray | None = None) -> Tree:
    """The tree in which the two nodes merge next that lose the least variance (Ward 1963; update of the costs after
    Lance and Williams 1967). With `groups`, nodes of one group merge first, so that a cut into that many groups is
    these.

    means: (P, D), of the tokens of each prototype; sizes: (P,) ints, how many these are; groups: (P,) ints.
    """
    count = len(means)
    member = np.zeros(count, np.int64) if groups is None else groups.copy()
    weight, node = sizes.clip(1).astype(np.float64), np.arange(count)
    points = means.astype(np.float64)
    square = np.square(points).sum(1)
    distance = (square[:, None] + square - 2 * points @ points.T).clip(0)
    cost = weight[:, None] * weight / (weight[:, None] + weight) * distance
    np.fill_diagonal(cost, np.inf)
    merges, losses = np.empty((count - 1, 2), np.int64), np.empty(count - 1)
    for step in range(count - 1):
        allowed = np.where(member[:, None] == member, cost, np.inf)
        if not np.isfinite(allowed).any():  # every group is one node
            member[:] = 0
            allowed = cost
        a, b = sorted(np.unravel_index(allowed.argmin(), cost.shape), key=lambda at: node[at])
        merges[step], losses[step] = (node[a], node[b]), cost[a, b]
        total = weight + weight[a] + weight[b]
        row = ((weight + weight[a]) * cost[a] + (weight + weight[b]) * cost[b] - weight * cost[a, b]) / total
        row[[a, b]] = np.inf
        cost[a], cost[:, a] = row, row
        cost[b], cost[:, b] = np.inf, np.inf
        weight[a] += weight[b]
        node[a] = count + step
    return Tree(merges, np.cumsum(losses) / (losses.sum() or 1), sizes.astype(np.int64))


def parents(tree: Tree) -> np.ndarray:
    """(2P − 1,) int64: the node that each node becomes part of; of the last −1."""
    count = len(tree.sizes)
    found = np.full(2 * count - 1, -1)
    found[tree.merges] = count + np.arange(count - 1)[:, None]
    return found


def shares(tree: Tree) -> np.ndarray:
    """(2P − 1,) float64: the share of the sample's tokens in each node."""
    total = np.concatenate([tree.sizes, np.zeros(len(tree.merges), np.int64)])
    for step, pair in enumerate(tree.merges):
        total[len(tree.sizes) + step] = total[pair].sum()
    return total / max(1, total[-1])


def members(tree: Tree, node: int) -> np.ndarray:
    """The prototypes below a node, ascending."""
    count = len(tree.sizes)
    found, waiting = [], [node]
    while waiting:
        at = waiting.pop()
        if at < count:
            found.append(at)
        else:
            waiting += tree.merges[at - count].tolist()
    return np.sort(found)


def cut(tree: Tree, n: int) -> Cut:
    """The tree cut into n groups. ValueError where it cannot have so many."""
    count = len(tree.sizes)
    if not 1 <= n <= count:
        raise ValueError(f"a tree of {count} prototypes cannot be cut into {n} groups")
    made = np.arange(2 * count - n)  # leaves, and the nodes of the first P − n merges
    nodes = np.setdiff1d(made, tree.merges[: count - n])
    nodes = nodes[np.argsort(-shares(tree)[nodes], kind="stable")]
    group = np.empty(count, np.int64)
    for position, node in enumerate(nodes.tolist()):
        group[members(tree, node)] = position
    return Cut(nodes, group)
