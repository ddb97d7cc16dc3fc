"""A Dask cluster by address, as an operator has one: a scheduler and workers that are processes of their own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import toys
from test_executors import free_port
from toys import SQUARES, SquaresParams, done, processes, squares

from pipeline.core import dask as cluster
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Node, Outcome
from pipeline.core.errors import ConfigError, StageError, render
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.store import Store

ITEMS = 40
PARTS = ITEMS // 2
TOTAL = sum(n * n for n in range(ITEMS))
SLOW = 0.2
"""Seconds that a part takes at least."""


class Cluster:
    """A scheduler on this machine's loopback address, and what joins it."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        folders = [str(Path(toys.__file__).parent), *sys.path]
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "DASK_DISTRIBUTED__COMM__RETRY__COUNT": "0"}
        self.started: list[subprocess.Popen[bytes]] = []
        self.worker: subprocess.Popen[bytes]
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def start(self, kind: str, *words: str) -> subprocess.Popen[bytes]:
        """`dask KIND WORDS` in the background, its output in a file of `home`."""
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--dashboard-address", "127.0.0.1:0", *words]
        with (self.home / f"{kind}-{len(self.started)}.log").open("wb") as log:
            self.started.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log, cwd=self.home))
        return self.started[-1]

    def log(self, kind: str) -> str:
        return "".join(path.read_text() for path in self.home.glob(f"{kind}-*.log"))

    def add_worker(self) -> subprocess.Popen[bytes]:
        """A worker of one process and one thread."""
        folder = ("--local-directory", str(self.home))
        return self.start("worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", *folder)

    def stop(self) -> None:
        for process in reversed(self.started):
            process.kill()
            process.wait()


@contextmanager
def started(home: Path) -> Iterator[Cluster]:
    """A cluster with one worker, which has joined."""
    home.mkdir()
    made = Cluster(home)
    try:
        made.worker = made.add_worker()
        deadline = time.monotonic() + 60
        while "Register worker" not in made.log("scheduler") and time.monotonic() < deadline:
            time.sleep(0.05)
        yield made
    finally:
        made.stop()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    with started(tmp_path / "cluster") as made:
        yield made


def by_address(address: str) -> Execution:
    return Execution(executor="dask", dask_address=address, retries=1)


def on(made: Cluster, store: Path, log: Path, **places: object) -> Outcome:
    """The toy stage, its parts on a cluster."""
    return squares(store, log, params={"items": ITEMS}, execution=by_address(made.address), slow=SLOW, **places)


def artifact(store: Path) -> Artifact:
    return Node(SQUARES, SquaresParams(items=ITEMS), {}).artifact(Store(store))


def when(log: Path, begun: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """A thread that does something as soon as parts have begun as they should."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (log.exists() and begun()):
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def workers_of(made: Artifact) -> set[int]:
    """Processes that computed its parts."""
    return {made.marker(part)["pid"] for part in made.markers()}


def test_a_worker_that_joins_gets_parts(dask: Cluster, tmp_path: Path):
    """The run has begun with one worker; another joins by the address. The values are those of a serial run."""
    log, joined = tmp_path / "log", []
    thread = when(log, lambda: len(done(log)) >= 2, lambda: joined.append(dask.add_worker()))
    outcome = on(dask, tmp_path / "store", log, together=2)
    thread.join()
    squares(tmp_path / "alone", tmp_path / "other", params={"items": ITEMS})
    made, alone = artifact(tmp_path / "store"), artifact(tmp_path / "alone")
    assert (outcome.parts_run, outcome.parts_repeated) == (PARTS, 0)
    assert workers_of(made) == {dask.worker.pid, joined[0].pid}
    assert made.manifest["sum"] == alone.manifest["sum"] == TOTAL
    assert made.markers() == alone.markers()
    for part in made.markers():
        assert made.read(f"squares/{part}.json") == alone.read(f"squares/{part}.json")


def test_a_worker_that_leaves(dask: Cluster, tmp_path: Path):
    """One of two workers is killed in its first part, and nothing replaces it: the other one does that part too."""
    log, second = tmp_path / "log", dask.add_worker()
    thread = when(log, lambda: second.pid in processes(log), second.kill)
    outcome = on(dask, tmp_path / "store", log, together=2)
    thread.join()
    made = artifact(tmp_path / "store")
    assert (outcome.parts_run, made.manifest["parts"]) == (PARTS, PARTS)
    assert workers_of(made) == {dask.worker.pid}
    assert len(done(log)) > PARTS, "a part was begun twice"
    assert made.manifest["sum"] == TOTAL


@pytest.mark.parametrize(("how", "then"), [(signal.SIGKILL, "serial"), (signal.SIGTERM, "a new cluster")])
def test_a_scheduler_that_is_lost(
    how: signal.Signals, then: str, dask: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The error names the address, soon; the next run does exactly the parts that are missing."""
    store, log, killed = tmp_path / "store", tmp_path / "log", []

    def lose() -> None:
        dask.scheduler.send_signal(how)
        killed.append(time.monotonic())

    monkeypatch.setattr(cluster, "CONNECT", 5)
    thread = when(log, lambda: len(done(log)) >= 6, lose)
    with pytest.raises(StageError) as caught:
        on(dask, store, log)
    assert time.monotonic() - killed[0] < 20
    thread.join()
    assert caught.value.message == f"the Dask scheduler at {dask.address} is gone"
    assert "execution.executor=processes" in render(caught.value.next)
    assert "finished parts are kept" in render(caught.value.next)
    dask.worker.wait(timeout=20)  # without a scheduler it leaves; till then it may finish a part
    finished, before = artifact(store).markers(), len(done(log))
    assert 5 <= len(finished) < PARTS
    if then == "serial":
        with pytest.raises(ConfigError, match=f"no Dask cluster at {dask.address}"):
            on(dask, store, log)
        again = squares(store, log, params={"items": ITEMS})
    else:
        with started(tmp_path / "new") as new:
            again = on(new, store, log)
        assert workers_of(artifact(store)) == {dask.worker.pid, new.worker.pid}
    assert again.parts_run == len(done(log)) - before == PARTS - len(finished)
    assert artifact(store).manifest["sum"] == TOTAL


def test_a_scheduler_that_comes_back_is_used_again(dask: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Restarted at its address within `CONNECT` seconds: what it had forgotten is submitted again."""
    monkeypatch.setattr(cluster, "CONNECT", 60)  # a busy machine takes long to start two processes

    def restart() -> None:
        dask.scheduler.kill()
        dask.scheduler.wait()
        dask.start("scheduler", "--host", "127.0.0.1", "--port", str(dask.port))
        dask.add_worker()

    log = tmp_path / "log"
    thread = when(log, lambda: len(done(log)) >= 6, restart)
    outcome = on(dask, tmp_path / "store", log)
    thread.join()
    assert outcome.status == "ran"
    assert artifact(tmp_path / "store").manifest["sum"] == TOTAL
    assert len(workers_of(artifact(tmp_path / "store"))) == 2


def test_a_scheduler_lost_between_two_stages(dask: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While the run's own process trains a head, say: the next stage says so, and does not wait for ever."""
    monkeypatch.setattr(cluster, "CONNECT", 5)
    with open_executor(by_address(dask.address)) as executor:
        assert len(list(executor.run(toys.triple, range(3)))) == 3
        dask.scheduler.kill()
        with pytest.raises((ConfigError, StageError)) as caught:  # whether its loss was noticed before or after
            list(executor.run(partial(toys.flaky, folder=str(tmp_path), times=0, bad=0), range(3)))
    assert dask.address in caught.value.message
