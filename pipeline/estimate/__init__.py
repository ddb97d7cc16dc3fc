"""What a run would cost on a corpus of any size: time, bytes, requests, money, memory, and which stage breaks first.

`dataset.root` is the sample: its shares (training, predicted, labelled, views per image) are those of the corpus.
Rates come from finished artifacts of the store, as `plan` finds them, else from a run that is written down in `rates`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import PipelineConfig
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError
from pipeline.core.params import resolve
from pipeline.core.store import open_store
from pipeline.estimate.corpus import Corpus, survey
from pipeline.estimate.loads import load
from pipeline.estimate.rates import Rate, rate
from pipeline.estimate.setting import Load, Setting
from pipeline.planning import plan

SIZES = tuple(10.0**power for power in range(5, 10))
"""Views of the table that is shown where no number is given."""
LATENCY = {"local": 2e-4, "remote": 0.03}
"""Seconds of one request to a folder and to an object store: assumed, not measured."""
LARGEST = 1e13
"""Views up to which a limit is looked for."""
IN_BATCHES = (
    "in batches: fit on a sample, then `stegoflow segment latest FOLDER` for each folder of images; "
    "to keep one run, tables cut into shards of which a part reads its own"
)
ADVICE = {
    "dataset": IN_BATCHES,
    "labels": "labels for a sample alone",
    "features": IN_BATCHES,
    "suggestion": "give clusters.k",
    "neighbours": "sharded FAISS (an index per shard, compressed vectors); until then a sample as the training split",
    "head": "a head trained on a sample: a smaller training split",
    "clusters": "hierarchical k-means over shards of views; until then --set clusters.tokens with a smaller number",
    "probe": "labels for a sample alone",
    "baseline": "hierarchical k-means over shards of views; until then --set clusters.tokens with a smaller number",
    "masks": IN_BATCHES,
    "scores": "labels for a sample alone",
    "report": IN_BATCHES,
}
"""What to change where a stage breaks."""


@dataclass(frozen=True)
class Prices:
    """In dollars. The defaults are those of Amazon S3 Standard in us-east-1, as remembered from 2025; look them up."""

    put: float = 0.005
    """1000 requests that write or list."""
    get: float = 0.0004
    """1000 requests that read."""
    gb_month: float = 0.023
    """10⁹ bytes, stored for a month."""


@dataclass(frozen=True)
class StageEstimate:
    """One stage at one size."""

    stage: str
    items: int
    unit: str
    seconds_one: float
    """With one worker."""
    seconds: float
    """With all workers."""
    spread: bool
    """Whether workers help: features, masks and scores are cut into parts, everything else runs in one process."""
    bytes_written: int
    bytes_read: int
    objects: int
    """Objects that are written and stay."""
    puts: int
    """Requests that write or list."""
    gets: int
    memory: int
    """Bytes of the largest process."""
    cost: float
    """Dollars, of the requests."""
    cost_month: float
    """Dollars, of keeping what is written for a month."""
    rate: str
    """`same recipe`, `other settings` or `built in`."""


@dataclass(frozen=True)
class Limit:
    """A size from which on a stage needs more memory than there is."""

    stage: str
    from_views: int
    advice: str


@dataclass(frozen=True)
class Estimate:
    """A run at one size."""

    views: int
    images: int
    workers: int
    stages: list[StageEstimate]
    breaks: list[Limit]
    """The limits that this size passes, the lowest first."""
    longest: str
    """The stage that takes most of the time."""

    def total(self, name: str) -> float:
        """The sum of a field over the stages."""
        return sum(getattr(row, name) for row in self.stages)

    @property
    def memory(self) -> int:
        return max(row.memory for row in self.stages)


def estimate(
    config: PipelineConfig,
    views: list[float] | None = None,
    *,
    workers: int | None = None,
    memory_gib: float | None = None,
    prices: Prices | None = None,
    progress: Progress = silent,
) -> list[Estimate]:
    """What a run of a config would cost, for each number of plain views. Runs nothing, writes only the scan cache.

    `memory_gib` is what one process may have; this machine's by default. ConfigError where `plan` would raise it.
    """
    serial = config.execution.executor == "serial"
    if workers is None:
        workers = 1 if serial else config.execution.worker_count()
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    memory = machine if memory_gib is None else memory_gib
    sizes = list(SIZES) if views is None else views
    for option, values in (("--workers", [workers]), ("--memory-gib", [memory]), ("--views", sizes)):
        if not all(0 < value <= LARGEST for value in values):
            raise ConfigError(f"{option}: expected a number above 0", next="stegoflow estimate CONFIG --views 1e6")
    store = open_store(config.store)
    rows = plan(config, progress=progress)
    rates = {row.stage: rate(store, row, crf=config.masks.crf) for row in rows}
    sample = survey(config, store, progress)
    latency = LATENCY["local" if store.folder else "remote"]
    remote = "://" in config.dataset.root and not config.dataset.root.startswith("file:")
    loads = {name: _at(name, config, sample, rates, latency, remote) for name in rates}
    limits = [_limit(name, at, memory * 2**30) for name, at in loads.items() if at(LARGEST).memory > memory * 2**30]
    limits.sort(key=lambda limit: limit.from_views)
    return [_estimate(sample, size, workers, loads, rates, limits, prices or Prices()) for size in sizes]


At = Callable[[float], Load]
"""The load of a stage at a number of views."""


def _at(name: str, config: PipelineConfig, sample: Corpus, rates: dict[str, Rate], latency: float, remote: bool) -> At:
    params = resolve(getattr(config, name), config)
    return lambda views: load(name, Setting(sample.scaled(views), params, rates, latency, remote))


def _limit(name: str, at: At, budget: float) -> Limit:
    """From how many views on a stage needs more than `budget` bytes; at `LARGEST` it does."""
    low, high = 1.0, LARGEST
    while high / low > 1.02:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if at(middle).memory > budget else (middle, high)
    return Limit(name, int(float(f"{high:.1e}")), ADVICE[name])


def _estimate(
    sample: Corpus,
    views: float,
    workers: int,
    loads: dict[str, At],
    rates: dict[str, Rate],
    limits: list[Limit],
    prices: Prices,
) -> Estimate:
    stages = []
    for name, at in loads.items():
        found = at(views)
        puts = found.objects + found.lists
        stages.append(
            StageEstimate(
                stage=name,
                items=round(found.items),
                unit=found.unit,
                seconds_one=round(found.alone + found.spread, 3),
                seconds=round(found.alone + found.spread / workers, 3),
                spread=found.spread > 0,
                bytes_written=round(found.written),
                bytes_read=round(found.read),
                objects=round(found.objects),
                puts=round(puts),
                gets=round(found.gets),
                memory=round(found.memory),
                cost=(puts * prices.put + found.gets * prices.get) / 1000,
                cost_month=found.written / 1e9 * prices.gb_month,
                rate=rates[name].source,
            )
        )
    longest = max(stages, key=lambda row: row.seconds).stage
    passed = [limit for limit in limits if limit.from_views <= views]
    return Estimate(int(views), round(sample.scaled(views).images), workers, stages, passed, longest)
