"""What docs/extending.md promises: the tables of the docs name whatever the registries hold."""

import re
from pathlib import Path
from typing import get_args

import pytest

from flows.stage import StageName
from pipeline.forecast import ITEMS, RATES
from pipeline.heads.settings import METHODS
from pipeline.images.formats import SUFFIXES
from pipeline.planning import STAGES
from pipeline.writers import FORMATS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/heads.md", [f"| `{name}`" for name in METHODS]),
        ("docs/formats.md", [f"| `{name}` |" for name in FORMATS]),
        ("docs/formats.md", SUFFIXES),
        ("storage_layout.md", [f"\n| {stage.name} " for stage in STAGES]),
    ],
)
def test_a_table_names_all(page: str, names: list[str]):
    text = (ROOT / page).read_text()
    assert [name for name in names if name not in text] == []


def test_a_stage_can_be_forecast_and_run_alone():
    names = {stage.name for stage in STAGES}
    assert names - ITEMS.keys() <= {"classes"}, "a row in forecast.ITEMS; classes has one item"
    assert names - RATES.keys() <= {"head"}, "a row in forecast.RATES; heads have theirs in HEADS"
    assert set(get_args(StageName)) == names, "its name in flows/stage.py"


def test_the_page_names_places_that_exist():
    text = (ROOT / "docs/extending.md").read_text()
    for place in re.findall(r"`((?:pipeline|heads|writers|images|stages|core)/[\w/]*(?:\.py)?)`", text):
        assert (ROOT / place).exists() or (ROOT / "pipeline" / place).exists(), place
