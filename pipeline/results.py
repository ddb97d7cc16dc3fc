"""Looking at a feature store from Python."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import Tokens, read_center, read_mean
from pipeline.core.artifact import Artifact
from pipeline.core.errors import NotFoundError
from pipeline.core.runs import find_run, run_artifact
from pipeline.core.store import Store


@dataclass(frozen=True)
class Features:
    """A feature store: `tokens` (view, row, column, channel) float16, the table of `views`, `mean`, `center`."""

    artifact: Artifact
    views: pa.Table

    @property
    def tokens(self) -> Tokens:
        """(view, row, column, channel) float16, read when indexed; NaN for an image that could not be decoded."""
        return Tokens(self.artifact)

    @property
    def mean(self) -> np.ndarray:
        """(view, channel) float32: the mean token of each view."""
        return read_mean(self.artifact)

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


def open_features(store: str | Path, ref: str = "latest") -> Features:
    """Open the feature store of a run (`latest`, or a run's id), or of a features fingerprint (or its beginning).

    Reads only the table of views; tokens are read when asked for. NotFoundError where there is none.
    """
    opened = Store(str(store), create=False)
    names = [name for name in opened.folders("artifacts/features") if name.startswith(ref)]
    if len(names) == 1:
        artifact = Artifact(opened, "features", names[0])
        if not artifact.exists:
            raise NotFoundError(f"features {ref} is not finished", next="run its config again: finished parts are kept")
    else:
        artifact = run_artifact(opened, find_run(opened, ref), "features")
    return Features(artifact, artifact.read_table("views.parquet"))
