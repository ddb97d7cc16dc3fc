"""Pages of the report to test with, and a reader of the HTML."""

import base64
import io
import re
from functools import cache
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from skimage import data

from pipeline.report.page import Page, Picture, Score, render

VOID = {"meta", "input", "img", "br"}


class Reader(HTMLParser):
    """What a browser would find: every element with its attributes, the text, and whether the tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        if "style" not in self.open:
            self.words += words

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [a for t, a in self.elements if t == tag and all(a.get(k) == v for k, v in wanted.items())]


def picture(name: str = "coffee.jpg", groups: int = 4, classes: int = 3, skip: int = 4) -> Picture:
    """A photograph with vertical bands of groups, a baseline whose bands are turned round, a label with an ignored
    border."""
    photo = data.coffee()[::skip, ::skip]
    height, width = photo.shape[:2]
    bands = np.broadcast_to(np.arange(width) * groups // width, (height, width))
    label = np.minimum(bands, classes - 1).astype(np.int32)
    label[:10] = -1
    coarse = bands.astype(np.uint8)
    coarse[:, -5:] = 255
    maps = {"groups": coarse, "groups + CRF": bands.astype(np.uint16)}
    return Picture(name, photo, maps, groups - 1 - bands, label if classes else None)


def score(name: str, kind: str, miou: float | None, iou: tuple[float | None, ...] = (50, 0, None)) -> Score:
    return Score(name, "a note", kind, miou, 50.0, list(iou))


def page() -> Page:
    """Four groups, the last without a class; three classes, the last without pixels."""
    head = {"stage": "head", "fingerprint": "cd" * 32, "seconds": 4101.0, "items": 5000, "created": "now", "version": 2}
    return Page(
        title="A corpus",
        images={"train": 1200, "val": 34},
        share=[0.1, 0.6, 0.2, 0.1],
        method="the head stegoflow",
        warnings=["Packaged weights."],
        scores=[
            score("k-means on tokens", "baseline", 10.0),
            score("groups", "groups", 25.0),
            score("groups + CRF", "groups", 30.0),
            score("linear probe", "probe", 40.0),
        ],
        label_free={"silhouette": {"groups": -0.25, "k-means": 0.5}, "stability": {"groups": None, "k-means": 0.75}},
        classes=["sky", "sea", "sand"],
        matching=[1, 0, 2, -1],
        confusion=np.array([[3, 1, 0, 0], [0, 7, 0, 1], [0, 0, 0, 0]]),
        pictures=[picture(), picture("chelsea.jpg")],
        gallery=[[data.chelsea()[:56, :56]] * 3, [], [data.coffee()[:8, :8]], []],
        losses={name: np.arange(1000.0) for name in ("step", "loss", "loss_self", "mean_self")},
        facts={"backbone": "vit_small"},
        stages=[
            head | {"stage": "dataset", "fingerprint": "ab" * 32, "seconds": 1.5, "params": {}},
            head | {"params": {"lr": 0.5, "shift": {"knn": 0.25}}},
        ],
    )


@cache
def whole() -> str:
    return render(page())


UNLABELLED = {"classes": [], "matching": [], "confusion": None, "scores": []}


def decoded(uri: str) -> Image.Image:
    kind, body = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(body)))
    assert image.format.lower() == kind
    return image


def masks_of(reader: Reader) -> list[np.ndarray]:
    """The maps of all pictures as RGBA, in the order of the page."""
    return [
        np.array(decoded(a["src"]).convert("RGBA")) for a in reader.all("img") if a["src"].startswith("data:image/png")
    ]
