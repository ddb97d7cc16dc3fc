"""Codes: what a head makes of tokens, in two parts.

`compared` is what k-means looks at. `detail`, where a head has it, tells apart what `compared` makes alike on purpose.
The two have the same length at every token, so that they weigh the same where they are put together.
"""

from typing import Any, NamedTuple

import numpy as np

from pipeline.numerics.kmeans import normalise


class Codes(NamedTuple):
    """Arrays of one shape but for the last axis; a method's `encode` returns tensors in their place."""

    compared: Any
    """(…, D) float32."""
    detail: Any = None
    """(…, E) float32, or None."""

    def joint(self) -> np.ndarray:
        """(…, D + E): both parts side by side."""
        return self.compared if self.detail is None else np.concatenate([self.compared, self.detail], -1)

    def directions(self) -> np.ndarray:
        """(…, D) unit vectors of what is compared. Codes without detail are taken to be unit vectors already."""
        return self.compared if self.detail is None else normalise(self.compared)

    def finer(self) -> np.ndarray:
        """Unit vectors of the detail; of what is compared where there is none."""
        return self.compared if self.detail is None else normalise(self.detail)

    def unit(self) -> "Codes":
        """The same directions, scaled so that both parts together are a unit vector."""
        length = np.linalg.norm(self.joint(), axis=-1, keepdims=True).clip(1e-12)
        return self.each(lambda part: part / length)

    def flat(self) -> "Codes":
        """The same codes, (n, ·)."""
        return self.each(lambda part: part.reshape(-1, part.shape[-1]))

    def some(self, most: int, seed: int) -> "Codes":
        """At most so many of codes (n, ·), drawn at random, in their order."""
        count = len(self.compared)
        if count <= most:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
        return self.each(lambda part: part[rows])

    def each(self, change: Any) -> "Codes":
        """`change` of both parts."""
        return Codes(*(None if part is None else change(part) for part in self))
