"""baseline: cosine k-means on the tokens themselves, with the same K and settings: what the head must beat.

Artifact: `baseline.safetensors` with `centroids` (K, channel) float32 and the `center` taken off the tokens first.
"""

from typing import Any

from pipeline.artifacts.features import read_center
from pipeline.artifacts.sampling import fit, most_tokens, sample_tokens, stack
from pipeline.artifacts.suggestion import chosen_k
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.params import Params, borrowed
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
    blocks = sample_tokens(features, params.tokens, params.seed, work)
    tokens = stack((normalise(block - center) for block in blocks), most_tokens(features, params.tokens))
    centroids, objectives = fit(tokens, k, params.restarts, params.iterations, params.seed)
    job.out.write_tensors("baseline.safetensors", {"centroids": centroids, "center": center})
    return {"items": len(tokens), "objectives": objectives}


STAGE = Stage("baseline", version=2, encoding=1, inputs=("features",), params=BaselineParams, compute=compute)
