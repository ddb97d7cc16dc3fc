"""What Python shows of work that goes on: a callback's, a notebook's, or the log."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from pipeline import progress as module
from pipeline.progress import watched


def test_a_callback_is_called_in_its_place():
    seen: list[tuple] = []
    with watched(lambda *facts: seen.append(facts)) as progress:
        progress("head", 1, 2, "steps")
    assert seen == [("head", 1, 2, "steps")]


def test_the_log_has_it_where_nobody_looks_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level("INFO", "stegoflow")
    with watched(None) as progress:
        progress("features", 0, 8, "views")
        progress("features", 8, 8, "views")
    assert caplog.records[0].getMessage() == "begins"
    assert caplog.records[-1].getMessage().endswith(": 8 views")
    assert {line.stage for line in caplog.records} == {"features"}


def test_a_notebook_shows_a_line_that_changes(monkeypatch: pytest.MonkeyPatch):
    """The cell's output ends with the time that it took; counts that follow each other closely are left out."""
    written: list[str] = []
    fake = ModuleType("IPython.display")
    fake.HTML = str  # type: ignore[attr-defined]
    fake.display = lambda value, display_id: SimpleNamespace(update=written.append)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(module, "EVERY", 3600.0)
    with watched(None) as progress:
        progress("features", 0, 0, "")
        for done in range(100):
            progress("features", done, 100, "views")
        monkeypatch.setattr(module, "EVERY", 0.0)
        progress("features", 50, 100, "views")
    assert len(written) == 3
    assert "50 of 100 views" in written[1]
    assert written[-1].endswith(" s")
