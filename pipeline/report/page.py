"""The page of the report: one HTML file that loads nothing and escapes every name that it shows."""

import base64
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.report.curves import CURVE_POINTS, curves, panel

PHOTO_SIDE, PATCH_SIDE = 480, 96  # the longer side of an embedded photograph and of a gallery patch
NONE, UNMATCHED = -1, -2  # in a map of tones: no label here; a cluster without a class
HATCH = ((148, 148, 148, 255), (196, 196, 196, 255))  # the two greys of an unmatched cluster
STAGE = dict.fromkeys(("stage", "fingerprint", "seconds", "items", "created", "version"))  # what a record may lack
METHODS = {  # in the order of the comparison: what it is, and what it clusters or learns from
    "baseline": ("k-means on tokens", "baseline: the frozen backbone alone, upsampled bilinearly"),
    "cluster": ("{head}", "clusters of the head's codes"),
    "cluster_crf": ("{head} + CRF", "the same clusters, refined on the pixels"),
    "linear_tokens": ("linear probe on tokens", "upper reference: trained on labels"),
    "linear": ("linear probe on codes", "upper reference: trained on labels"),
}


@dataclass(frozen=True)
class Picture:
    """A photograph (H, W, 3 uint8), its masks by title (H, W cluster ids), its label (class ids, -1 = ignored)."""

    name: str
    image: np.ndarray
    masks: dict[str, np.ndarray]
    label: np.ndarray | None = None


@dataclass(frozen=True)
class Page:
    """All that the page shows. Scores and shares are fractions; a fact that holds "warning" or "⚠" is marked."""

    title: str
    facts: dict[str, str]
    stages: list[dict[str, Any]]  # stage, fingerprint, seconds, items, created, version, params (nested)
    scores: dict[str, dict[str, Any] | None]  # of METHODS: accuracy, miou, iou (one per class, or None)
    classes: list[str]  # empty without labels
    matching: list[int]  # the class of each cluster, -1 = none; empty without labels
    confusion: np.ndarray | None  # (classes, classes + 1): rows are labels, the last column is "no class"
    cluster_share: list[float]  # of all pixels
    label_free: dict[str, float | None]
    losses: dict[str, np.ndarray]  # the columns of the training log; "step" is the x axis, empty without training
    pictures: list[Picture]
    gallery: list[list[np.ndarray]]  # patches (h, w, 3 uint8) of each cluster
    colours: np.ndarray  # (K, 3) uint8
    head: str = "STEGO head"  # what the head is called
    suggestion: dict[str, Any] | None = None  # where K was not given: k, and the peaks of the curve (K, value)
    stability: dict[str, np.ndarray] | None = None  # that curve: k, stability


def render(page: Page) -> str:
    """The HTML of a page; the same page gives the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["finite"] = _finite
    text = environment.get_template("report.html.j2").render(_view(page))
    return text.encode("utf-8", "backslashreplace").decode()  # a file name may hold a lone surrogate


def _view(page: Page) -> dict[str, Any]:
    """The page as the template wants it."""
    tones, counts = _Tones(page), [] if page.confusion is None else np.asarray(page.confusion, float).tolist()
    view: dict[str, Any] = {
        "page": page,
        "scores": (scores := _scores(page)),
        "pictures": [_picture(picture, tones) for picture in page.pictures],
        "matched": tones.matched,
        "class_colours": [_css(colour) for colour in tones.class_colours],
        "clusters": _clusters(page, tones),
        "without_cluster": tones.without_cluster(),
        "iou": [row for row in scores if row["iou"] is not None and page.classes],
        "confusion": counts if page.classes else [],
        "curves": curves(page.losses),
        "curve_points": CURVE_POINTS,
        "stability": panel({"stability": page.stability["stability"]}, page.stability["k"], "suggestion-")
        if page.stability
        else None,
        "untrained": "step" in page.losses and not len(page.losses["step"]),
        "stages": [STAGE | stage | {"params": list(_flat(stage.get("params") or {}))} for stage in page.stages],
    }
    sections = {
        "suggestion": ("Number of clusters", page.suggestion is not None),
        "scores": ("Scores", scores or any(_finite(value) is not None for value in page.label_free.values())),
        "segmentations": ("Segmentations", view["pictures"]),
        "legend": ("Clusters", view["clusters"]),
        "gallery": ("Gallery", any(page.gallery)),
        "classes": ("Classes", view["iou"]),
        "confusion": ("Confusion", view["confusion"]),
        "training": ("Training", view["curves"] or view["untrained"]),
        "stages": ("Stages", view["stages"]),
    }
    here = {key: name for key, (name, content) in sections.items() if content}
    return view | {
        "sections": here,
        "absent": [sections[key][0] for key in sections if key not in here | {"suggestion": ""}],
    }


class _Tones:
    """Which colour a class and a cluster has: that of its class wherever clusters are matched to classes."""

    def __init__(self, page: Page) -> None:
        from matplotlib.colors import hsv_to_rgb

        self.classes, clusters = page.classes, len(page.colours)
        own = np.asarray(page.colours, np.uint8).reshape(-1, 3)
        hues = [[(0.11 + 0.618034 * i) % 1, 0.6, 0.85] for i in range(clusters, len(page.classes))]
        more = (hsv_to_rgb(np.array(hues).reshape(-1, 3)) * 255).round().astype(np.uint8)
        self.class_colours = np.concatenate([own, more])[: len(page.classes)]
        self.matched = bool(page.classes and page.matching)
        if self.matched:
            matching = (page.matching + [NONE] * clusters)[:clusters]
            found = [m if 0 <= m < len(page.classes) else UNMATCHED for m in matching]
            self.names, self.colours = page.classes, self.class_colours
        else:
            found = list(range(clusters))
            self.names, self.colours = [f"cluster {k}" for k in found], own
        self.of_cluster = np.array([*found, NONE], np.int64)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A map of cluster ids as a map of tones; any id that is no cluster's is "none"."""
        ids = np.asarray(mask).astype(np.int64)
        last = len(self.of_cluster) - 1
        return self.of_cluster[np.where((ids >= 0) & (ids < last), ids, last)]

    def cluster(self, k: int) -> str | None:
        """The CSS colour of a cluster; None is the hatching."""
        tone = int(self.of_cluster[k])
        return None if tone == UNMATCHED else _css(self.colours[tone])

    def without_cluster(self) -> list[int]:
        """The classes that no cluster was matched to."""
        return sorted(set(range(len(self.classes))) - set(self.of_cluster.tolist())) if self.matched else []


def _picture(picture: Picture, tones: _Tones) -> dict[str, Any]:
    """A photograph beside its maps, and the key to the tones that cover a hundredth of one of them."""
    photo = _shrunk(picture.image, PHOTO_SIDE)
    maps = [(t, tones.mask(m), tones.names, tones.colours) for t, m in picture.masks.items()]
    if picture.label is not None:
        label = np.asarray(picture.label).astype(np.int64)
        label = np.where((label >= 0) & (label < len(tones.classes)), label, NONE)
        maps.insert(0, ("label", label, tones.classes, tones.class_colours))
    key: dict[tuple[str, str | None], float] = {}
    for _, ids, names, colours in maps:
        for tone, pixels in zip(*np.unique(ids[ids != NONE], return_counts=True), strict=True):
            matched = tone != UNMATCHED
            entry = (names[tone], _css(colours[tone])) if matched else ("clusters without a class", None)
            key[entry] = max(key.get(entry, 0.0), pixels / ids.size)
    return {
        "name": picture.name,
        "photo": _jpeg(photo, 85),
        "size": photo.size,
        "maps": [(title, _png(_nearest(ids, photo.size), colours)) for title, ids, _, colours in maps],
        "key": [entry for entry, share in sorted(key.items(), key=lambda item: -item[1]) if share >= 0.01],
    }


def _clusters(page: Page, tones: _Tones) -> list[dict[str, Any]]:
    """Every cluster with its colour, class, share and patches, the largest first."""
    rows = []
    for k in range(len(page.colours)):
        tone = int(tones.of_cluster[k])
        share = _finite(page.cluster_share[k]) if k < len(page.cluster_share) else None
        patches = page.gallery[k] if k < len(page.gallery) else []
        shrunk = [_shrunk(patch, PATCH_SIDE) for patch in patches]
        name = tones.names[tone] if tones.matched and tone >= 0 else None
        row = {"id": k, "colour": tones.cluster(k), "name": name, "share": share}
        rows.append(row | {"patches": [(_jpeg(patch, 82), patch.size) for patch in shrunk]})
    return sorted(rows, key=lambda row: -(row["share"] or 0.0))


def _scores(page: Page) -> list[dict[str, Any]]:
    """One row per method that was scored, the probes last; gains are against the baseline."""
    base = _finite((page.scores.get("baseline") or {}).get("miou"))
    rows = []
    for key in [*METHODS, *sorted(set(page.scores) - set(METHODS))]:
        if score := page.scores.get(key):
            name, note = METHODS.get(key, (key, ""))
            name = name.replace("{head}", page.head)
            miou = _finite(score.get("miou"))
            gain = None if key == "baseline" or base is None or miou is None else 100 * (miou - base)
            row = {"key": key, "name": name, "note": note, "probe": key.startswith("linear"), "gain": gain}
            rows.append(row | {"miou": miou, "accuracy": _finite(score.get("accuracy")), "iou": score.get("iou")})
    return sorted(rows, key=lambda row: row["probe"])


def _shrunk(image: np.ndarray, side: int) -> Image.Image:
    """An RGB image whose longer side is at most this long."""
    picture = Image.fromarray(np.ascontiguousarray(image, np.uint8)).convert("RGB")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS) if scale < 1 else picture


def _nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The nearest neighbours of a map at another (width, height)."""
    columns, rows = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(size, ids.shape[::-1], strict=True))
    return ids[rows[:, None], columns]


def _png(ids: np.ndarray, colours: np.ndarray) -> str:
    """A map of tones as a PNG: hatched where unmatched, clear where there is none."""
    n = len(colours)
    opaque = np.concatenate([colours, np.full((n, 1), 255, np.uint8)], axis=1)
    table = np.concatenate([opaque, np.array([*HATCH, (0, 0, 0, 0)], np.uint8)])
    stripes = (np.add.outer(np.arange(ids.shape[0]), np.arange(ids.shape[1])) // 4) % 2
    index = np.where(ids == UNMATCHED, n + stripes, np.where(ids == NONE, n + 2, ids))
    used, flat = np.unique(index, return_inverse=True)
    if len(used) > 256:  # more than a palette holds
        return _embedded(Image.fromarray(table[index]), "png", optimize=True)
    image = Image.fromarray(flat.reshape(ids.shape).astype(np.uint8))
    image.putpalette(table[used, :3].tobytes())
    return _embedded(image, "png", optimize=True, transparency=table[used, 3].tobytes())


def _jpeg(image: Image.Image, quality: int) -> str:
    return _embedded(image, "jpeg", quality=quality, optimize=True)


def _embedded(image: Image.Image, kind: str, **options: Any) -> str:
    """An image as a data URI."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _flat(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested params as (dotted name, JSON value)."""
    for key, value in params.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False, default=str)


def _css(colour: np.ndarray) -> str:
    return "#" + bytes(np.asarray(colour, np.uint8)).hex()


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
