"""The README's table of faults is what the last `make faults` found, and that was sound."""

import json

import pytest
from fault_places import KEYS
from table import ROOT, table


@pytest.fixture
def facts() -> dict:
    return json.loads((ROOT / "benchmarks/faults.json").read_text())


def test_nothing_was_lost_or_wrong(facts: dict):
    assert set(KEYS) <= set(facts)
    assert (facts["lost"], facts["wrong"]) == (0, 0)
    assert facts["flips_detected"] == facts["bytes_flipped"] > 0
    assert facts["recovered"] == facts["kills"] >= 60
    assert facts["seconds"] < 25 * 60


def test_the_readme_shows_it():
    assert table() in (ROOT / "README.md").read_text()
