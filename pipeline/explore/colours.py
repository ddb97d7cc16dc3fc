"""Colours of the nodes of a tree: those of a group and of its largest part are the same."""

import numpy as np

from pipeline.artifacts.clusters import Clusters
from pipeline.numerics.palette import palette
from pipeline.numerics.tree import shares


def node_colours(clusters: Clusters) -> list[str]:
    """`#rrggbb` of every node (2P − 1). The groups of the default cut have those of exported masks; a part has the
    colour of what it is part of if it is the larger one, else the next of the palette; what is merged has that of its
    larger part."""
    tree, cut = clusters.tree, clusters.cut()
    count, share = len(tree.sizes), shares(tree)
    colours = ["#" + bytes(colour).hex() for colour in palette(min(2048, count))]
    number = np.full(2 * count - 1, -1)
    number[cut.nodes] = np.arange(len(cut.nodes))
    following = len(cut.nodes)
    for node in range(2 * count - 2, count - 1, -1):  # parents before parts
        if number[node] >= 0:
            larger, smaller = sorted(tree.merges[node - count].tolist(), key=lambda part: -share[part])
            number[larger], number[smaller] = number[node], following
            following += 1
    for node in range(count, 2 * count - 1):
        if number[node] < 0:
            number[node] = number[max(tree.merges[node - count].tolist(), key=lambda part: share[part])]
    return [colours[at % len(colours)] for at in number.tolist()]
