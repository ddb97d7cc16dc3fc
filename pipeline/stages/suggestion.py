"""suggestion: how many categories the images hold, where `clusters.k` does not say. Reads tokens alone, never a label.

The effective number of groups of tokens in their context is 1 / their mean squared cosine over pairs (a participation
ratio), for G orthogonal groups of one size G. Over pairs of different images it is how many groups the images have in
all, and high where every image has its own; over pairs of one image, how many an image has on average. K is their
geometric mean: a small number to begin with, from which the tree of clusters goes on. It does not grow with the number
of images (docs/decisions/011). Beside it a curve, for the reader: how well clusterings of two halves of the images
agree, for every K (Lange et al. 2004; adjusted Rand index, Hubert and Arabie 1985). Its greatest values lie at small K
on every set we saw, so K is not taken from it.

Artifact: `suggestion.json` (`k`; `groups` of the images together and `within` one, not
rounded; `peaks`, [K, stability] where the curve is highest) and
`curve.parquet` (`k` int64; `stability` and `spread`, the mean and the standard deviation over draws).
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.artifacts.features import BLOCK, Tokens, read_center, training_views
from pipeline.backbones.devices import pick_device
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import Params, borrowed
from pipeline.numerics.kmeans import WardTree, group_counts, likely_groups, nearest, normalise


class SuggestionParams(Params):
    views: int = Field(240, ge=1)
    """Training views that are looked at, at most."""
    highest: int = Field(48, ge=2)
    """Largest K on the curve of stability."""
    draws: int = Field(4, ge=1)
    """How often the views are split in halves."""
    seed: int = Field(0, ge=0, lt=2**32)
    center: str = borrowed("head.center")


EACH = 100
"""Tokens per view."""
CONTEXT = 0.1
"""Share of its image's tokens that a token is averaged with, as in the head `stegoflow`."""
COMPONENTS = 64
"""Principal components in which the curve's clusterings are compared."""
TREE = 2000
"""Tokens in a Ward tree, at most."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: SuggestionParams = job.params
    vectors = sample(job, work)
    groups, within = group_counts(vectors)
    k = min(round(likely_groups(vectors)), vectors.shape[0] * vectors.shape[1])
    tried = curve_ks(params.highest, vectors.shape[0] * vectors.shape[1] // 3)
    values, leading = np.empty((params.draws, len(tried))), principal(vectors)
    for draw in range(params.draws):
        work.tick(draw, params.draws, "draws")
        values[draw] = agreements(leading, tried, params.seed + draw)
    work.tick(params.draws, params.draws, "draws")
    rows = [
        {"k": k, "stability": mean, "spread": spread}
        for k, mean, spread in zip(tried, values.mean(0).tolist(), values.std(0).tolist(), strict=True)
    ]
    names = {"k": pa.int64(), "stability": pa.float64(), "spread": pa.float64()}
    job.out.write_table("curve.parquet", pa.Table.from_pylist(rows, schema=pa.schema(names)))
    facts = {"k": k, "groups": round(groups, 2), "within": round(within, 2)}
    found = {**facts, "peaks": peaks(tried, [row["stability"] for row in rows])}
    job.out.write_json("suggestion.json", found)
    return {"items": len(vectors), **found}


def sample(job: Job, work: Work) -> np.ndarray:
    """Tokens of some training views in their context, (view, EACH, channel) float32, unit vectors."""
    import torch

    from pipeline.numerics.context import find_temperature, in_context

    params: SuggestionParams = job.params
    features, device = job.inputs["features"], pick_device(job.execution.device)
    tokens, center = Tokens(features), torch.from_numpy(read_center(features, params.center)).to(device)
    rows = training_views(features)
    generator = np.random.default_rng(params.seed)
    rows = np.sort(generator.choice(rows, min(len(rows), params.views), replace=False))
    each = min(EACH, int(np.prod(tokens.shape[1:3])))
    temperature, found = 0.0, []
    for start in range(0, len(rows), BLOCK):
        work.tick(start, len(rows), "views")
        block = torch.from_numpy(tokens.read(rows[start : start + BLOCK])).to(device).float() - center
        block = block[torch.isfinite(block[:, 0, 0, 0])]
        if not len(block):
            continue
        temperature = temperature or find_temperature(block, CONTEXT)
        for view in in_context(block, temperature).flatten(1, 2).cpu().numpy():
            found.append(view[generator.choice(len(view), each, replace=False)])
    if not found:
        raise StageError("no training image could be decoded: there is nothing to count", next=Set("clusters.k", "K"))
    return np.stack(found)


def curve_ks(highest: int, most: int) -> list[int]:
    """The numbers of clusters on the curve: every one to 8, then a seventh more each time."""
    found = [2]
    while found[-1] < min(highest, most):
        found.append(max(found[-1] + 1, round(found[-1] * 8 / 7)))
    return [k for k in found if k <= min(highest, most)]


def agreements(vectors: np.ndarray, ks: list[int], seed: int) -> list[float]:
    """For every K the adjusted Rand index of two clusterings, each fitted to a third of the views, on the tokens of the
    last third. All numbers of clusters share one Ward tree per third, from whose cut k-means starts.

    vectors: (view, n, channel) float32, unit vectors. With fewer than six views it is thirds of the tokens."""
    from sklearn.metrics import adjusted_rand_score  # takes two seconds to import

    if len(vectors) < 6:
        vectors = vectors.reshape(-1, 1, vectors.shape[-1])
    order = np.random.default_rng(seed).permutation(len(vectors))
    one, other, rest = (vectors[part].reshape(-1, vectors.shape[-1]) for part in np.array_split(order, 3))
    trees = [WardTree(third, TREE, seed) for third in (one, other)]
    return [float(adjusted_rand_score(*(nearest(rest, tree.kmeans(k))[0] for tree in trees))) for k in ks]


def principal(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors (view, n, ≤ COMPONENTS) float32: the leading principal components, which hold what clusters differ
    by, at a fraction of the arithmetic."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    basis = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :COMPONENTS]
    return normalise(vectors @ basis)


def peaks(ks: list[int], values: list[float]) -> list[tuple[int, float]]:
    """The three highest peaks of a curve, (K, value), the highest first."""
    around = [-np.inf, *values, -np.inf]
    found = [
        (value, k) for at, (k, value) in enumerate(zip(ks, values, strict=True)) if around[at] < value > around[at + 2]
    ]
    return [(k, round(value, 3)) for value, k in sorted(found, reverse=True)[:3]]


STAGE = Stage("suggestion", version=3, encoding=1, inputs=("features",), params=SuggestionParams, compute=compute)
