"""The methods of the `head` stage. One more is a file here, a line in `METHODS`, and its section in HeadParams."""

from pipeline.heads.interface import Method
from pipeline.heads.none import Tokens
from pipeline.heads.pca import Pca
from pipeline.heads.stego import Stego

METHODS: dict[str, type[Method]] = {"stego": Stego, "none": Tokens, "pca": Pca}
"""By the value of `head.method`."""
