"""The page of the report: one HTML file that loads nothing and escapes every name that it shows."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from pipeline.numerics.metrics import confusion
from pipeline.report import curves
from pipeline.report.colouring import NONE, Colouring, colouring, tones
from pipeline.report.raster import jpeg, png

TEMPLATES = ("report.html.j2", "found.html.j2", "measured.html.j2", "macros.html.j2", "style.css")
KEYED = 0.01  # the key under a picture names what covers this share of one of its maps


@dataclass(frozen=True)
class Picture:
    """A photograph and its maps, all of one height and width. Ids that name nothing (−1, 255) are left blank."""

    name: str
    photo: np.ndarray
    """(H, W, 3) uint8."""
    groups: dict[str, np.ndarray]
    """Group ids by title, (H, W)."""
    baseline: np.ndarray | None = None
    """Ids of the baseline's clusters, (H, W)."""
    label: np.ndarray | None = None
    """Class ids, (H, W)."""


@dataclass(frozen=True)
class Score:
    """What a method scored, in percent; None where nothing could be scored."""

    name: str
    note: str
    kind: Literal["baseline", "groups", "probe"]
    miou: float | None
    accuracy: float | None
    iou: list[float | None]
    """One per class; None for a class that is neither labelled nor predicted."""


@dataclass(frozen=True)
class Page:
    """All that the page shows. Shares are fractions, scores percent; what is empty is left out."""

    title: str
    images: dict[str, int]
    """How many, by split."""
    share: list[float]
    """Of all pixels, of each of the K groups."""
    given: list[tuple[str, str]] = field(default_factory=list)
    """Name and `#rrggbb` of each of the K groups, where they are classes that a person named."""
    method: str = ""
    """How the groups were found, in a few words."""
    warnings: list[str] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    label_free: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Numbers that need no label, of the groups and of the baseline: {name: {whose: value}}."""
    classes: list[str] = field(default_factory=list)
    matching: list[int] = field(default_factory=list)
    """The class of each group, −1 = none."""
    baseline_matching: list[int] = field(default_factory=list)
    """The class of each of the baseline's clusters, −1 = none."""
    confusion: np.ndarray | None = None
    """(classes, classes + 1): rows are labels, the last column is "no class"."""
    pictures: list[Picture] = field(default_factory=list)
    gallery: list[list[np.ndarray]] = field(default_factory=list)
    """Patches (h, w, 3) uint8 of each group."""
    suggestion: dict[str, Any] | None = None
    """Where K was not given: `k`, and `peaks` of the curve, (K, stability)."""
    stability: dict[str, np.ndarray] | None = None
    """That curve: `k` and `stability`."""
    losses: dict[str, np.ndarray] = field(default_factory=dict)
    """Columns of the training log against `step`; all empty where nothing was trained by steps."""
    facts: dict[str, str] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Each with stage, fingerprint, version, items, seconds, created, params (nested)."""


def render(page: Page) -> str:
    """The HTML of a page; the same page gives the same text."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    texts = {name: files("pipeline.report").joinpath(name).read_text("utf-8") for name in TEMPLATES}
    environment = Environment(
        loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["finite"] = _finite
    text = environment.get_template(TEMPLATES[0]).render(_view(page))
    return text.encode("utf-8", "backslashreplace").decode()  # a file name may hold a lone surrogate


def _view(page: Page) -> dict[str, Any]:
    """The page as the template wants it."""
    matching = page.matching, page.baseline_matching
    colours = colouring(len(page.share), page.classes, *matching, _overlap(page), page.given)
    view = {
        "page": page,
        "headline": _headline(page.scores),
        "scores": [{"score": score, "gain": gain(score, page.scores)} for score in page.scores],
        "groups": _groups(page, colours),
        "pictures": [_picture(picture, colours) for picture in page.pictures],
        "matched": bool(page.classes and page.matching),
        "class_colours": [_css(colours.colours[tone]) for tone in colours.classes],
        "without_group": [c for c in range(len(page.classes)) if page.matching and c not in page.matching],
        "confusion": [] if page.confusion is None else np.asarray(page.confusion, float).tolist(),
        "suggested": _suggested(page),
        "panels": curves.panels(page.losses),
        "box": {"width": curves.WIDTH, "height": curves.HEIGHT, "points": curves.POINTS},
        "stages": [stage | {"params": list(_flat(stage["params"]))} for stage in page.stages],
    }
    sections = {
        "segmentations": ("Pictures", view["pictures"]),
        "gallery": ("Gallery", any(page.gallery)),
        "suggestion": ("Number of groups", page.suggestion),
        "scores": ("Scores", page.scores or page.label_free),
        "classes": ("Classes", page.classes and page.scores),
        "confusion": ("Confusion", page.classes and view["confusion"]),
        "training": ("Training", view["panels"]),
        "settings": ("Stages and settings", page.stages or page.facts),
    }
    return view | {"sections": {key: name for key, (name, content) in sections.items() if content}}


def _overlap(page: Page) -> np.ndarray:
    """Pixels (B, K) that each of the baseline's clusters shares with each group in the pictures."""
    k = len(page.share)
    shown = [(one.baseline, *one.groups.values()) for one in page.pictures if one.baseline is not None and one.groups]
    clusters = max([len(page.baseline_matching), *(_highest(maps[0]) + 1 for maps in shown)])
    found = np.zeros((clusters, k), np.int64)
    for baseline, groups, *_ in shown:
        found += confusion(baseline, groups, clusters, k)[:-1]
    return found


def _headline(scores: list[Score]) -> dict[str, Any] | None:
    """The score of the groups, of those with CRF where there are any, and what it gains over the baseline."""
    found = [score for score in scores if score.kind == "groups" and _finite(score.miou) is not None]
    return {"score": found[-1], "gain": gain(found[-1], scores)} if found else None


def gain(score: Score, scores: list[Score]) -> float | None:
    """Points of mean IoU above the baseline."""
    base = next((_finite(one.miou) for one in scores if one.kind == "baseline"), None)
    miou = _finite(score.miou)
    return None if score.kind == "baseline" or base is None or miou is None else miou - base


def _groups(page: Page, colours: Colouring) -> list[dict[str, Any]]:
    """Every group with its colour, class, share and patches, the largest first."""
    rows = []
    for group, share in enumerate(page.share):
        c = page.matching[group] if group < len(page.matching) else NONE
        patches = page.gallery[group] if group < len(page.gallery) else []
        rows.append(
            {
                "id": group,
                "colour": _css(colours.colours[group]),
                "class": page.given[group][0]
                if page.given
                else page.classes[c]
                if 0 <= c < len(page.classes)
                else None,
                "share": _finite(share),
                "patches": [(jpeg(patch), patch.shape[1], patch.shape[0]) for patch in patches],
            }
        )
    return sorted(rows, key=lambda row: -(row["share"] or 0))


def _picture(picture: Picture, colours: Colouring) -> dict[str, Any]:
    """A photograph beside its maps, and the key to what covers a hundredth of one of them."""
    maps = [(title, tones(ids, colours.groups)) for title, ids in picture.groups.items()]
    if picture.label is not None:
        maps.insert(0, ("label", tones(picture.label, colours.classes)))
    if picture.baseline is not None:
        maps.append(("k-means on tokens (baseline)", tones(picture.baseline, colours.baseline)))
    largest = np.zeros(len(colours.names))
    for _, ids in maps:
        largest = np.maximum(largest, np.bincount(ids[ids >= 0], minlength=len(largest)) / ids.size)
    keyed = [tone for tone in np.argsort(-largest, kind="stable") if largest[tone] >= KEYED]
    return {
        "name": picture.name,
        "photo": jpeg(picture.photo),
        "height": picture.photo.shape[0],
        "width": picture.photo.shape[1],
        "maps": [(title, png(ids, colours.colours)) for title, ids in maps],
        "key": [(colours.names[tone], _css(colours.colours[tone])) for tone in keyed],
    }


def _suggested(page: Page) -> dict[str, Any] | None:
    """The curve of stability, with the place of the suggested K where it lies on it."""
    if not page.suggestion or not page.stability:
        return None
    found = curves.curve({"stability": page.stability["stability"]}, page.stability["k"])
    place = curves.WIDTH * (page.suggestion["k"] - found["x_low"]) / (found["x_high"] - found["x_low"])
    return found | {"mark": place if 0 <= place <= curves.WIDTH else None}


def _highest(ids: np.ndarray) -> int:
    return int(ids.max(initial=NONE))


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
