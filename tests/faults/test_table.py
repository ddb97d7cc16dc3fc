"""The last `make faults` tried everything and lost nothing."""

import json

import pytest
from fault_places import KEYS
from table import ROOT


@pytest.fixture
def facts() -> dict:
    return json.loads((ROOT / "benchmarks/faults.json").read_text())


def test_nothing_was_lost_or_wrong(facts: dict):
    assert set(KEYS) <= set(facts)
    assert (facts["lost"], facts["wrong"]) == (0, 0)
    assert facts["flips_detected"] == facts["bytes_flipped"] > 0
    assert facts["recovered"] == facts["kills"] >= 60
    assert facts["seconds"] < 25 * 60
