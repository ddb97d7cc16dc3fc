"""baseline: cosine k-means on the tokens themselves, with the same K and settings: what the head must beat.

Artifact: `clusters.safetensors` as of the stage `clusters`, a prototype to a cluster, and the `center` that is
subtracted from tokens first.
"""

from typing import Any

import numpy as np

from pipeline.artifacts.clusters import Clusters, find_tree, write_clusters
from pipeline.artifacts.features import read_center
from pipeline.artifacts.sampling import fit, sample
from pipeline.artifacts.suggestion import chosen_k
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.params import Params, borrowed
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import normalise


class BaselineParams(Params):
    """Everything is taken from `clusters` and `head.center`, so that the comparison is fair."""

    k: int | None = borrowed("clusters.k")
    restarts: int = borrowed("clusters.restarts")
    iterations: int = borrowed("clusters.iterations")
    tokens: int = borrowed("clusters.tokens")
    seed: int = borrowed("clusters.seed")
    center: str = borrowed("head.center")

    def packages(self) -> dict[str, str]:
        return {"faiss": "k-means"}


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: BaselineParams = job.params
    features = job.inputs["features"]
    k = chosen_k(params.k, job.inputs.get("suggestion"))
    center = read_center(features, params.center)

    def encode(tokens: np.ndarray) -> Codes:
        return Codes(normalise(tokens - center))

    tokens = sample(features, params.tokens, params.seed, work, encode).flat().compared
    centroids, objectives = fit(tokens, k, params.restarts, params.iterations, params.seed)
    found = Clusters(centroids, find_tree(centroids, tokens), k)
    return {"items": len(tokens), "objectives": objectives, **write_clusters(job.out, found, center=center)}


STAGE = Stage("baseline", version=3, encoding=2, inputs=("features",), params=BaselineParams, compute=compute)
