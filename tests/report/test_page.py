"""The report's page: safe against the names it shows, self-contained, deterministic."""

import re
from dataclasses import replace

import numpy as np
from report_pages import UNLABELLED, Reader, decoded, masks_of, page, picture, score, whole

from pipeline.numerics.palette import palette
from pipeline.report.page import Picture, render

COLOURS = palette(4)
HOSTILE = '"><script>alert(1)</script><img src=x onerror="alert(2)">\'{{ 7*7 }} $x$ 空と海'


def test_hostile_names_are_text_everywhere():
    p = page()
    stage = dict.fromkeys(["stage", "fingerprint", "created", "version"], HOSTILE) | {"seconds": 1.0, "items": 1}
    shot = picture(HOSTILE)
    hostile = {
        "title": HOSTILE,
        "method": HOSTILE,
        "images": {HOSTILE: 3},
        "warnings": [HOSTILE],
        "facts": {HOSTILE: HOSTILE},
        "stages": [stage | {"params": {HOSTILE: {HOSTILE: HOSTILE}}}],
        "classes": [HOSTILE + str(i) for i in range(3)],
        "scores": [replace(one, name=HOSTILE, note=HOSTILE) for one in p.scores],
        "label_free": {HOSTILE: {HOSTILE: 1.0, HOSTILE + "2": 2.0}},
        "losses": {"step": np.arange(5), HOSTILE: np.arange(5), "_" + HOSTILE: np.arange(5)},
        "pictures": [replace(shot, groups={HOSTILE: shot.groups["groups"]})],
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


def test_what_is_matched_to_one_class_has_one_colour_in_all_maps():
    p = replace(page(), baseline_matching=[2, -1, 0, 1])
    label, coarse, groups, baseline = masks_of(Reader(render(p)))[:4]
    height, width = groups.shape[:2]
    assert (height, width) == (100, 150)
    centres = [int((k + 0.5) * width / 4) for k in range(4)]
    for k, column in enumerate(centres):
        assert (groups[:, column] == [*COLOURS[k], 255]).all(), "a group has the colour of its exported mask"
        assert (coarse[:, column] == groups[:, column]).all()
    for band, c in enumerate([0, 1, 2, 2]):
        assert (label[height // 2, centres[band]] == [*COLOURS[p.matching.index(c)], 255]).all()
    for band in range(4):
        c = p.baseline_matching[3 - band]
        group = p.matching.index(c)
        assert (baseline[:, centres[band]] == [*COLOURS[group], 255]).all()
    assert (label[0, :, 3] == 0).all(), "ignored"
    assert (coarse[:, -1, 3] == 0).all(), "255: no group"


def test_without_labels_the_baseline_has_the_colours_of_the_groups_that_it_overlaps():
    """The bands of this baseline are numbered the other way round."""
    reader = Reader(render(replace(page(), **UNLABELLED, pictures=[picture(classes=0)])))
    _, groups, baseline = masks_of(reader)
    for k in range(4):
        assert (groups[5, int((k + 0.5) * groups.shape[1] / 4)] == [*COLOURS[k], 255]).all()
    assert (baseline == groups).all()
    assert "group 3" in reader.words
    assert "no labels" in reader.words
    assert "−0.25" in reader.words
    assert not reader.all("section", id="confusion")


def test_more_classes_than_groups_have_distinct_colours():
    p = replace(page(), classes=list("abcdef"), confusion=None, matching=[5, 0, 1, 2])
    reader = Reader(render(p))
    assert "No group was matched to" in reader.words
    colours = {a["style"] for a in reader.all("i") if a.get("class") == "swatch" and "style" in a}
    assert len(colours) == 6


def test_more_groups_than_a_palette_image_holds():
    groups = np.arange(600, dtype=np.uint16).reshape(20, 30)
    shot = Picture("many", np.zeros((20, 30, 3), np.uint8), {"groups": groups})
    mask = masks_of(Reader(render(replace(page(), **UNLABELLED, pictures=[shot], share=[1 / 600] * 600))))[0]
    assert (mask[..., :3] == palette(600)[groups]).all()


def test_scores_compare_with_the_baseline_and_mark_the_probes():
    reader = Reader(whole())
    assert "30.0 %" in reader.words
    assert "+20.0 points against k-means" in reader.words
    assert [a["class"] for a in reader.all("tr") if "class" in a][:4] == [
        "baseline",
        "groups",
        "groups best",
        "probe first",
    ]
    worse = [score("k-means on tokens", "baseline", 10.0), score("groups", "groups", 4.0)]
    assert "−6.0 points" in Reader(render(replace(page(), scores=worse))).words
    alone = Reader(render(replace(page(), scores=[score("groups", "groups", 4.0)])))
    assert "4.0 %" in alone.words
    assert "points against" not in alone.words


def test_the_page_opens_with_what_matters():
    """Title, K, images, score and the groups with their shares, the largest first; then the pictures."""
    words = Reader(whole()).words
    order = [
        "A corpus",
        "1\u202f234 images",
        "30.0 %",
        "Packaged weights.",
        "60.0 %",
        "coffee.jpg",
        "Stages and settings",
    ]
    places = [words.rindex(word) if word == "Stages and settings" else words.index(word) for word in order]
    assert places == sorted(places)


def test_confusion_is_normalised_by_row():
    cells = [a for a in Reader(whole()).all("td") if "→" in a.get("title", "")]
    found = ["sky → sky: 75.0 %", "sky → sea: 25.0 %", "sea → sea: 87.5 %", "sea → no class: 12.5 %"]
    assert [a["title"] for a in cells] == found
    assert "no labelled pixels" in whole()


def test_curves_are_drawn_and_say_what_is_not_finite():
    y = np.full(900, 0.5)
    y[[3, 899]] = np.nan, np.inf
    reader = Reader(render(replace(page(), losses={"step": np.arange(900), "loss": y, "lr": np.full(900, np.nan)})))
    assert len(reader.all("polyline")) == len(reader.all("polygon")) == 1
    assert reader.all("text")
    assert "2 not finite" in reader.words
    assert "900 not finite" in reader.words


def test_the_suggested_number_is_marked_on_its_curve():
    curve = {"k": np.arange(2, 8), "stability": np.linspace(0.9, 0.4, 6)}
    for k, marks in ((5, 1), (40, 0)):
        reader = Reader(render(replace(page(), suggestion={"k": k, "peaks": [(3, 0.8)]}, stability=curve)))
        assert f"K = {k}" in reader.words
        assert "K = 3 (0.8)" in reader.words
        assert len(reader.all("path", **{"class": "mark"})) == marks


def test_stages_show_times_items_fingerprints_and_params_when_unfolded():
    reader = Reader(whole())
    assert reader.all("code", title="ab" * 32)
    assert all(s in reader.words for s in ("ab" * 32, "1.50 s", "1 h 08 min", "5\u202f000", "shift.knn", "0.25"))
    assert all("open" not in a for a in reader.all("details"))


def test_photographs_are_kept_once():
    reader = Reader(render(replace(page(), pictures=[picture()] * 2)))
    photos = [decoded(a["href"]) for a in reader.all("image")]
    assert [photo.size for photo in photos] == [(150, 100)] * 2
    assert len([a for a in reader.all("use") if a.get("href", "").startswith("#photo")]) == 2 * 4
    patches = [decoded(a["src"]).size for a in reader.all("img") if a["alt"] == ""]
    assert patches == [(8, 8)] + [(56, 56)] * 3  # the larger group first
