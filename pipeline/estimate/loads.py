"""What each stage does to a corpus of a given size, as its code and storage_layout.md say.

Numbers in, numbers out. A stage's own work is scaled from its rate; what it costs to read and hold tables of all images
or all views, which no small run shows, comes from the constants below.
"""

from collections.abc import Callable

from pipeline.artifacts.features import PART
from pipeline.estimate.rates import PARTS, Rate
from pipeline.estimate.setting import Load, Setting, parts
from pipeline.numerics.kmeans import SAMPLE as STARTS
from pipeline.stages.clusters import PICTURES
from pipeline.stages.head import SAMPLE as PREPARED
from pipeline.stages.head import WATCHED

LISTED, TABLED, INDEXED, ROW, COLUMNS = 2e-5, 1.8e-5, 8e-7, 2.5e-6, 3e-7
"""Seconds per row of: listing (hash of the table), making the table of views, writing neighbours, reading a table as
Python objects, reading it by columns. Measured on 100 000 rows (neighbours on 10⁶), 2026-11-25, one core of an AMD
EPYC; listing is 9e-6 measured without reading files, doubled for the rest. A worker reads a table once for all its
parts, which is left out."""
LIST_MEMORY, VIEW_MEMORY, NEAR_MEMORY, HEAD_MEMORY = 2000, 1500, 300, 240
ROW_MEMORY, IMAGE_MEMORY, COLUMN_MEMORY = 100, 750, 160
"""Bytes of memory per row of: the listing, the table of views being made, the lists of neighbours, those in the head,
the table of views in a worker, the label maps by image, a table by columns. Measured as peaks on 10⁶ rows or
more, but for the table of views (100 000) and the listing (1100 measured, and what `scan` remembers beside)."""
FLOPS, PROBING = 6.5e10, 1.2e10
"""Floating-point operations per second of an exact search and of an IVF index; measured likewise."""
PROBES = 16
"""Lists of an IVF index that a search is taken to look into: the stage doubles them until recall is 0.98."""
READ, ENCODE, DECODE = 1e-6, 2.3e-5, 0.01
"""Seconds to read a token, to read it and make its code, and to decode a megapixel of a label map. Estimates only."""
BASE = 0.7 * 2**30
"""Bytes of memory of a process with torch and a backbone before it has read anything: a guess."""


def load(stage: str, setting: Setting) -> Load:
    """The load of a stage. `objects` includes spec and manifest, `written` all of the artifact's bytes."""
    found = LOADS[stage](setting, setting.rates[stage])
    rate = setting.rates[stage]
    return found._replace(
        written=found.written + rate.records,
        objects=found.objects + 2,
        gets=found.gets + 12,
        lists=found.lists + 1,
        memory=found.memory + BASE,
    )


def _dataset(s: Setting, rate: Rate) -> Load:
    """Listing, which happens when a run is planned: every image is read once, eight at a time."""
    c = s.corpus
    seconds = c.images * (LISTED + (s.latency + c.image_bytes / 5e8) / 8)
    gets = c.images if s.remote_images else 0
    return Load(c.images, "images", alone=seconds, written=s.images_table, objects=1, read=c.images * c.image_bytes,
                gets=gets, memory=c.images * LIST_MEMORY)  # fmt: skip


def _labels(s: Setting, rate: Rate) -> Load:
    maps = s.corpus.label_maps
    seconds = maps * (LISTED + s.latency / 8)
    size = s.table("labels", "labels.parquet", maps) + rate.files["classes.json"]
    gets = maps if s.remote_images else 0
    return Load(maps, "label maps", alone=seconds, written=size, objects=2, gets=gets, memory=maps * LIST_MEMORY)


def _features(s: Setting, rate: Rate) -> Load:
    c, p = s.corpus, parts(s.corpus.rows, PART)
    tokens = rate.shape[1] * rate.shape[2]
    encode = c.rows * rate.each * c.tokens / tokens * (c.grid[2] / rate.shape[3]) ** 2
    written = c.rows * (c.view_bytes + 4) + p * (PART * 16 + 4) + 2 * s.means() + c.grid[2] * 4 + 24
    written += s.views_table + rate.files["known.parquet"] + rate.files["features.zarr metadata"] + p * rate.marker
    seen = c.images * c.rows / c.views  # mirrored views come last: their images are read again
    return Load(
        c.rows, "views", alone=c.rows * (TABLED + 4 * ROW) + p * s.latency, spread=encode,
        written=written, objects=8 + 4 * p, read=seen * c.image_bytes + s.views_table + s.means(),
        gets=20 + 11 * p + (seen if s.remote_images else 0), lists=2 * p / 1000, memory=c.rows * VIEW_MEMORY,
    )  # fmt: skip


def _suggestion(s: Setting, rate: Rate) -> Load:
    seen = min(s.corpus.training, s.params.views)
    known = min(max(1, rate.items), s.params.views)
    return Load(
        seen, "views", alone=rate.seconds * seen / known, written=sum(rate.files.values()), objects=2,
        read=seen * s.corpus.view_bytes + s.views_table, gets=2 * seen, memory=s.views_table * 2 + 4 * seen * 153600,
    )  # fmt: skip


def _neighbours(s: Setting, rate: Rate) -> Load:
    c, n = s.corpus, s.corpus.training
    each, exact = c.grid[2] * 4, n <= s.params.exact_below
    index = n * each + 45 if exact else n * (each + 8) + _lists(n) * (each + 16)
    start = max(0.0, rate.seconds - _search(rate.items, c.grid[2], s.params.exact_below))  # what small runs take
    seconds = start + _search(n, c.grid[2], s.params.exact_below) + n * INDEXED + c.rows * COLUMNS
    memory = max(c.rows * each + 3 * n * each, 4 * n * each + n * NEAR_MEMORY)
    return Load(
        n, "views", alone=seconds, written=s.table("neighbours", "neighbours.parquet", n) + index, objects=2,
        read=s.means() + s.views_table, gets=parts(c.rows, PART), memory=memory,
    )  # fmt: skip


def _lists(n: float) -> float:
    """Of an IVF index."""
    return 4 * n**0.5


def _search(n: float, channels: int, exact_below: int) -> float:
    """Seconds to search n vectors for each other."""
    if n <= exact_below:
        return 2 * n * n * channels / FLOPS
    lists = _lists(n)
    train_add_check = 10 * min(n, 64 * lists) * lists + n * lists + 1000 * n
    return 2 * channels * (train_add_check / FLOPS + n * (lists + PROBES * n / lists) / PROBING)


def _head(s: Setting, rate: Rate) -> Load:
    c, n = s.corpus, s.corpus.training
    steps = getattr(s.params, "steps", 0)
    near = s.table("neighbours", "neighbours.parquet", n)
    written = sum(rate.files.values()) + rate.parts * (rate.part + rate.marker)
    objects = 2 + 3 * rate.parts
    if not steps:
        seen = min(n, PREPARED) + WATCHED
        return Load(
            n, "views", alone=rate.seconds + n * 3 * ROW, written=written, objects=objects,
            read=near + seen * c.view_bytes, gets=2 * seen, memory=n * HEAD_MEMORY + seen * 2 * c.view_bytes,
        )  # fmt: skip
    fits = s.params.memory_gib * 2**30 // c.view_bytes
    batch = s.params.batch
    if n <= fits:
        pool = loaded = n
        gets = parts(n, PART)
    else:
        anchors = min(n, max(batch, fits // 4))
        pool = 2 * (2 * anchors)  # two pools while one replaces the other
        loaded = 2 * anchors * (1 + parts(steps, max(1, int(anchors // min(batch, anchors)))))
        gets = 2 * loaded
    drawn = steps * n * 2e-8  # a permutation of all training views at every step
    loads = loaded * (c.tokens * ENCODE + (gets / loaded) * s.latency)
    known = min(max(1, rate.views), fits) * c.tokens * ENCODE
    seconds = max(rate.seconds - known, 0.3 * rate.seconds) * steps / max(1, rate.items) + drawn + loads + n * 5e-6
    extra = min(n, PREPARED) + WATCHED
    return Load(
        steps, "steps", alone=seconds, written=written, objects=objects, read=near + (loaded + extra) * c.view_bytes,
        gets=gets + 2 * extra, memory=n * (HEAD_MEMORY + 8) + pool * c.view_bytes + extra * 2 * c.view_bytes,
    )  # fmt: skip


def _sampled(s: Setting, limit: float, each: float) -> tuple[float, float, float, float]:
    """Of `sample_tokens`: views read, tokens kept, gets, and seconds where a token costs `each`."""
    c = s.corpus
    views = min(c.training, limit)
    kept = views * min(c.tokens, max(1.0, limit // max(1.0, c.training)))
    gets = parts(views, PART) if views == c.training else 2 * views
    return views, kept, gets, views * c.tokens * each + gets * s.latency


def _clusters(s: Setting, rate: Rate, each: float = ENCODE, width: int = 0) -> Load:
    views, kept, gets, reading = _sampled(s, s.params.tokens, each)
    looked = 0 if width else min(s.corpus.training, PICTURES)  # views whose tokens and images may be read once more
    width = width or s.corpus.grid[2] + 128  # of a code, with the detail behind it; known only where there is a head
    fit = rate.seconds * _fitted(kept, s.params.restarts) / _fitted(max(1, rate.items), s.params.restarts)
    if rate.own:  # the head's clusters: no token is read
        return Load(rate.items, "clusters", alone=rate.seconds, written=sum(rate.files.values()), objects=1, gets=5)
    return Load(
        kept, "tokens", alone=fit + reading, written=sum(rate.files.values()), objects=1,
        read=(views + looked) * s.corpus.view_bytes + looked * s.corpus.image_bytes + s.views_table,
        gets=gets + 2 * looked, memory=kept * width * 4 * 3 + s.views_table,
    )  # fmt: skip


def _fitted(tokens: float, restarts: int) -> float:
    """Tokens that the starts of k-means see, which compete on a sample, and the last run."""
    return (restarts + 1) * min(tokens, STARTS) + (tokens if tokens > STARTS else 0)


def _baseline(s: Setting, rate: Rate) -> Load:
    return _clusters(s, rate, each=READ, width=s.corpus.grid[2])


def _probe(s: Setting, rate: Rate) -> Load:
    c, views = s.corpus, s.corpus.labelled_views
    kept = views * min(c.tokens, max(1.0, s.params.tokens // max(1.0, views)))
    seconds = kept * rate.seconds / max(1, rate.items) + views * (c.tokens * ENCODE + c.megapixels * DECODE)
    memory = (c.rows + c.training) * COLUMN_MEMORY + kept * c.grid[2] * 16 + c.images * IMAGE_MEMORY
    gets = parts(views, PART) + (views if s.remote_images else 0)
    return Load(
        kept, "tokens", alone=seconds, written=sum(rate.files.values()), objects=1,
        read=views * c.view_bytes + s.views_table, gets=gets, memory=memory,
    )  # fmt: skip


def _masks(s: Setting, rate: Rate) -> Load:
    c, p = s.corpus, parts(s.corpus.predicted, PARTS["masks"])
    each = rate.each * (c.megapixels / rate.megapixels if rate.megapixels else 1)
    chosen = c.predicted * (len(str(int(c.images))) + 3) + 2
    return Load(
        c.predicted, "images", spread=c.predicted * each, alone=c.images * ROW,
        written=p * (rate.part + rate.marker) + chosen, objects=1 + 2 * p,
        read=s.images_table + chosen + s.views_table + c.predicted * c.image_bytes
        + c.predicted_views * c.view_bytes,
        gets=6 * p + c.plane_gets + (c.predicted if s.remote_images else 0), lists=p / 1000,
        memory=c.images * COLUMN_MEMORY + c.rows * ROW_MEMORY,
    )  # fmt: skip


def _scores(s: Setting, rate: Rate) -> Load:
    c, scored = s.corpus, "labels" in s.rates
    p = parts(c.predicted, PARTS["scores"]) if scored else 0.0
    masks, masked = s.rates["masks"], parts(c.predicted, PARTS["masks"])
    each = rate.each * (c.megapixels / rate.megapixels if rate.megapixels else 1)
    views, _, gets, reading = _sampled(s, s.params.stability_tokens, ENCODE)
    alone = reading + (p + 2 * masked) * s.latency + c.predicted * (c.megapixels * 0.3 * DECODE + 1e-4)
    alone += max(0.0, rate.seconds - rate.items * rate.each)  # clusterings of halves, the silhouette
    labels = s.table("labels", "labels.parquet", c.label_maps) if scored else 0.0
    return Load(
        c.predicted, "images", spread=c.labelled * each * scored, alone=alone,
        written=rate.files["scores.json"] + p * rate.marker, objects=1 + p,
        read=labels + scored * s.views_table + (1 + scored) * masked * masks.part + views * c.view_bytes
        + scored * c.predicted_views * c.view_bytes,
        gets=14 * p + 2 * masked + gets + scored * c.plane_gets, lists=p + masked / 1000,
        memory=c.images * IMAGE_MEMORY * scored + c.rows * ROW_MEMORY,
    )  # fmt: skip


def _report(s: Setting, rate: Rate) -> Load:
    masked = parts(s.corpus.predicted, PARTS["masks"])
    size = sum(rate.files.values())
    return Load(
        s.params.images, "images", alone=rate.seconds + 2 * masked * s.latency + s.corpus.predicted * ROW * 4,
        written=size, objects=1, read=masked * s.rates["masks"].part + s.views_table, gets=2 * masked + 40,
        memory=s.corpus.rows * ROW_MEMORY + s.corpus.images * ROW_MEMORY,
    )  # fmt: skip


LOADS: dict[str, Callable[[Setting, Rate], Load]] = {
    "dataset": _dataset, "labels": _labels, "features": _features, "suggestion": _suggestion,
    "neighbours": _neighbours, "head": _head, "clusters": _clusters, "probe": _probe, "baseline": _baseline,
    "masks": _masks, "scores": _scores, "report": _report,
}  # fmt: skip
