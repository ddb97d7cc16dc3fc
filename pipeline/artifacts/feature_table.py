"""A feature store as it is looked at from Python."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import Rows, Tokens, read_center, view_pieces
from pipeline.core.artifact import Artifact


@dataclass(frozen=True, repr=False)
class Features:
    """A feature store: `tokens` (view, row, column, channel) float16, the table of `views`, `mean`, `center`."""

    artifact: Artifact

    @cached_property
    def views(self) -> pa.Table:
        """A row per view, in the order of `tokens`; all of them in memory."""
        return view_pieces(self.artifact).read()

    @property
    def tokens(self) -> Tokens:
        """(view, row, column, channel) float16, read when indexed; NaN for an image that could not be decoded."""
        return Tokens(self.artifact)

    @property
    def mean(self) -> np.ndarray:
        """(view, channel) float32: the mean token of each view."""
        return Rows(self.artifact, "mean").read(np.arange(self.tokens.shape[0]))

    @property
    def center(self) -> np.ndarray:
        """(channel,) float32: the training splits' mean token."""
        return read_center(self.artifact, "dataset")

    def rows(self, image: str) -> list[int]:
        """The rows of an image's plain views, by its id."""
        found = zip(self.views["id"].to_pylist(), self.views["mirrored"].to_pylist(), strict=True)
        return [row for row, (name, mirrored) in enumerate(found) if name == image and not mirrored]

    def similarity(self, view: int, row: int, column: int, other: int | None = None) -> np.ndarray:
        """Cosine of one patch to every patch of a view (its own, or `other`), both centred: (row, column) float32."""
        tokens = np.asarray(self.tokens[view if other is None else other], np.float32) - self.center
        query = np.asarray(self.tokens[view, row, column], np.float32) - self.center
        tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True).clip(1e-12)
        return tokens @ (query / np.linalg.norm(query).clip(1e-12))

    def __repr__(self) -> str:
        facts = self.artifact.manifest
        params, (views, rows, columns, channels) = facts["params"], facts["shape"]
        block = "last block" if params["block"] is None else f"block {params['block']}"
        return f"<features {views:,} views × {rows} × {columns} × {channels}, {params['backbone']}, {block}>"


def read_features(artifact: Artifact) -> Features:
    """A features artifact; reads nothing until it is asked for."""
    return Features(artifact)
