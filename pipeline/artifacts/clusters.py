"""Clusters: prototypes in code space, the tree in which they merge, and its cut into K groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError, Set
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import nearest, normalise
from pipeline.numerics.tree import Cut, Tree, cut, ward

FILE = "clusters.safetensors"
MAX_COSINE = 0.95
"""Groups of a larger cosine are nearly one."""


@dataclass(frozen=True)
class Clusters:
    """What `clusters` and `baseline` have found."""

    vectors: np.ndarray
    """(P, D) or (P, D + E) float32: the prototypes, unit vectors of codes without or with their detail."""
    tree: Tree
    k: int
    """Groups of the default cut."""

    def cut(self, n: int | None = None) -> Cut:
        """The tree cut into n groups, K by default. ConfigError where there are fewer prototypes."""
        count = len(self.vectors)
        if n is not None and not 1 <= n <= count:
            raise ConfigError(
                f"a tree of {count} prototypes has cuts into 1 to {count} groups, not {n}",
                next=("fewer, or run the config again with ", Set("clusters.prototypes", max(count, n))),
            )
        return cut(self.tree, n or self.k)

    def seen(self, codes: Codes) -> np.ndarray:
        """The part of codes that prototypes are compared with."""
        joint = self.vectors.shape[1] > codes.compared.shape[-1]
        return codes.joint() if joint else codes.compared

    def cosines(self, codes: Codes, n: int | None = None) -> np.ndarray:
        """(…, n) float32: of codes (…, ·) to each group, the largest cosine to one of its prototypes."""
        return self.cut(n).best(normalise(self.seen(codes)) @ self.vectors.T)


def find_tree(vectors: np.ndarray, codes: np.ndarray, groups: np.ndarray | None = None) -> Tree:
    """The tree of prototypes (P, D) by the unit codes (n, D) that are nearest to each; with `groups` (P,) as its cut
    into that many."""
    label = nearest(codes, vectors)[0]
    sizes = np.bincount(label, minlength=len(vectors))
    means = np.stack([codes[label == p].mean(0) if size else vectors[p] for p, size in enumerate(sizes.tolist())])
    return ward(means, sizes, groups)


def write_clusters(out: Artifact, found: Clusters, **more: np.ndarray) -> dict[str, Any]:
    """Write `FILE`, with more tensors if need be; facts for the manifest."""
    out.write_tensors(FILE, {"prototypes": found.vectors, **found.tree._asdict(), **more})
    return {"k": found.k, "prototypes": len(found.vectors), **look(found)}


def read_clusters(artifact: Artifact) -> Clusters:
    """What `write_clusters` wrote."""
    found = artifact.held(FILE, Artifact.read_tensors)
    return Clusters(found["prototypes"], Tree(*(found[name] for name in Tree._fields)), artifact.manifest["k"])


def look(found: Clusters) -> dict[str, Any]:
    """What shows that there are fewer groups than asked for: `closest`, the largest cosine of the directions of two
    groups (None of a single one), and `empty`, the number of groups that no token of the sample is in."""
    cut = found.cut()
    weight = found.tree.sizes.clip(1) * (cut.group == np.arange(found.k)[:, None])
    directions = normalise(weight @ found.vectors)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1)
    closest = round(float(cosines.max()), 4) if found.k > 1 else None
    return {"closest": closest, "empty": int(((weight > 0) @ found.tree.sizes == 0).sum())}


def fewer(facts: dict[str, Any]) -> str | None:
    """In words, and what to do, where the facts of a manifest say that there are fewer groups than K."""
    k = facts["k"]
    if facts["empty"]:
        return f"{facts['empty']} of {k} clusters are empty; try clusters.k={k - facts['empty']}"
    if (facts["closest"] or 0) > MAX_COSINE:
        return f"two of {k} clusters are nearly one (cosine {facts['closest']:.2f}); try clusters.k={k - 1}"
    return None
