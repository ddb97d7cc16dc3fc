"""The methods of the `head` stage. One more is a file here, a line in `METHODS`, and its section in HeadParams."""

from pipeline.heads.cause import Cause
from pipeline.heads.interface import Method
from pipeline.heads.none import Tokens
from pipeline.heads.pca import Pca
from pipeline.heads.primaps import Primaps
from pipeline.heads.smooseg import Smooseg
from pipeline.heads.stego import Stego
from pipeline.heads.stegoflow import Stegoflow

METHODS: dict[str, type[Method]] = {
    "stego": Stego,
    "stegoflow": Stegoflow,
    "smooseg": Smooseg,
    "cause": Cause,
    "primaps": Primaps,
    "pca": Pca,
    "none": Tokens,
}
"""By the value of `head.method`."""
