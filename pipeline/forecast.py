"""What a stage is expected to take: seconds and bytes, from its number of items and a rate per item.

The rate is that of the nearest artifact in the store, else one that was measured elsewhere (`RATES`). An order of
magnitude: machines differ, and some stages grow faster than their items.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config import PipelineConfig
from pipeline.core.artifact import Artifact
from pipeline.core.store import Store
from pipeline.datasets import folder

MACHINE = "two CPU cores, 2026-11, ViT-S/14"


class Rate(NamedTuple):
    """Seconds and bytes of a stage: some whatever its size, and some per item."""

    start: float
    seconds: float
    bytes: float


RATES = {
    "dataset": Rate(0.1, 1e-4, 60),
    "labels": Rate(0.1, 1e-3, 50),
    "reading": Rate(0.5, 0.05, 10),
    "features": Rate(3, 0.1, 406_000),  # a view of 23×23 tokens of 384 channels
    "suggestion": Rate(5, 0.02, 10),
    "neighbours": Rate(0.3, 1e-4, 45),
    "clusters": Rate(3, 7e-5, 0.02),
    "classes": Rate(5, 0, 0),  # and 0.02 s for each image that holds a point
    "probe": Rate(2, 9e-5, 0.08),
    "baseline": Rate(1, 5e-5, 0.06),
    "masks": Rate(2, 0.16, 40_000),  # an image of 10⁶ pixels
    "masks with CRF": Rate(2, 2.4, 80_000),
    "scores": Rate(15, 0.07, 400),
    "report": Rate(5, 0.8, 250_000),
}
"""Of every stage, from runs on two cores of an AMD EPYC, 2026-11-24 and 25: features as benchmarks/speed.json has them,
the others on CamVid (600 images), those of masks and scores divided by its megapixels. Suggestion and report are
estimates."""
HEADS = {
    "stegoflow": Rate(3, 0.06, 4_000),
    "stego": Rate(3, 0.06, 1_600),
    "smooseg": Rate(3, 0.18, 1_000),
    "cause": Rate(3, 0.1, 1_000),
    "primaps": Rate(3, 0.2, 1_000),
    "pca": Rate(2, 0, 400),
    "none": Rate(1, 0, 0),
}
"""Of the head by its method, from docs/results.md; an item is a step. On one core but for `stegoflow`; the one of
`stego` is halved. A head without a row is taken for `stegoflow`, or for `pca` where nothing is trained by steps."""
DECISIVE = (
    "features.backbone ",
    "features.block ",
    "features.views.size ",
    "features.codec ",
    "head.method ",
    "masks.crf ",
)
"""Where one of these fields differs, the nearest artifact says nothing about the cost."""
RECORDS = 4000
"""Bytes of what says how an artifact was made."""
SAMPLED = 2000
"""Images of a split whose views are counted; the others are taken to be like them."""
LOOKED = 16
"""Objects of a split whose headers are read for an estimate, where no run has looked into them."""
MARKERS = 16
"""Markers of parts that are read to see what a part took."""


class Corpus(NamedTuple):
    """How much there is of everything."""

    images: float
    views: float
    """Plain ones: what `--views` counts."""
    rows: float
    """Views with the mirrored ones."""
    training: float
    """Training views."""
    labelled: float
    """Training views with labels."""
    maps: float
    """Label maps."""
    predicted: float
    """Images that get masks."""
    megapixels: float
    """Of an image."""
    tokens: int
    """Of a view."""
    channels: int
    sampled: bool = False
    """Whether the views of some images were counted, not of all."""
    sparse: bool = False
    """Whether views may be left out, of images that have nodata or slide glass."""

    @property
    def bound(self) -> str:
        """What the number of views is, if not exact."""
        return " ".join(["at most"] * self.sparse + ["about"] * self.sampled)

    def scaled(self, views: float) -> "Corpus":
        """A corpus with so many views and the same shares of everything."""
        factor = views / self.views
        counts = ("images", "views", "rows", "training", "labelled", "maps", "predicted")
        return self._replace(**{name: getattr(self, name) * factor for name in counts})


class Cost(NamedTuple):
    """What a stage is expected to take."""

    items: int | None
    """None for a stage that nothing is known of."""
    seconds: float
    bytes: int
    measured: bool
    """Whether an artifact of the store says so."""


def survey(config: PipelineConfig, store: Store, listings: dict[str, folder.Listing] | None = None) -> Corpus:
    """Count images, views and labels below `dataset.root`, as far as possible from what was listed before:
    `listings` by kind, and what the store remembers."""
    from pipeline.artifacts.labels import stem
    from pipeline.artifacts.view_reader import view_steps
    from pipeline.artifacts.views import Shapes, Splits, view_size, view_tables
    from pipeline.backbones.facts import describe
    from pipeline.numerics.views import NATIVE, count_windows
    from pipeline.stages import dataset

    root, layout = config.dataset.root, config.dataset.layout
    listings = listings or {}
    listing = listings.get("images") or folder.scan(root, "images", store, layout=layout, look=False)
    counts = listing.splits
    views = config.features.views
    looked = folder.look_into(root, "images", listing, LOOKED) if listing.examples else []
    stride = {split: 1 if looked else -(-count // SAMPLED) for split, count in counts.items()}
    splits, shapes = Splits.of(counts, config.masks.splits), Shapes()
    sample, at, pixels, sparse, seen = [], dict.fromkeys(counts, 0), 0, False, 0
    for items in ([item] for item in looked) if looked else listing.each():
        split, seen = items[0].split, seen + len(items)
        sample += items[-at[split] % stride[split] :: stride[split]]
        at[split] += len(items)
        pixels += sum(item.height * item.width for item in items)
        sparse = sparse or any(item.sparse for item in items)
        if split in splits.training:
            shapes.add(np.asarray([item.height for item in items]), np.asarray([item.width for item in items]))
    patch, channels, _ = describe(config.features.backbone)
    size = view_size(shapes, views, patch)
    each = [1] * len(sample)
    if views.kind == "sliding":  # of many windows of one image that are alike, one is in the table
        (said,) = config.dataset.model_dump(mode="json", include={"pixel_size"}).values()
        steps = view_steps(root, dataset.table(sample), views, said) or [NATIVE] * len(sample)
        each = [
            count_windows(max(1, item.height), max(1, item.width), size, views.overlap, step)
            for item, step in zip(sample, steps, strict=True)
        ]
        views = views.model_copy(update={"kind": "whole"})
    every = view_tables(dataset.table(sample), 0, views, size, config.features.mirror, splits)
    table = pa.concat_tables(piece for piece, _ in every)
    taken = Counter(item.split for item in sample)
    weight = np.asarray([counts[split] / taken[split] for split in table["split"].to_pylist()])
    weight = weight * np.asarray(each)[np.asarray(table["image"])]
    mirrored, training = np.asarray(table["mirrored"]), np.asarray(table["training"])
    labels, maps = set[tuple[str, str]](), 0
    if folder.has_labels(root, layout):
        wanted = {(item.split, stem(item.id)) for item in sample}
        found = listings.get("labels") or folder.scan(root, "labels", store, layout=layout, look=False)
        maps = len(found)
        if looked or found.examples:  # each has an image, as far as anybody has looked
            labels = wanted
        else:
            for items in found.each():
                labels |= {(item.split, stem(item.id)) for item in items} & wanted
    keys = zip(table["split"].to_pylist(), table["id"].to_pylist(), strict=True)
    labelled = np.asarray([(split, stem(id)) in labels for split, id in keys])
    return Corpus(
        images=len(listing),
        views=float(weight[~mirrored].sum()),
        rows=float(weight.sum()),
        training=float(weight[training].sum()),
        labelled=float(weight[training & labelled].sum()),
        maps=maps,
        predicted=sum(counts[split] for split in splits.predicted),
        megapixels=pixels / seen / 1e6,
        tokens=size[0] // patch * (size[1] // patch),
        channels=channels,
        sampled=len(sample) < len(listing),
        sparse=sparse,
    )


def cost(stage: str, params: Any, corpus: Corpus, nearest: Artifact | None, changes: list[str], workers: int) -> Cost:
    """What a stage is expected to take on a corpus. `nearest` is its nearest artifact, `changes` how that differs."""
    items = ITEMS[stage][1](corpus, params) if stage in ITEMS else None
    known = nearest.manifest if nearest and not any(change.startswith(DECISIVE) for change in changes) else {}
    rate = _built_in(stage, params, corpus)
    if items is None or not known.get("items"):
        seconds, size = rate.start + rate.seconds * (items or 0), RECORDS + rate.bytes * (items or 0)
    else:
        assert nearest is not None
        once = min(rate.start, known["seconds"])
        each = max((known["seconds"] - once) / known["items"], _seconds_in_parts(nearest) / workers)
        seconds = once + items * (each or rate.seconds)  # it may have been too small to show what an item takes
        size = items / known["items"] * sum(entry.size for entry in nearest.store.entries(nearest.root))
    return Cost(None if items is None else round(items), round(seconds, 2), round(size), bool(known))


def _tokens(corpus: Corpus, views: float, limit: int) -> float:
    """Tokens that a stage draws from so many views, `limit` at most (`artifacts.sampling`)."""
    return min(views, limit) * min(corpus.tokens, max(1, limit // max(1, views)))


ITEMS: dict[str, tuple[str, Callable[[Corpus, Any], float]]] = {
    "dataset": ("images", lambda corpus, params: corpus.images),
    "labels": ("label maps", lambda corpus, params: corpus.maps),
    "reading": ("images", lambda corpus, params: min(corpus.images, 256)),
    "features": ("views", lambda corpus, params: corpus.rows),
    "suggestion": ("views", lambda corpus, params: min(corpus.training, params.views)),
    "neighbours": ("views", lambda corpus, params: corpus.training),
    "head": ("steps", lambda corpus, params: getattr(params, "steps", 0) or corpus.training),
    "clusters": ("tokens", lambda corpus, params: _tokens(corpus, corpus.training, params.tokens)),
    "probe": ("tokens", lambda corpus, params: _tokens(corpus, corpus.labelled, params.tokens)),
    "baseline": ("tokens", lambda corpus, params: _tokens(corpus, corpus.training, params.tokens)),
    "masks": ("images", lambda corpus, params: corpus.predicted),
    "scores": ("images", lambda corpus, params: corpus.predicted),
    "report": ("images", lambda corpus, params: min(corpus.predicted, params.images)),
}
"""What the items of each stage are, and how many, as its manifest will count them."""


def unit(stage: str, params: Any) -> str:
    """What the items of a stage are; empty where the forecast knows nothing of it."""
    if stage == "head" and not getattr(params, "steps", 0):
        return "views"
    return ITEMS[stage][0] if stage in ITEMS else ""


def _built_in(stage: str, params: Any, corpus: Corpus) -> Rate:
    if stage == "head":
        return HEADS.get(params.method) or HEADS["stegoflow" if getattr(params, "steps", 0) else "pca"]
    if stage == "features":
        rate = RATES[stage]
        tokens = corpus.tokens / 529
        width = corpus.channels / 384
        codec = 0.25 if params.codec == "int8" else 1
        return Rate(rate.start, rate.seconds * tokens * width**2, rate.bytes * tokens * width * codec)
    rate = RATES.get("masks with CRF" if stage == "masks" and params.crf else stage, Rate(0, 0, 0))
    large = corpus.megapixels if stage in ("masks", "scores") else 1
    return Rate(rate.start, rate.seconds * large, rate.bytes * (large if stage == "masks" else 1))


def _seconds_in_parts(artifact: Artifact) -> float:
    """Seconds per item as the markers of some parts say; 0 where they do not. The manifest's time leaves out what a
    run did that was cut short, and of rows that were copied it says nothing."""
    names = sorted(artifact.markers())
    seconds = items = 0.0
    for name in names[:: -(-len(names) // MARKERS) or 1]:
        marker = artifact.marker(name)
        start, stop = map(int, name.split("-"))
        if "seconds" in marker and not marker.get("copied"):
            seconds, items = seconds + marker["seconds"], items + stop - start
    return seconds / items if items else 0.0
