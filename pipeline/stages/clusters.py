"""clusters: K unit vectors in code space, the head's own where it has them, else by cosine k-means on its codes, which
may then be regrouped by what the images show.

Artifact: `clusters.safetensors` with `centroids` (K, D) float32, unit vectors. The manifest's `found_by` is `head`,
`kmeans` or `regrouped`; of the last `moves` says what each move gained. Of a code whose leading channels
alone are compared (`heads/interface.py`), k-means leaves the rest of a centroid 0.
Source: STEGO, section 4.3, with k-means in place of its online cluster probe.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.artifacts.features import PART, Tokens
from pipeline.artifacts.views import training_views
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import StageError
from pipeline.core.params import Params
from pipeline.images import files
from pipeline.images import formats as images
from pipeline.numerics.kmeans import cosine_kmeans, nearest, normalise
from pipeline.numerics.regroup import regroup
from pipeline.numerics.views import Window
from pipeline.stages.head import TrainedHead, open_head
from pipeline.stages.suggestion import chosen_k

log = logging.getLogger("stegoflow")


class ClustersParams(Params):
    k: int | None = Field(None, ge=1, le=65535)
    """Number of clusters K: how many categories to look for; none: as many as the stage `suggestion` finds in the
    tokens. Never taken from the labels."""
    method: Literal["auto", "kmeans", "regrouped"] = "auto"
    """`kmeans`: cosine k-means on the codes. `regrouped`: the same, after which two clusters may become one and a third
    one two, where that fits the colours and borders in the images better. `auto`: the head's own clusters where it has
    them, `regrouped` for `stegoflow`, otherwise `kmeans`."""
    restarts: int = Field(10, ge=1)
    """k-means starts from a Ward tree, and this often anew, on a sample; the start with the best objective is finished
    on all tokens."""
    iterations: int = Field(30, ge=1)
    tokens: int = Field(500_000, ge=1)
    """k-means reads at most this many training tokens, the same number of every view."""
    seed: int = Field(0, ge=0, lt=2**32)


LOOKED_AT = 128
"""Training views whose images decide about a regrouping."""
TWINS = 0.95
"""Centroids of a larger cosine are nearly one cluster."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ClustersParams = job.params
    k = chosen_k(params.k, job.inputs.get("suggestion"))
    head = open_head(job.inputs["head"], job.execution.device)
    own = head.prototypes() if params.method == "auto" else None
    if own is not None:
        if len(own) != k:
            raise StageError(f"clusters.k: the head has {len(own)}, not {k}", next="--set clusters.method=kmeans")
        job.out.write_tensors("clusters.safetensors", {"centroids": normalise(own)})
        return {"items": len(own), "found_by": "head", **look(normalise(own))}
    sample = sample_tokens(job.inputs["features"], params.tokens, params.seed, work, head)
    codes = stack(map(normalise, sample), most_tokens(job.inputs["features"], params.tokens))
    compared = leading(codes, head)
    centroids, objectives = fit(compared, k, params.restarts, params.iterations, params.seed)
    centroids = np.pad(centroids, ((0, 0), (0, codes.shape[1] - compared.shape[1])))
    facts: dict[str, Any] = {"found_by": "kmeans"}
    if params.method == "regrouped" or (params.method == "auto" and head.method.regrouped):
        centroids, moves = regroup(codes, centroids, compared.shape[1], *appearance(job, head, work), params.seed)
        facts = {"found_by": "regrouped", "moves": moves}
    job.out.write_tensors("clusters.safetensors", {"centroids": centroids})
    return {"items": len(codes), "objectives": objectives, **facts, **look(centroids, codes)}


def leading(codes: np.ndarray, head: TrainedHead) -> np.ndarray:
    """What k-means compares of unit codes (n, D): unit vectors of their leading channels."""
    return codes if head.method.leading is None else normalise(codes[:, : head.method.leading])


def appearance(job: Job, head: TrainedHead, work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Unit codes (view, row, column, D) of some training views, and the mean colour of every token (view, row, column,
    3), float32, 0..255, read from the images."""
    tokens = Tokens(job.inputs["features"])
    table = job.inputs["features"].read_table("views.parquet")
    rows = training_views(table)
    if len(rows) > LOOKED_AT:
        rows = np.sort(np.random.default_rng([job.params.seed, 1]).choice(rows, LOOKED_AT, replace=False))
    codes, colours = [], []
    for number, view in enumerate(table.take(rows).to_pylist()):
        work.tick(number, len(rows), "images")
        code = head(tokens.read(rows[number : number + 1]))[0]
        if np.isfinite(code[0, 0, 0]):  # else the image could not be decoded
            data = files.read_checked(job.roots["dataset"], view["path"], view["sha256"])
            box = Window(view["y0"], view["x0"], view["height"], view["width"])
            codes.append(normalise(code))
            colours.append(images.resize(images.decode(data, view["path"]), len(code), len(code[0]), box=box))
    work.tick(len(rows), len(rows), "images")
    return np.stack(codes), np.stack(colours).astype(np.float32)


def look(centroids: np.ndarray, codes: np.ndarray | None = None) -> dict[str, Any]:
    """What tells that there are fewer clusters than asked for: the largest cosine of two centroids, `closest` (None of
    a single one), and the number of clusters without any of the codes, `empty`. Both are warned of."""
    cosines = centroids @ centroids.T
    np.fill_diagonal(cosines, -1)
    found: dict[str, Any] = {"closest": round(float(cosines.max()), 4) if len(centroids) > 1 else None}
    if codes is not None:
        found["empty"] = len(centroids) - len(np.unique(nearest(codes, centroids)[0]))
    if trouble := fewer(found, len(centroids)):
        log.warning("clusters: %s", trouble)
    return found


def fewer(facts: dict[str, Any], k: int) -> str | None:
    """In words, and what to do, where the facts of `look` say that there are fewer than K clusters."""
    if facts.get("empty"):
        return f"{facts['empty']} of {k} clusters are empty; try clusters.k={k - facts['empty']}"
    if (facts.get("closest") or 0) > TWINS:
        return f"two of {k} clusters are nearly one (cosine {facts['closest']:.2f}); try clusters.k={k - 1}"
    return None


def fit(vectors: np.ndarray, k: int, restarts: int, iterations: int, seed: int) -> tuple[np.ndarray, list[float]]:
    """`cosine_kmeans` with an error that a user can act on where K exceeds the tokens."""
    if len(vectors) < k:
        raise StageError(
            f"clusters.k: {k} clusters asked of {len(vectors)} tokens", next=f"--set clusters.k={min(len(vectors), 27)}"
        )
    return cosine_kmeans(vectors, k, restarts=restarts, iterations=iterations, seed=seed)


def most_tokens(features: Artifact, limit: int) -> int:
    """What `sample_tokens` gives at most."""
    return min(limit, int(np.prod(features.manifest["shape"][:3])))


def stack(blocks: Iterable[np.ndarray], most: int) -> np.ndarray:
    """The rows of all blocks (n, channel), at most `most`, below each other; they are never in memory twice."""
    found, filled = np.empty((0, 0), np.float32), 0
    for block in blocks:
        if not filled:
            found = np.empty((most, block.shape[1]), block.dtype)  # takes no memory until it is filled
        found[filled : filled + len(block)] = block
        filled += len(block)
    return found[:filled]


def sample_tokens(
    features: Artifact, limit: int, seed: int, work: Work, encode: Callable[[np.ndarray], np.ndarray] | None = None
) -> Iterator[np.ndarray]:
    """Tokens of the training views, (n, channel) float16 view by view: all of them, or `limit` drawn evenly.

    With `encode`, the codes (n, D) at the same positions: it is given whole views, since a code may depend on the rest
    of its view.
    """
    tokens = Tokens(features)
    rows = training_views(features.read_table("views.parquet", ["training"]))
    each = min(int(np.prod(tokens.shape[1:3])), max(1, limit // max(1, len(rows))))
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    for start in range(0, len(rows), PART):
        work.tick(start, len(rows), "views")
        views = rows[start : start + PART]
        block = tokens.read(views)
        seen = np.isfinite(block[:, 0, 0, 0])
        if not seen.all():
            views, block = views[seen], block[seen]
        if not len(views):
            continue
        block = encode(block) if encode else block
        block = block.reshape(len(views), -1, block.shape[-1])
        if each < block.shape[1]:
            generators = (np.random.default_rng([seed, int(view)]) for view in views)
            picks = np.stack([g.choice(block.shape[1], each, replace=False) for g in generators])
            block = np.take_along_axis(block, picks[..., None], 1)
        yield from block
    work.tick(len(rows), len(rows), "views")


STAGE = Stage(
    "clusters",
    version=4,
    encoding=1,
    inputs=("features", "suggestion?", "head"),
    params=ClustersParams,
    compute=compute,
)
