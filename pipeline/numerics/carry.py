"""From names of one tree to names of another one, by the patches that both have seen. Arrays in, arrays out."""

import numpy as np

from pipeline.numerics.tree import Tree

ANY, MIXED = -2, -3
"""Of a node: no patch of it was seen; its prototypes have different classes."""


def carry(tree: Tree, counts: np.ndarray) -> dict[int, int]:
    """{node: class}: every prototype has the class of most of its patches; the fewest nodes that say this.

    counts: (P, k + 1) ints, the patches of each prototype by the class that they had, those of none last. A prototype
    without patches goes with what it merges with.
    """
    nothing = counts.shape[1] - 1
    found = np.where(counts.sum(1) > 0, counts.argmax(1), ANY).tolist()
    for first, second in tree.merges.tolist():
        one, two = found[first], found[second]
        found.append(one if two in (one, ANY) else two if one == ANY else MIXED)
    groups: dict[int, int] = {}
    waiting = [len(found) - 1]
    while waiting:
        node = waiting.pop()
        if found[node] == MIXED:
            waiting += tree.merges[node - len(counts)].tolist()
        elif 0 <= found[node] != nothing:
            groups[node] = found[node]
    return groups
