"""clusters: prototypes in code space, the tree in which they merge, and its cut into K groups. No label is read.

K clusters are the head's own where it has them, else those of cosine k-means on its codes. Prototypes, where there are
to be more than K, are the centroids of another k-means; each belongs to the cluster that it is nearest to, and clusters
may then be regrouped by what the images show. The tree (Ward 1963) merges the prototypes of a group first, so that its
cut at K is the groups, and finer and coarser cuts need nothing more.

Artifact: `clusters.safetensors` with `prototypes` (P, D or D + E) float32, unit vectors; `merges` (P − 1, 2) int64,
`heights` (P − 1,) float64 and `sizes` (P,) int64 of the tree (`pipeline.numerics.tree`). The manifest's `k` is K, its
`found_by` is `head`, `kmeans` or `regrouped`; of the last `moves` says what each move gained.
Source: STEGO, section 4.3, with k-means in place of its online cluster probe.
"""

import logging
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.artifacts.clusters import Clusters, fewer, find_tree, write_clusters
from pipeline.artifacts.features import Tokens, training_views
from pipeline.artifacts.head import open_head
from pipeline.artifacts.sampling import fit, sample
from pipeline.artifacts.suggestion import chosen_k
from pipeline.artifacts.view_reader import ViewReader, reading_of
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import Params, suggested
from pipeline.numerics import regroup
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import nearest, normalise, prototypes
from pipeline.numerics.tree import cut

log = logging.getLogger("stegoflow")


class ClustersParams(Params):
    k: int | None = suggested("suggestion", ge=1, le=65535)
    """Number of clusters K: how many categories to look for; none: as many as the stage `suggestion` finds in the
    tokens. Never taken from the labels."""
    prototypes: int | None = Field(None, ge=1, le=512)
    """Number of prototypes P, the finest cut that there is; none: where clusters are regrouped 256, or 4 K where
    that is more, 512 at most and one for four sampled tokens; otherwise K."""
    method: Literal["auto", "kmeans"] = "auto"
    """`kmeans`: cosine k-means on the codes. `auto`: the head's own clusters where it has them; for `stegoflow` those
    of k-means on codes and their detail, after which two clusters may become one and a third one two, where that fits
    the colours and borders in the images better; otherwise `kmeans`."""
    restarts: int = Field(10, ge=1)
    """k-means starts from a Ward tree, and this often from random centroids, on a sample; the start with the best
    objective is finished on all tokens."""
    iterations: int = Field(30, ge=1)
    tokens: int = Field(500_000, ge=1)
    """k-means reads at most this many training tokens, the same number of every view."""
    seed: int = Field(0, ge=0, lt=2**32)

    def packages(self) -> dict[str, str]:
        return {"faiss": "k-means"}


SAMPLE = 30_000
"""Codes that prototypes, and clusters that are regrouped, are fitted to, at most."""
PICTURES = 128
"""Training views whose images decide about a regrouping."""
PIECES = 80
"""Nodes of the tree that are regrouped; 4 K where that is more."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ClustersParams = job.params
    k = chosen_k(params.k, job.inputs.get("suggestion"))
    head = open_head(job.inputs["head"], job.execution.device)
    regrouped = params.method == "auto" and head.method.regrouped

    def encode(tokens: np.ndarray) -> Codes:
        codes = head(tokens).unit()
        return Codes(codes.joint() if regrouped else codes.directions())

    codes = sample(job.inputs["features"], params.tokens, params.seed, work, encode).flat().compared
    few = some(codes, SAMPLE, params.seed)
    facts: dict[str, Any] = {"items": len(codes), "found_by": "kmeans"}
    own = head.prototypes() if params.method == "auto" else None
    if own is None:
        centroids, facts["objectives"] = fit(
            few if regrouped else codes, k, params.restarts, params.iterations, params.seed
        )
    elif len(own) == k:
        centroids, facts["found_by"] = normalise(own), "head"
    else:
        raise StageError(f"clusters.k: the head has {len(own)}, not {k}", next=Set("clusters.method", "kmeans"))
    count = params.prototypes or (max(k, min(512, max(256, 4 * k), len(codes) // 4)) if regrouped else k)
    if count < k:
        raise StageError(
            f"clusters.prototypes: {count} are fewer than {k} clusters", next=Set("clusters.prototypes", k)
        )
    if count == k or len(codes) < count:
        found = Clusters(centroids, find_tree(centroids, codes), k)
    else:
        vectors = prototypes(few, count, params.iterations, params.seed)
        groups = regroup.filled(nearest(vectors, centroids)[0], k)
        if regrouped:
            piece = cut(find_tree(vectors, few), min(count, max(PIECES, 4 * k))).group
            looks = evidence(job, encode, vectors, piece, work)
            better, facts["moves"] = regroup.improve(looks, majority(groups, piece), k)
            groups, facts["found_by"] = better[piece], "regrouped"
        found = Clusters(vectors, find_tree(vectors, codes, groups), k)
    facts |= write_clusters(job.out, found)
    if trouble := fewer(facts):
        log.warning("clusters: %s", trouble)
    return facts


def some(vectors: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of vectors (n, D), drawn at random, in their order."""
    if len(vectors) <= most:
        return vectors
    return vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), most, replace=False))]


def majority(groups: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """The group that most prototypes of each piece belong to, (piece,), from the group and the piece of each."""
    votes = np.zeros((piece.max() + 1, groups.max() + 1), np.int64)
    np.add.at(votes, (piece, groups), 1)
    return votes.argmax(1)


def evidence(
    job: Job, encode: Callable[[np.ndarray], Codes], vectors: np.ndarray, piece: np.ndarray, work: Work
) -> regroup.Evidence:
    """What pieces, each of some prototypes, look like in some training views, from their images."""
    tokens = Tokens(job.inputs["features"])
    table = job.inputs["features"].read_table("views.parquet")
    rows = training_views(table)
    if len(rows) > PICTURES:
        rows = np.sort(np.random.default_rng([job.params.seed, 1]).choice(rows, PICTURES, replace=False))
    member, directions, colours = [], [], []
    images = ViewReader(job.roots["images"].location, reading_of(job.inputs["features"]))
    for number, view in enumerate(table.take(rows).to_pylist()):
        work.tick(number, len(rows), "images")
        codes = encode(tokens.read(rows[number : number + 1])).compared[0]
        if np.isfinite(codes[0, 0, 0]):  # else the image could not be decoded
            label = nearest(codes.reshape(-1, codes.shape[-1]), vectors)[0]
            member.append(piece[label].reshape(codes.shape[:2]))
            directions.append(codes)
            colours.append(images.read(view, codes.shape[:2]))
    work.tick(len(rows), len(rows), "images")
    count = int(piece.max()) + 1
    return regroup.evidence(np.stack(member), np.stack(directions), np.stack(colours).astype(np.float32), count)


STAGE = Stage(
    "clusters",
    version=6,
    encoding=2,
    inputs=("features", "head"),
    roots=("images",),
    params=ClustersParams,
    compute=compute,
)
