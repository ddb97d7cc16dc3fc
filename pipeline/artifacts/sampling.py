"""Training tokens, or codes of them, drawn evenly from a features artifact: what k-means is fitted to."""

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.artifacts.features import BLOCK, Tokens, training_views
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Work
from pipeline.core.errors import Set, StageError
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import cosine_kmeans


def fit(vectors: np.ndarray, k: int, restarts: int, iterations: int, seed: int) -> tuple[np.ndarray, list[float]]:
    """`cosine_kmeans` with an error that a user can act on where K exceeds the tokens."""
    if len(vectors) < k:
        raise StageError(
            f"clusters.k: {k} clusters asked of {len(vectors)} tokens", next=Set("clusters.k", min(len(vectors), 27))
        )
    return cosine_kmeans(vectors, k, restarts=restarts, iterations=iterations, seed=seed)


def sample(features: Artifact, limit: int, seed: int, work: Work, encode: Callable[[np.ndarray], Codes]) -> Codes:
    """Codes of tokens of `training_views`, (view, token, D or E) float32: all of them, or `limit` drawn evenly, as many
    of every view. Images that could not be decoded are left out.

    `encode` makes codes of the raw tokens of whole views, (view, row, column, channel): a code may depend on the rest
    of its view. Nothing is in memory twice.
    """
    tokens = Tokens(features)
    size = int(np.prod(tokens.shape[1:3]))
    rows = training_views(features)
    each = min(size, max(1, limit // max(1, len(rows))))
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
    found, filled = [np.empty((0, each, 0), np.float32)], 0
    for views, codes in _encoded(tokens, rows, work, encode):
        parts = [part.reshape(len(views), size, -1) for part in codes if part is not None]
        if each < size:
            generators = (np.random.default_rng([seed, int(view)]) for view in views)
            picks = np.stack([g.choice(size, each, replace=False) for g in generators])[..., None]
            parts = [np.take_along_axis(part, picks, 1) for part in parts]
        if not filled:  # takes no memory until it is filled
            found = [np.empty((len(rows), each, part.shape[2]), np.float32) for part in parts]
        for whole, part in zip(found, parts, strict=True):
            whole[filled : filled + len(views)] = part
        filled += len(views)
    return Codes(*(whole[:filled] for whole in found))


def _encoded(
    tokens: Tokens, rows: np.ndarray, work: Work, encode: Callable[[np.ndarray], Codes]
) -> Iterator[tuple[np.ndarray, Codes]]:
    """Codes of some views, part by part, with the views that they are of."""
    for start in range(0, len(rows), BLOCK):
        work.tick(start, len(rows), "views")
        views = rows[start : start + BLOCK]
        block = tokens.read(views)
        seen = np.isfinite(block[:, 0, 0, 0])
        if seen.any():
            yield views[seen], encode(block if seen.all() else block[seen])
    work.tick(len(rows), len(rows), "views")
