"""Training tokens, or codes of them, drawn evenly from a features artifact: what k-means is fitted to."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pipeline.artifacts.features import PART, Tokens
from pipeline.artifacts.views import training_views
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Work
from pipeline.core.errors import Set, StageError
from pipeline.numerics.kmeans import cosine_kmeans


def fit(vectors: np.ndarray, k: int, restarts: int, iterations: int, seed: int) -> tuple[np.ndarray, list[float]]:
    """`cosine_kmeans` with an error that a user can act on where K exceeds the tokens."""
    if len(vectors) < k:
        raise StageError(
            f"clusters.k: {k} clusters asked of {len(vectors)} tokens", next=Set("clusters.k", min(len(vectors), 27))
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
