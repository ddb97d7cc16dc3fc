"""pca: the first principal components of unit tokens, not whitened. Nothing is trained by steps."""

import torch
from torch import Tensor

from pipeline.core.errors import Set, StageError
from pipeline.heads.interface import Method
from pipeline.heads.settings import PcaParams
from pipeline.numerics.codes import Codes
from pipeline.numerics.context import unit


class Pca(Method):
    """Tokens are centred by the stage and made unit vectors here; codes are their deviations from the sample's mean."""

    mean: Tensor
    components: Tensor

    def __init__(self, params: PcaParams, channels: int) -> None:
        super().__init__()
        if params.code > channels:
            raise StageError(
                f"head.code: {params.code} components asked of tokens of {channels} channels",
                next=Set("head.code", channels),
            )
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("components", torch.zeros(params.code, channels))

    def prepare(self, sample: Tensor, seed: int) -> None:
        """The eigenvectors of the covariance with the largest eigenvalues, each with its largest entry positive."""
        size = sample.shape[0] * sample.shape[1] * sample.shape[2]
        mean = torch.stack([unit(view).flatten(0, 1).double().sum(0) for view in sample]).sum(0) / size
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=sample.device)
        for view in sample:  # one by one: double precision of all would be twice the sample
            away = unit(view).flatten(0, 1).double() - mean
            covariance += away.T @ away
        vectors = torch.linalg.eigh(covariance / size).eigenvectors.flip(1)[:, : len(self.components)].T
        largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.components.copy_(vectors * largest.sign())

    def encode(self, tokens: Tensor) -> Codes:
        return Codes((unit(tokens) - self.mean) @ self.components.T)
