"""Points and ticks of curves."""

import numpy as np
import pytest

from pipeline.report.curves import HEIGHT, POINTS, WIDTH, curve, panels, thin, ticks


def test_a_curve_fills_its_box():
    found = curve({"loss": np.array([4.0, 1.0, 2.0])}, np.array([0, 50, 100]))
    (line,) = found["lines"]
    assert line["points"] == [(0, 0), (WIDTH / 2, HEIGHT), (WIDTH, pytest.approx(HEIGHT * 2 / 3))]
    assert (line["last"], line["bad"], line["band"]) == (2.0, 0, [])
    assert [text for _, text in found["y_ticks"]] == ["1", "2", "3", "4"]
    assert [place for place, _ in found["y_ticks"]] == pytest.approx([HEIGHT, HEIGHT * 2 / 3, HEIGHT / 3, 0])


def test_a_long_column_is_averaged_and_keeps_its_extremes():
    y = np.sin(np.arange(10_001) / 50)
    y[7777] = 9
    x, mean, low, high = thin(np.arange(len(y)), y)
    assert len(x) == POINTS
    assert (np.diff(x) > 0).all()
    assert high.max() == 9
    assert (low <= mean).all()
    assert (mean <= high).all()
    (line,) = curve({"loss": y})["lines"]
    assert len(line["band"]) == 2 * POINTS
    top = min(place for _, place in line["band"])
    assert top == pytest.approx(0, abs=1e-9), "the largest value is the upper edge of the box"


def test_values_that_are_not_finite_are_left_out_and_counted():
    y = np.array([1.0, np.nan, 3.0, np.inf])
    (line,) = curve({"loss": y})["lines"]
    assert (len(line["points"]), line["bad"], line["last"]) == (2, 2, None)
    nothing = curve({"loss": np.full(3, np.nan)})
    assert nothing["lines"][0]["points"] == []
    assert nothing["y_ticks"]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-12, 1e30, 1e308])
def test_a_constant_column_is_a_line_in_the_middle(value):
    points = curve({"loss": np.full(4, value)})["lines"][0]["points"]
    assert [y for _, y in points] == pytest.approx([HEIGHT / 2] * 4)


def test_columns_of_a_family_share_a_panel():
    log = {name: np.arange(3.0) for name in ("step", "loss", "loss_self", "rate")} | {"empty": np.zeros(0)}
    found = panels(log)
    assert [(panel["name"], [line["name"] for line in panel["lines"]]) for panel in found] == [
        ("loss", ["loss", "loss_self"]),
        ("rate", ["rate"]),
    ]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 500, ["0", "200", "400"]),
        (-0.17, 0.03, ["−0.15", "−0.10", "−0.05", "0.00"]),
        (0.999, 1.0013, ["0.999", "1.000", "1.001"]),
        (2, 48, ["10", "20", "30", "40"]),
        (1e-7, 3e-7, ["1e−07", "2e−07", "3e−07"]),
        (0, 2e9, ["0", "1e+09", "2e+09"]),
    ],
)
def test_ticks_are_round_numbers(low, high, texts):
    found = ticks(low, high)
    assert [text for _, text in found] == texts
    assert all(low - 1e-9 * (high - low) <= value <= high + 1e-9 * (high - low) for value, _ in found)


def test_every_span_has_three_to_seven_ticks():
    generator = np.random.default_rng(0)
    for low, width in zip(generator.normal(0, 100, 500), 10 ** generator.uniform(-6, 8, 500), strict=True):
        assert 3 <= len(ticks(low, low + width)) <= 7
