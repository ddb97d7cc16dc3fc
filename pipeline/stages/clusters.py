"""clusters: K unit vectors in code space, the head's own where it has them, else by cosine k-means on its codes, which
may then be regrouped by what the images show.

Artifact: `clusters.safetensors` with `centroids` (K, D) float32, unit vectors. The manifest's `found_by` is `head`,
`kmeans` or `regrouped`; of the last `moves` says what each move gained. Of a code whose leading channels
alone are compared (`heads/interface.py`), k-means leaves the rest of a centroid 0.
Source: STEGO, section 4.3, with k-means in place of its online cluster probe.
"""

import logging
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.artifacts.clusters import leading, look
from pipeline.artifacts.features import Tokens
from pipeline.artifacts.head import TrainedHead, open_head
from pipeline.artifacts.sampling import fit, most_tokens, sample_tokens, stack
from pipeline.artifacts.suggestion import chosen_k
from pipeline.artifacts.views import training_views
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import Params, suggested
from pipeline.images import files, formats
from pipeline.numerics.kmeans import normalise
from pipeline.numerics.regroup import regroup
from pipeline.numerics.views import Window

log = logging.getLogger("stegoflow")


class ClustersParams(Params):
    k: int | None = suggested("suggestion", ge=1, le=65535)
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

    def packages(self) -> dict[str, str]:
        return {"faiss": "k-means"}


LOOKED_AT = 128
"""Training views whose images decide about a regrouping."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ClustersParams = job.params
    k = chosen_k(params.k, job.inputs.get("suggestion"))
    head = open_head(job.inputs["head"], job.execution.device)
    own = head.prototypes() if params.method == "auto" else None
    if own is not None:
        if len(own) != k:
            raise StageError(f"clusters.k: the head has {len(own)}, not {k}", next=Set("clusters.method", "kmeans"))
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
            data = files.read_checked(job.roots["images"].location, view["path"], view["sha256"])
            box = Window(view["y0"], view["x0"], view["height"], view["width"])
            codes.append(normalise(code))
            colours.append(formats.resize(formats.decode(data, view["path"]), len(code), len(code[0]), box=box))
    work.tick(len(rows), len(rows), "images")
    return np.stack(codes), np.stack(colours).astype(np.float32)


STAGE = Stage(
    "clusters",
    version=4,
    encoding=1,
    inputs=("features", "head"),
    roots=("images",),
    params=ClustersParams,
    compute=compute,
)
