"""Progress and log lines on standard error: what a person, and what a batch system, sees of a run."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys

import pytest

from pipeline import progress as progress_module
from pipeline.cli.logs import set_up
from pipeline.cli.options import Logs
from pipeline.cli.progress import reporting
from pipeline.core.logs import RUN, STAGE

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (\w+) +(.*)")
SCRIPT = """
from pipeline.cli.progress import reporting
with reporting() as progress:
    progress("features", 0, 0, "")
    progress("features", 3, 8, "views")
    progress("features", 8, 8, "views")
    progress("head", 0, 0, "")
    progress("head", 2, 2, "views")
    progress("head", 1, 20, "steps")
    progress("head", 20, 20, "steps")
    time_after = 1
"""


@pytest.fixture(autouse=True)
def log_as_before():
    yield
    set_up("info")


@pytest.fixture
def lines(capsys):
    """The log lines written so far, as (level, text)."""

    def read() -> list[tuple[str, str]]:
        found = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
        assert all(found)
        return [(hit[2], hit[3]) for hit in found if hit]

    return read


def on_a_terminal(script: str) -> str:
    """What a process writes to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "100"}
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        written += block
    assert child.wait() == 0
    os.close(ours)
    return written.decode()


def last_screen(written: str) -> list[str]:
    """The lines that stay on the terminal: what stands after the last time that the bars were drawn."""
    last = re.split(r"\x1b\[1A", written)[-1]
    return [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last).replace("\r", "").splitlines() if line.strip()]


def test_a_terminal_shows_one_bar_per_stage():
    written = on_a_terminal(SCRIPT)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    kept = last_screen(written)
    assert "features" in plain
    assert "8 views" in plain
    assert sum(line.startswith("head") for line in kept) == 1, "two units of one stage are one bar"
    assert "20 steps" in kept[-1]
    assert not LINE.search(plain), "no log lines beside the bars"


def test_a_bar_stops_when_its_stage_ends():
    """Its clock stood still while the next stage ran."""
    script = SCRIPT.replace("time_after = 1", "import time; progress('masks', 0, 0, ''); time.sleep(3)")
    kept = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_a_terminal(script)).replace("\r", "\n")
    assert re.search(r"masks .*3\.\d s", kept)
    assert not re.search(r"(head|features) .*3\.\d s", kept)


def test_without_a_terminal_there_are_lines(lines, monkeypatch):
    monkeypatch.setattr(progress_module, "LOGGED", 0.0)
    with reporting() as progress:
        progress("features", 0, 0, "")
        progress("features", 416, 833, "views")
        progress("head", 0, 0, "")
    assert [text.partition(" after ")[0] for _, text in lines()] == [
        "features: begins", "features: 416 of 833 views", "features: ended", "head: begins", "head: ended",
    ]  # fmt: skip


def test_lines_of_one_stage_keep_their_distance(lines):
    with reporting() as progress:
        for done in range(1000):
            progress("features", done, 1000, "views")
    assert len(lines()) == 2, "its begin and its end, which are less than ten seconds apart"


def test_a_stage_that_failed_did_not_end(lines):
    def fail() -> None:
        with reporting() as progress:
            progress("features", 0, 0, "")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [text for _, text in lines()] == ["features: begins"]


def test_lines_say_run_and_stage(lines):
    stage = STAGE.set("head")
    try:
        with reporting():
            RUN.set("20251125-234001-ab12")
            logging.getLogger("stegoflow").warning("collapsed \x1b[31m")
    finally:
        STAGE.reset(stage)
    assert lines() == [("warning", "20251125-234001-ab12 head: collapsed \\x1b[31m")]


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(lines, level, count):
    log = logging.getLogger("stegoflow")
    with reporting(Logs(log_level=level)):
        for write in (log.debug, log.info, log.warning, log.error):
            write("x")
    assert len(lines()) == count


def test_json_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "LOGGED", 0.0)
    with reporting(Logs(log_format="json")) as progress:
        progress("features", 416, 833, "views")
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {row["stage"] for row in rows} == {"features"}
    assert (rows[1]["done"], rows[1]["total"], rows[1]["unit"]) == (416, 833, "views")


def test_a_run_in_a_batch_job_logs_its_stages_and_keeps_stdout_for_results(call, make_config, tmp_path, corpus, vit):
    import yaml
    from corpora import small

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small(corpus, tmp_path / "store", vit)))
    status, out, err = call("run", str(path), "--json", "--stage", "dataset")
    run = json.loads(out)["run"]
    assert status == 0
    assert f"{run} dataset: begins" in err
    assert f"{run} dataset: ended after" in err
    status, out, err = call("run", str(path), "--json", "--stage", "dataset")
    assert "dataset: begins" not in err, "a stage that is reused does not run"


def test_a_log_line_is_written_at_once(monkeypatch):
    class Stream(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up("info")
    logging.getLogger("stegoflow").info("x")
    assert stream.flushed
