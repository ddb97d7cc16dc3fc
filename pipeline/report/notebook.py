"""What a notebook shows of a run: a figure of some images beside their label maps, and an HTML summary."""

from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from pipeline.artifacts.images import ByImage
from pipeline.artifacts.scores import NAMES, Scores
from pipeline.images.pixels import DecodeError
from pipeline.numerics.metrics import confusion
from pipeline.numerics.palette import colourise
from pipeline.report.colouring import colouring, tones
from pipeline.report.raster import jpeg
from pipeline.report.sheet import sheet
from pipeline.terminal import visible

LEGEND = 24
"""Groups in a legend, the largest first."""


def figure(
    images: ByImage[np.ndarray],
    masks: ByImage[np.ndarray],
    baseline: ByImage[np.ndarray] | None,
    k: int,
    scores: Scores | None,
    shares: np.ndarray | None,
    n: int,
    given: Sequence[tuple[str, str]] = (),
) -> tuple[Image.Image | None, list[str]]:
    """`n` images, evenly spaced, beside their masks and the baseline's, with a legend of the groups; None where none
    can be shown. And the names of those shown.

    Colours and names are those of the report; `given` those of classes that a person named.
    """
    names = list(masks)
    shown: dict[str, list[np.ndarray]] = {}
    for at in np.unique(np.linspace(0, len(names) - 1, min(n, len(names))).round().astype(int)):
        row = masks.rows[at]
        try:
            image, mask = images.read(row), masks.read(row)
        except DecodeError:
            continue
        shown[names[at]] = [image, mask, *([baseline.read(row)] if baseline else [])]
    if not shown:
        return None, []
    matching, of_baseline = (
        list(score.matching) if score else [] for score in (scores and scores.result, scores and scores.baseline)
    )
    clusters = max([k, *(int(maps[2].max(initial=0)) + 1 for maps in shown.values() if baseline)])
    overlap = np.zeros((clusters, k), np.int64)
    for maps in shown.values() if baseline else ():
        overlap += confusion(maps[2], maps[1], clusters, k)[:clusters]
    colour = colouring(k, list(scores.classes) if scores else [], matching, of_baseline, overlap, given)
    own = (colour.groups, colour.baseline)
    rows = [
        [image, *(colourise(tones(ids, of), colour.colours) for ids, of in zip(maps, own, strict=False))]
        for image, *maps in shown.values()
    ]
    order = range(k) if shares is None else np.argsort(-shares, kind="stable").tolist()
    percent = [""] * k if shares is None else [f": {share:.1%}" for share in shares]
    legend = [(colour.colours[group], visible(colour.names[group]) + percent[group]) for group in order[:LEGEND]]
    titles = ["image", "classes" if given else "groups", NAMES["baseline"].name][: len(rows[0])]
    return sheet(rows, titles, legend), list(shown)


def html(title: str, scores: Scores | None, picture: Image.Image | None) -> str:
    """A run in HTML: its title, its scores in percent, a picture of some of its masks. Names are escaped."""
    parts = [f"<p>{escape(title)}</p>"]
    if scores:
        rows = "".join(
            f"<tr><td>{name} ({note})</td><td>{_percent(score.accuracy)}</td><td>{_percent(score.miou)}</td></tr>"
            for method, (name, note) in NAMES.items()
            if (score := getattr(scores, method))
        )
        head = f"<tr><th>percent, protocol {escape(scores.protocol)}</th><th>accuracy</th><th>mIoU</th></tr>"
        parts.append(f"<table>{head}{rows}</table>")
    if picture:
        parts.append(f'<img alt="images and masks" src="{jpeg(np.asarray(picture))}">')
    return "\n".join(parts)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
