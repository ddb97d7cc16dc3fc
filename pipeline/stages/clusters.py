"""clusters: prototypes in code space, the tree in which they merge, and its cut into K groups. No label is read.

K clusters are the head's own where it has them, else those of cosine k-means on its codes. Where there are to be more
prototypes than K, each cluster is cut into pieces, which may then be regrouped by what the images show; the tree merges
the pieces of a group first, so that its cut at K is the groups, and finer and coarser cuts need nothing more.

Artifact: `clusters.safetensors` with `prototypes` (P, D or D + E) float32, unit vectors; `merges` (P − 1, 2) int64,
`heights` (P − 1,) float64 and `sizes` (P,) int64 of the tree (`pipeline.numerics.tree`). The manifest's `k` is K, its
`found_by` is `head`, `kmeans` or `regrouped`; of the last `moves` says what each move gained.
Source: STEGO, section 4.3, with k-means in place of its online cluster probe.
"""

import logging
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.artifacts.clusters import Clusters, fewer, find_tree, write_clusters
from pipeline.artifacts.features import Tokens, training_views, view_pieces
from pipeline.artifacts.head import TrainedHead, open_head
from pipeline.artifacts.sampling import fit, sample
from pipeline.artifacts.suggestion import chosen_k
from pipeline.artifacts.view_reader import ViewReader, reading_of
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import Params, suggested
from pipeline.numerics import prototypes, regroup
from pipeline.numerics.kmeans import normalise

log = logging.getLogger("stegoflow")


class ClustersParams(Params):
    k: int | None = suggested("suggestion", ge=1, le=65535)
    """Number of clusters K: how many categories to look for; none: as many as the stage `suggestion` finds in the
    tokens. Never taken from the labels."""
    prototypes: int | None = Field(None, ge=1, le=512)
    """Number of prototypes P, the finest cut that there is; none: where clusters are regrouped 256, or 8 K
    where that is more, but 512 at most and one for four sampled tokens; otherwise K."""
    method: Literal["auto", "kmeans"] = "auto"
    """`kmeans`: cosine k-means on the codes. `auto`: the head's own clusters where it has them; for `stegoflow` those
    of k-means, after which two clusters may become one and a third one two, where that fits the colours and borders in
    the images better; otherwise `kmeans`."""
    restarts: int = Field(10, ge=1)
    """k-means starts from a Ward tree, and this often from random centroids, on a sample; the start with the best
    objective is finished on all tokens."""
    iterations: int = Field(30, ge=1)
    tokens: int = Field(500_000, ge=1)
    """k-means reads at most this many training tokens, the same number of every view."""
    seed: int = Field(0, ge=0, lt=2**32)

    def packages(self) -> dict[str, str]:
        return {"faiss": "k-means"}


PICTURES = 128
"""Training views whose images decide about a regrouping."""
PIECES = (80, 512)
"""Pieces that are regrouped, at least and at most: 8 K in between. Finer ones are stuck more easily: with 256 pieces in
place of 80, blood smears lost 5 points of mIoU, mean of three seeds."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ClustersParams = job.params
    k = chosen_k(params.k, job.inputs.get("suggestion"))
    head = open_head(job.inputs["head"], job.execution.device)
    codes = sample(job.inputs["features"], params.tokens, params.seed, work, lambda tokens: head(tokens).unit()).flat()
    facts: dict[str, Any] = {"items": len(codes.compared), "found_by": "kmeans"}
    own = head.prototypes() if params.method == "auto" else None
    if own is None:
        centroids, facts["objectives"] = fit(codes.directions(), k, params.restarts, params.iterations, params.seed)
    elif len(own) == k:
        centroids, facts["found_by"] = normalise(own), "head"
    else:
        raise StageError(f"clusters.k: the head has {len(own)}, not {k}", next=Set("clusters.method", "kmeans"))
    regrouped = own is None and params.method == "auto" and head.method.regrouped
    count = params.prototypes or (max(k, min(512, max(256, 8 * k), len(codes.compared) // 4)) if regrouped else k)
    if count < k:
        raise StageError(
            f"clusters.prototypes: {count} are fewer than {k} clusters", next=Set("clusters.prototypes", k)
        )
    if count == k or len(codes.compared) < max(count, 2 * k):
        found = Clusters(centroids, find_tree(centroids, codes.directions()), k)
    else:
        few = codes.some(prototypes.SAMPLE, params.seed)
        coarse = min(count, int(np.clip(8 * k, *PIECES))) if regrouped else count
        pieces = prototypes.split(few, centroids, coarse, params.seed)
        groups = np.repeat(np.arange(k), [len(part) for part in pieces])
        if regrouped:
            groups, moves = regroup.improve(evidence(job, head, centroids, pieces, work), groups, k)
            facts |= {"found_by": "regrouped", "moves": moves}
        if coarse < count:
            pieces, parent = prototypes.refine(few, centroids, pieces, count, params.seed)
            groups = groups[parent]
        vectors = prototypes.fit(few.joint(), prototypes.nearest_piece(few, centroids, pieces), groups)
        found = Clusters(vectors, find_tree(vectors, codes.joint(), groups), k)
    facts |= write_clusters(job.out, found)
    if trouble := fewer(facts):
        log.warning("clusters: %s", trouble)
    return facts


def evidence(
    job: Job, head: TrainedHead, centroids: np.ndarray, pieces: list[np.ndarray], work: Work
) -> regroup.Evidence:
    """What the pieces of all clusters look like in some training views, from their images."""
    tokens = Tokens(job.inputs["features"])
    rows = training_views(job.inputs["features"])
    if len(rows) > PICTURES:
        rows = np.sort(np.random.default_rng([job.params.seed, 1]).choice(rows, PICTURES, replace=False))
    member, directions, colours = [], [], []
    images = ViewReader(job.roots["images"].location, reading_of(job.inputs["features"]))
    for number, view in enumerate(view_pieces(job.inputs["features"]).take(rows).to_pylist()):
        work.tick(number, len(rows), "images")
        codes = head(tokens.read(rows[number : number + 1])).unit().each(lambda part: part[0])
        height, width, _ = codes.compared.shape
        if np.isfinite(codes.compared[0, 0, 0]):  # else the image could not be decoded
            member.append(prototypes.nearest_piece(codes.flat(), centroids, pieces).reshape(height, width))
            directions.append(codes.directions())
            colours.append(images.read(view, (height, width)))
    work.tick(len(rows), len(rows), "images")
    count = sum(len(part) for part in pieces)
    return regroup.evidence(np.stack(member), np.stack(directions), np.stack(colours).astype(np.float32), count)


STAGE = Stage(
    "clusters",
    version=7,
    encoding=2,
    inputs=("features", "head"),
    roots=("images",),
    params=ClustersParams,
    compute=compute,
)
