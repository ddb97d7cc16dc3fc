"""What a notebook shows of a run: a figure of some images beside their label maps, and an HTML summary."""

import base64
import io
from html import escape

import numpy as np
from PIL import Image

from pipeline.artifacts.images import ByImage
from pipeline.artifacts.scores import NAMES, Scores
from pipeline.images.pixels import DecodeError
from pipeline.numerics.metrics import confusion, match
from pipeline.numerics.palette import colourise, palette
from pipeline.report.sheet import sheet

LEGEND = 24
"""Groups in a legend, the largest first."""


def figure(
    images: ByImage[np.ndarray],
    masks: ByImage[np.ndarray],
    baseline: ByImage[np.ndarray] | None,
    k: int,
    shares: np.ndarray | None,
    n: int,
) -> tuple[Image.Image | None, list[str]]:
    """`n` images, evenly spaced, beside their masks and the baseline's, with a legend of the groups; None where none
    can be shown. And the names of those shown.

    A cluster of the baseline has the colour of the group that it has most pixels in common with, one to one.
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
    colours = palette(k)
    own = colours
    if baseline:
        counts = sum(confusion(theirs, mine, k, k) for _, mine, theirs in shown.values())
        own = colours[match(np.asarray(counts))]
    rows = [
        [image, *(colourise(ids, table) for ids, table in zip(maps, (colours, own), strict=False))]
        for image, *maps in shown.values()
    ]
    order = range(k) if shares is None else np.argsort(-shares, kind="stable").tolist()
    text = [f"group {group}" + ("" if shares is None else f": {shares[group]:.1%}") for group in range(k)]
    legend = [(colours[group], text[group]) for group in order[:LEGEND]]
    titles = ["image", "groups", "k-means on tokens"][: len(rows[0])]
    return sheet(rows, titles, legend), list(shown)


def html(title: str, scores: Scores | None, picture: Image.Image | None) -> str:
    """A run in HTML: its title, its scores in percent, a picture of some of its masks. Names are escaped."""
    parts = [f"<p>{escape(title)}</p>"]
    if scores:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{_percent(score.accuracy)}</td><td>{_percent(score.miou)}</td></tr>"
            for method, name in NAMES.items()
            if (score := getattr(scores, method))
        )
        head = f"<tr><th>percent, protocol {escape(scores.protocol)}</th><th>accuracy</th><th>mIoU</th></tr>"
        parts.append(f"<table>{head}{rows}</table>")
    if picture:
        parts.append(f'<img alt="images and masks" src="{data_uri(picture)}">')
    return "\n".join(parts)


def data_uri(picture: Image.Image) -> str:
    """A picture as a URI that holds it."""
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
