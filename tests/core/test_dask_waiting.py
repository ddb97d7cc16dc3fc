"""What a run says and does while no Dask worker is there: at its start, and in its middle."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cluster import PARTS, TOTAL, Cluster, artifact, by_address, dask, done, on, when  # noqa: F401

from pipeline.core import dask as cluster
from pipeline.core.errors import ConfigError
from pipeline.core.executors import open_executor


def test_a_run_waits_for_its_first_worker(tmp_path: Path, monkeypatch, caplog):
    """As long as a queue takes, and says so."""
    monkeypatch.setattr(cluster, "SAY_EVERY", 1.0)
    (tmp_path / "cluster").mkdir()
    made = Cluster(tmp_path / "cluster")
    try:
        enough = lambda: caplog.text.count(f"worker at {made.address}, for") >= 2  # noqa: E731
        thread = threading.Thread(target=join, args=(made, enough))
        thread.start()
        outcome = on(made, tmp_path / "store", tmp_path / "log")
        thread.join()
    finally:
        made.stop()
    assert outcome.parts_run == PARTS
    assert caplog.text.count(f"waiting for a Dask worker at {made.address}, for") >= 2


def join(made: Cluster, asked: Callable[[], bool]) -> None:
    """Add a worker once it is asked for."""
    deadline = time.monotonic() + 100
    while not asked() and time.monotonic() < deadline:
        time.sleep(0.05)
    made.add_worker()


def test_a_limit_to_waiting(tmp_path: Path):
    (tmp_path / "cluster").mkdir()
    made = Cluster(tmp_path / "cluster")
    try:
        execution = by_address(made.address).model_copy(update={"wait_for_workers": 1.0})
        started = time.monotonic()
        with open_executor(execution) as executor, pytest.raises(ConfigError) as caught:
            list(executor.run(str, [1]))
    finally:
        made.stop()
    assert "no worker joined for 1 seconds (execution.wait_for_workers)" in caught.value.message
    assert time.monotonic() - started < 30


def test_no_worker_is_left(dask: Cluster, tmp_path: Path, monkeypatch, caplog):  # noqa: F811
    """The only one is killed; it is named until another one joins, which does what is missing."""
    monkeypatch.setattr(cluster, "SAY_EVERY", 0.5)
    log = tmp_path / "log"

    def replace() -> None:
        dask.worker.kill()
        join(dask, lambda: "is left" in caplog.text)

    thread = when(log, lambda: len(done(log)) >= 6, replace)
    outcome = on(dask, tmp_path / "store", log)
    thread.join()
    made = artifact(tmp_path / "store").manifest
    assert (outcome.status, made["parts"], made["sum"]) == ("ran", PARTS, TOTAL)
    said = next(line for line in caplog.messages if "is left" in line)
    assert said.startswith(f"no Dask worker is left at {dask.address}: ")
    assert "last seen: tcp://127.0.0.1:" in said
