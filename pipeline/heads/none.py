"""none: no head. A token's code is the token itself, centred; with k-means it is what `baseline` does."""

from torch import Tensor

from pipeline.heads.interface import Method
from pipeline.heads.settings import MethodParams
from pipeline.numerics.codes import Codes


class Tokens(Method):
    """Without settings and without tensors."""

    def __init__(self, params: MethodParams, channels: int) -> None:
        super().__init__()

    def encode(self, tokens: Tensor) -> Codes:
        return Codes(tokens)
