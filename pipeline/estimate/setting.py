"""What a stage does to a corpus, `Load`, and what that follows from, `Setting`."""

from typing import Any, NamedTuple

from pipeline.artifacts.features import PART
from pipeline.estimate.corpus import Corpus
from pipeline.estimate.rates import Rate

FIXED = {"images.parquet": 3000, "labels.parquet": 2300, "views.parquet": 5300, "neighbours.parquet": 1100}
"""Bytes of a table that do not grow with its rows (footer, schema, statistics)."""


class Load(NamedTuple):
    """One stage, on one corpus."""

    items: float
    unit: str
    alone: float = 0
    """Seconds in the run's own process."""
    spread: float = 0
    """Seconds of all parts, one after another."""
    written: float = 0
    """Bytes."""
    objects: float = 0
    """Objects that are written."""
    read: float = 0
    """Bytes."""
    gets: float = 0
    """Requests that read: get and head."""
    lists: float = 0
    """Requests that list, each up to 1000 objects."""
    memory: float = 0
    """Bytes of the largest process."""


class Setting(NamedTuple):
    """What a stage's load follows from."""

    corpus: Corpus
    params: Any
    """The stage's own."""
    rates: dict[str, Rate]
    """Of every stage that is planned."""
    latency: float
    """Seconds of one request."""
    remote_images: bool
    """Whether reading an image is a request to an object store."""

    def table(self, stage: str, name: str, rows: float) -> float:
        """Bytes of a table with so many rows."""
        rate = self.rates[stage]
        known = rate.files[name]
        fixed = min(FIXED[name], known)
        return fixed + (known - fixed) / max(1, rate.items) * rows

    @property
    def images_table(self) -> float:
        return self.table("dataset", "images.parquet", self.corpus.images)

    @property
    def views_table(self) -> float:
        return self.table("features", "views.parquet", self.corpus.rows)

    def means(self) -> float:
        """Bytes of the array `mean` (or `pooled`) of the features."""
        channels = self.corpus.grid[2]
        return parts(self.corpus.rows, PART) * (PART * channels * 4 + 28)


def parts(items: float, size: int) -> float:
    return float(-(-items // size))
