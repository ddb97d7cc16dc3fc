"""K as a stage uses it."""

from pipeline.core.artifact import Artifact
from pipeline.core.errors import Set, StageError


def chosen_k(k: int | None, suggestion: Artifact | None) -> int:
    """K as given, else as suggested."""
    if k is not None:
        return k
    if suggestion is None:
        raise StageError("clusters.k is not given and nothing was suggested", next=Set("clusters.k", "K"))
    return int(suggestion.read_json("suggestion.json")["k"])
