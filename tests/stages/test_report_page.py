"""The report's page: safe against the names it shows, self-contained, deterministic, whole with parts missing."""

import base64
import io
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pipeline.report.page import Page, Picture, render

HOSTILE = '"><script>alert(1)</script><img src=x onerror="alert(2)">\'{{ 7*7 }} $x$ 空と海'
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


def picture(name: str = "coffee.jpg", clusters: int = 4, classes: int = 3, skip: int = 4) -> Picture:
    """A photograph with masks in vertical bands of clusters and a label with an ignored border."""
    image = data.coffee()[::skip, ::skip]
    height, width = image.shape[:2]
    bands = np.broadcast_to(np.arange(width) * clusters // width, (height, width))
    label = np.minimum(bands, classes - 1).astype(np.int32)
    label[:10] = -1
    coarse = bands.astype(np.uint8)
    coarse[:, -5:] = 255
    masks = {"head": coarse, "head + CRF": bands.astype(np.uint16)}
    return Picture(name, image, masks, label if classes else None)


def page() -> Page:
    """Four clusters, the last without a class; three classes, the last without pixels."""
    score = {"accuracy": 0.5, "miou": 0.25, "iou": [0.5, 0.0, None]}
    head = {"stage": "head", "fingerprint": "cd" * 32, "seconds": 4101.0, "items": 5000, "created": "now", "version": 2}
    return Page(
        title="A run",
        facts={"backbone": "vit_small", "weights": "packaged — warning: a demo"},
        stages=[
            head | {"stage": "dataset", "fingerprint": "ab" * 32, "seconds": 1.5, "params": {}},
            head | {"params": {"lr": 0.5, "shift": {"knn": 0.25}}},
        ],
        scores={
            "baseline": score | {"miou": 0.1},
            "cluster": score,
            "cluster_crf": score | {"miou": 0.3},
            "linear": score | {"miou": 0.4},
            "linear_tokens": None,
        },
        classes=["sky", "sea", "sand"],
        matching=[1, 0, 2, -1],
        confusion=np.array([[3, 1, 0, 0], [0, 7, 0, 1], [0, 0, 0, 0]]),
        cluster_share=[0.1, 0.6, 0.2, 0.1],
        label_free={"silhouette": -0.25, "stability": None},
        losses={name: np.arange(1000.0) for name in ("step", "loss", "loss_self", "mean_self")},
        pictures=[picture(), picture("chelsea.jpg")],
        gallery=[[data.chelsea()[:56, :56]] * 3, [], [data.coffee()[:8, :8]], []],
        colours=np.array([[230, 25, 75], [60, 180, 75], [0, 130, 200], [245, 130, 48]], np.uint8),
    )


@cache
def whole() -> str:
    return render(page())


UNLABELLED = {"classes": [], "matching": [], "confusion": None, "scores": {}}


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


def test_hostile_names_are_text_everywhere():
    p = page()
    stage = dict.fromkeys(["stage", "fingerprint", "created", "version"], HOSTILE)
    shot = picture(HOSTILE)
    hostile = {
        "title": HOSTILE,
        "facts": {HOSTILE: HOSTILE},
        "stages": [stage | {"params": {HOSTILE: {HOSTILE: HOSTILE}}}],
        "classes": [HOSTILE + str(i) for i in range(3)],
        "scores": p.scores | {HOSTILE: {"accuracy": 1.0, "miou": 1.0, "iou": [1.0, 1.0, 1.0]}},
        "label_free": {HOSTILE: 1.0},
        "losses": {"step": np.arange(5), HOSTILE: np.arange(5), "_" + HOSTILE: np.arange(5)},
        "pictures": [replace(shot, masks={HOSTILE: shot.masks["head"]})],
    }
    html = render(replace(p, **hostile))
    reader = Reader(html)
    kinds = {(tag, *sorted(attributes)) for tag, attributes in Reader(whole()).elements}
    assert {(tag, *sorted(attributes)) for tag, attributes in reader.elements} <= kinds
    assert reader.words.count(HOSTILE) > 25
    assert "<script" not in html
    assert "{{ 7*7 }}" in html  # a name is no template either
    assert reader.all("svg", role="img")[0]["aria-label"] == HOSTILE
    assert any(a.get("title", "").startswith(HOSTILE) and "→" in a["title"] for a in reader.all("td"))


def test_the_page_loads_nothing_and_its_ids_are_unique():
    reader = Reader(whole())
    links = [a[k] for _, a in reader.elements for k in ("src", "href", "xlink:href", "action", "data") if k in a]
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link for link in links if not link.startswith("data:image/")} <= {"#" + name for name in ids}
    assert {inside[1:] for inside in re.findall(r"url\((.*?)\)", whole())} <= set(ids)
    assert "@import" not in whole()
    assert "default-src 'none'" in reader.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]


def test_the_same_page_is_the_same_text():
    assert render(page()) == whole()


def test_a_mask_has_the_colours_of_the_matched_classes_and_hatching_where_there_is_none():
    p = page()
    label, head, crf = masks_of(Reader(whole()))[:3]
    height, width = head.shape[:2]
    assert (height, width) == (100, 150)
    centres = [int((k + 0.5) * width / 4) for k in range(4)]
    for k, c in enumerate(p.matching[:3]):
        assert (crf[:, centres[k]] == [*p.colours[c], 255]).all()
        assert (head[:, centres[k]] == crf[:, centres[k]]).all()
    assert {tuple(v) for v in crf[:, centres[3]]} == {(148, 148, 148, 255), (196, 196, 196, 255)}
    assert (label[height // 2, centres[0]] == [*p.colours[0], 255]).all()  # class 0 is drawn as class 0
    assert (label[0, :, 3] == 0).all()  # ignored
    assert (head[:, -1, 3] == 0).all()  # 255: no cluster


def test_without_labels_a_cluster_has_its_own_colour():
    p = page()
    reader = Reader(render(replace(p, **UNLABELLED, pictures=[picture(classes=0)])))
    crf = masks_of(reader)[1]
    for k in range(4):
        assert (crf[5, int((k + 0.5) * crf.shape[1] / 4)] == [*p.colours[k], 255]).all()
    assert "cluster 3" in reader.words
    assert "no labels" in reader.words
    assert "−0.25" in reader.words
    assert "for want of input: classes, confusion." in reader.words
    assert not reader.all("section", id="confusion")


def test_more_classes_than_clusters_have_distinct_colours():
    p = replace(page(), classes=list("abcdef"), confusion=None, scores={}, matching=[5, 0, 1, 2])
    reader = Reader(render(p))
    assert "No cluster was matched to" in reader.words
    colours = {a["style"] for a in reader.all("i") if a.get("class") == "swatch" and "style" in a}
    assert len(colours) == 6


def test_more_clusters_than_a_palette_holds():
    clusters = np.arange(600, dtype=np.uint16).reshape(20, 30)
    colours = np.stack([np.arange(600) % 256, np.arange(600) // 256, np.zeros(600)], axis=1).astype(np.uint8)
    shot = Picture("many", np.zeros((20, 30, 3), np.uint8), {"head": clusters})
    mask = masks_of(Reader(render(replace(page(), **UNLABELLED, pictures=[shot], colours=colours))))[0]
    assert (mask[..., :3] == colours[clusters]).all()


def test_scores_compare_with_the_baseline_and_mark_the_probes():
    reader = Reader(whole())
    assert "30.0 % mean IoU" in reader.words
    assert "20.0 points above" in reader.words
    assert [a["class"].strip() for a in reader.all("tr") if "class" in a][:4] == ["baseline", "", "best", "probe first"]
    assert reader.words.index("STEGO head + CRF") < reader.words.index("linear probe on codes")
    assert "linear probe on tokens" not in reader.words  # None: it was not scored
    worse = replace(page(), scores=page().scores | {"cluster_crf": None, "cluster": {"accuracy": 0.1, "miou": 0.04}})
    assert (
        "STEGO head: 4.0 % mean IoU, the head trained without labels; 6.0 points below" in Reader(render(worse)).words
    )


def test_confusion_is_normalised_by_row():
    cells = [a for a in Reader(whole()).all("td") if "→" in a.get("title", "")]
    found = ["sky → sky: 75.0 %", "sky → sea: 25.0 %", "sea → sea: 87.5 %", "sea → no class: 12.5 %"]
    assert [a["title"] for a in cells] == found
    assert "no labelled pixels" in whole()


def test_curves_are_text_and_say_what_is_not_finite():
    y = np.full(900, 0.5)
    y[[3, 899]] = np.nan, np.inf
    reader = Reader(render(replace(page(), losses={"step": np.arange(900), "loss": y, "lr": np.full(900, np.nan)})))
    assert len(reader.all("g", id="panel1-figure_1")) == 1
    assert reader.all("text")
    assert "2 not finite" in reader.words
    assert "900 not finite" in reader.words


def test_stages_show_times_items_fingerprints_and_params():
    reader = Reader(whole())
    assert reader.all("code", title="ab" * 32)
    assert all(s in reader.words for s in ("ab" * 32, "1.50 s", "1 h 08 min", "5\u202f000", "shift.knn", "0.25"))
    assert len(reader.all("details")) == 1
    assert len(reader.all("div", **{"class": "warning"})) == 1  # the fact that is a warning


def test_photographs_are_shrunk_and_kept_once():
    reader = Reader(render(replace(page(), pictures=[picture(skip=1)] * 2)))
    photos = [decoded(a["href"]) for a in reader.all("image")]
    assert [photo.size for photo in photos] == [(480, 320)] * 2
    assert len([a for a in reader.all("use") if a.get("href", "").startswith("#photo")]) == 2 * 3
    patches = [decoded(a["src"]).size for a in reader.all("img") if a["alt"] == ""]
    assert patches == [(8, 8)] + [(56, 56)] * 3  # the larger cluster first


MISSING = {
    "labels": UNLABELLED,
    "matching": {"matching": [], "scores": {}},
    "scores": {"scores": dict.fromkeys(["baseline", "cluster", "cluster_crf"])},
    "ious": {"scores": {"cluster": {"accuracy": float("nan"), "miou": None, "iou": None}}},
    "losses": {"losses": {"step": np.zeros(0), "loss": np.zeros(0)}},
    "step": {"losses": {"loss": np.ones(1)}},
    "gallery": {"gallery": []},
    "pictures": {"pictures": []},
    "masks": {"pictures": [Picture("one", np.zeros((3, 900, 3), np.uint8), {})]},
    "shares": {"cluster_share": [], "label_free": {}},
    "confusion": {"confusion": None},
    "details of the stages": {"stages": [{"stage": "head"}]},
}


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_left_out(missing):
    reader = Reader(render(replace(page(), **MISSING[missing])))
    targets = {a["id"] for a in reader.all("section")}
    assert {a["href"][1:] for a in reader.all("a")} == targets
    assert "nan" not in reader.words.lower().split()


def test_nothing_but_a_title():
    reader = Reader(render(Page("空", {}, [], {}, [], [], None, [], {}, {}, [], [], np.zeros((0, 3), np.uint8))))
    assert not reader.all("section")
    assert "空" in reader.words


def test_one_cluster_one_picture():
    one = {"pictures": [picture(clusters=1, classes=0)], "gallery": [[]], "cluster_share": [1.0]}
    reader = Reader(render(replace(page(), **UNLABELLED, **one, colours=page().colours[:1])))
    assert "1 cluster, the largest first" in reader.words
    assert "100.0 %" in reader.words


def test_a_name_that_is_no_unicode_can_be_written():
    assert b"caf\\udce9.jpg" in render(replace(page(), pictures=[picture("caf\udce9.jpg")])).encode()


def test_a_large_page_stays_small():
    n = 27
    score = {"accuracy": 0.5, "miou": 0.2, "iou": [0.2] * n}
    large = {
        "classes": [f"class {c}" for c in range(n)],
        "matching": list(range(n)),
        "confusion": np.ones((n, n + 1)),
        "scores": dict.fromkeys(page().scores, score),
        "cluster_share": [1 / n] * n,
        "pictures": [picture(f"{i}.jpg", n, n, skip=1) for i in range(12)],
        "gallery": [[data.chelsea()[k : k + 96, 8 * i : 8 * i + 96] for i in range(12)] for k in range(n)],
        "colours": np.random.default_rng(0).integers(0, 256, (n, 3)).astype(np.uint8),
    }
    assert len(render(replace(page(), **large)).encode()) < 5_000_000
