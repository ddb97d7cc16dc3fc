"""The report's page with parts missing, and at its extremes."""

from dataclasses import replace

import numpy as np
import pytest
from report_pages import UNLABELLED, Reader, page, picture, score
from skimage import data

from pipeline.report.page import Page, Picture, render

MISSING = {
    "labels": UNLABELLED,
    "matching": {"matching": [], "scores": []},
    "ious": {"scores": [score("groups", "groups", float("nan"), ())]},
    "losses": {"losses": {"step": np.zeros(0), "loss": np.zeros(0)}},
    "step": {"losses": {"loss": np.ones(1)}},
    "gallery": {"gallery": []},
    "pictures": {"pictures": []},
    "maps": {"pictures": [Picture("one", np.zeros((3, 900, 3), np.uint8), {})]},
    "baseline": {"pictures": [replace(picture(), baseline=None)]},
    "numbers without labels": {"label_free": {}},
    "confusion": {"confusion": None},
    "stages": {"stages": [], "facts": {}},
}


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_left_out(missing):
    reader = Reader(render(replace(page(), **MISSING[missing])))
    targets = {a["id"] for a in reader.all("section")}
    assert {a["href"][1:] for a in reader.all("a")} == targets
    assert "nan" not in reader.words.lower().split()


def test_nothing_but_a_title():
    reader = Reader(render(Page("空", {}, [])))
    assert not reader.all("section")
    assert "空" in reader.words


def test_one_group_one_picture():
    one = {"pictures": [picture(groups=1, classes=0)], "gallery": [[]], "share": [1.0]}
    reader = Reader(render(replace(page(), **UNLABELLED, **one)))
    assert "1 group in" in reader.words
    assert "100.0 %" in reader.words


def test_a_name_that_is_no_unicode_can_be_written():
    assert b"caf\\udce9.jpg" in render(replace(page(), pictures=[picture("caf\udce9.jpg")])).encode()


def test_a_large_page_stays_small():
    n = 27
    large = {
        "classes": [f"class {c}" for c in range(n)],
        "matching": list(range(n)),
        "confusion": np.ones((n, n + 1)),
        "scores": [replace(one, iou=[20.0] * n) for one in page().scores],
        "share": [1 / n] * n,
        "pictures": [picture(f"{i}.jpg", n, n, skip=2) for i in range(12)],
        "gallery": [[data.chelsea()[k : k + 96, 8 * i : 8 * i + 96] for i in range(12)] for k in range(n)],
    }
    assert len(render(replace(page(), **large)).encode()) < 5_000_000
