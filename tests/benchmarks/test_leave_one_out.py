"""A value chosen on the other sets, by hand; and the command on three small sets."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import leave_one_out

TABLE = {"a": {"1": 10.0, "2": 20.0}, "b": {"1": 30.0, "2": 25.0}, "c": {"1": 50.0, "2": 48.0}}


def test_a_set_has_no_say_in_its_own_value():
    """Without a, 1 is better on the rest; without b and without c, 2 is, because of a."""
    assert leave_one_out.left_out(TABLE) == {"a": "1", "b": "2", "c": "2"}


def test_the_page_shows_what_it_costs():
    rows = [line.split("|")[1:-1] for line in leave_one_out.page("x.y", "1", TABLE).splitlines()]
    assert [cell.strip() for cell in rows[2]] == ["a", "10.0", "20.0", "10.0 (1)", "+0.0", "10.0"]
    assert [cell.strip() for cell in rows[3]] == ["b", "30.0", "25.0", "25.0 (2)", "-5.0", "5.0"]
    mean = [cell.strip() for cell in rows[5]]
    assert mean[:4] == ["mean", "30.0", "31.0", f"{(10 + 25 + 48) / 3:.1f}"]


def test_an_unknown_field_is_refused(tmp_path: Path):
    from pipeline.core.errors import ConfigError

    for name in ("images/train", "labels/train"):
        (tmp_path / "tiny" / name).mkdir(parents=True)
    (tmp_path / "tiny/dataset.yaml").write_text("classes: [a, b]\n")
    with pytest.raises(ConfigError, match="no_such"):
        leave_one_out.main(data=tmp_path, field="head.no_such", values="1", store=str(tmp_path / "store"))
