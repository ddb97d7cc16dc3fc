"""`plan`: what would run, why, and what it is expected to take."""

import json

import pytest
import yaml
from corpora import small, write_corpus

from pipeline.api import run
from pipeline.config import validate
from pipeline.planning import plan


def rows_of(call, *args: str) -> dict[str, dict]:
    status, out, err = call("plan", *args, "--json")
    assert status == 0, err
    return {row["stage"]: row for row in json.loads(out)["stages"]}


def test_plan_says_why(call, config):
    rows = rows_of(call, config, "--set", "clusters.k=3")
    assert [name for name, row in rows.items() if row["action"] == "run"] == [
        "clusters", "baseline", "masks", "scores", "report",
    ]  # fmt: skip
    assert rows["clusters"]["why"] == "clusters.k 4 → 3"
    status, out, _ = call("plan", config, "--set", "clusters.k=3", "--why")
    assert status == 0
    assert "clusters.k 4 → 3" in out


def test_a_first_run_is_forecast_from_rates_that_are_built_in(call, corpus, vit, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small(corpus, tmp_path / "store", vit)))
    rows = rows_of(call, str(path))
    assert all(row["action"] == "run" and row["seconds"] > 0 for row in rows.values())
    assert not any(row["measured"] for row in rows.values())
    assert rows["features"]["bytes"] > rows["neighbours"]["bytes"] > 0


def test_items_are_those_that_the_artifacts_will_have(make_config, finished):
    forecast = plan(make_config())
    done = plan(finished.config)
    assert {row.action for row in done} == {"reuse"}
    units = {row.stage: row.unit for row in forecast}
    assert all(units.values())
    assert units == {row.stage: row.unit for row in done}
    assert {row.stage: row.items for row in forecast} == {row.stage: row.items for row in done}


def test_a_forecast_from_half_the_images_is_right_about_the_whole(tmp_path, vit, monkeypatch):
    """Its bytes; times of so small runs mean nothing."""
    monkeypatch.setattr("pipeline.stages.masks.MOST_IMAGES", 8)  # in one part half of the bytes would not grow
    half, whole = (write_corpus(tmp_path / str(n), train=n, val=n) for n in (32, 64))  # whole chunks of 32 views
    store = tmp_path / "store"
    run(validate(small(half, store, vit)))
    config = validate(small(whole, store, vit))
    expected = {row.stage: row for row in plan(config)}
    assert all(row.measured for row in expected.values())
    run(config)
    for row in plan(config):
        assert expected[row.stage].items == row.items, row.stage
    again = {row.stage: row for row in plan(config, views=128)}
    for stage in ("features", "masks"):
        assert expected[stage].bytes == pytest.approx(again[stage].bytes, rel=0.2), stage


def test_views_scale_a_corpus(call, config):
    small_one, large = (rows_of(call, config, "--views", views) for views in ("1e4", "1e6"))
    assert all(row["action"] == "run" for row in large.values()), "nothing of that corpus exists"
    assert large["features"]["items"] == pytest.approx(100 * small_one["features"]["items"], rel=0.01)
    assert large["features"]["bytes"] > 50 * small_one["features"]["bytes"]
    assert large["head"]["items"] == small_one["head"]["items"], "steps do not grow with the corpus"
    assert large["report"]["items"] == small_one["report"]["items"]


def test_another_backbone_or_size_is_not_forecast_from_what_it_is_not(call, config):
    rows = rows_of(call, config, "--set", "features.views.size=[96,96]")
    assert not rows["features"]["measured"]
    assert rows["neighbours"]["measured"]


@pytest.mark.parametrize("views", ["0", "-5", "nan", "1e99"])
def test_views_that_are_no_number_of_views(call, config, views):
    status, out, err = call("plan", config, "--views", views)
    assert (status, out) == (2, "")
    assert "--views" in err


def test_the_table_ends_with_a_total(call, config):
    status, out, _ = call("plan", config)
    assert status == 0
    assert "views: " in out
    assert "total" in out
    assert "stegoflow run" in out
