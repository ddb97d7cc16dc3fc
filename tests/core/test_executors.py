"""Every executor gives the same values, retries what trying again may mend, and passes on what it may not."""

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import toys

from pipeline.core import dask as cluster
from pipeline.core import execution, executors
from pipeline.core.errors import ConfigError, StageError, render
from pipeline.core.execution import Execution
from pipeline.core.executors import Executor, open_executor

KINDS = ("serial", "processes", "dask")
APART = ("processes", "dask")


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Executor]]:
    """One executor of each kind, as a run has; the Dask one is a cluster of two processes."""
    options = {"workers": 2, "retries": 2}
    with (
        open_executor(Execution(executor="serial", **options)) as serial,
        open_executor(Execution(executor="processes", **options)) as processes,
        open_executor(Execution(executor="dask", **options)) as dask,
    ):
        yield {"serial": serial, "processes": processes, "dask": dask}


@pytest.mark.parametrize("kind", KINDS)
def test_every_item_is_done_once(kind: str, opened):
    found = dict(opened[kind].run(toys.triple, range(30)))
    assert {item: value for item, (value, _) in found.items()} == {item: item * 3 for item in range(30)}
    import os

    assert (os.getpid() in {pid for _, pid in found.values()}) == (kind == "serial")
    assert opened[kind].workers == (1 if kind == "serial" else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do(kind: str, opened):
    assert list(opened[kind].run(toys.triple, [])) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_io_error_is_tried_again(kind: str, opened, tmp_path: Path):
    work = partial(toys.flaky, folder=str(tmp_path), times=2, bad=3)
    assert sorted(opened[kind].run(work, range(6))) == [(item, item) for item in range(6)]
    assert len(list(tmp_path.glob("3@*"))) == 3
    assert len(list(tmp_path.glob("4@*"))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_object_store_is_tried_again(kind: str, opened, tmp_path: Path):
    assert list(opened[kind].run(partial(toys.store_failure, folder=str(tmp_path)), [1])) == [(1, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_io_error_that_stays_fails_the_stage(kind: str, opened, tmp_path: Path):
    work = partial(toys.flaky, folder=str(tmp_path), times=99, bad=3)
    with pytest.raises(StageError, match="part 3 failed 3 times: OSError: cannot read item 3") as caught:
        list(opened[kind].run(work, [3]))
    assert "finished parts are kept" in render(caught.value.next)
    assert len(list(tmp_path.glob("3@*"))) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_error_passes_straight_through(kind: str, opened):
    with pytest.raises(ConfigError) as caught:
        list(opened[kind].run(toys.refused, range(6)))
    assert type(caught.value) is ConfigError
    assert (caught.value.message, caught.value.next) == ("item 3 is not allowed", "leave it out")


@pytest.mark.parametrize("kind", KINDS)
def test_other_errors_are_not_tried_again(kind: str, opened):
    with pytest.raises(ZeroDivisionError, match="item 1"):
        list(opened[kind].run(toys.crash, [1]))


@pytest.mark.parametrize("kind", APART)
def test_a_killed_worker_is_replaced(kind: str, opened, tmp_path: Path):
    """The item that was lost, and those that were lost with it, are done again; the others' results are kept."""
    work = partial(toys.mortal, folder=str(tmp_path), times=1, bad=4)
    assert sorted(opened[kind].run(work, range(12))) == [(item, item) for item in range(12)]
    assert len(list(tmp_path.glob("4@*"))) >= 2


def test_workers_killed_one_after_another(tmp_path: Path):
    """… with two deaths of the pool: the items of a dead pool must not take the next one down."""
    with open_executor(Execution(executor="processes", workers=2, retries=3)) as executor:
        work = partial(toys.mortal, folder=str(tmp_path), times=2, bad=1)
        assert sorted(executor.run(work, range(8))) == [(item, item) for item in range(8)]


def test_an_item_that_kills_every_worker_fails_the_stage(tmp_path: Path):
    with open_executor(Execution(executor="processes", workers=1, retries=1)) as executor:
        work = partial(toys.mortal, folder=str(tmp_path), times=99, bad=0)
        with pytest.raises(StageError, match="part 0 failed 2 times: TerminatedWorkerError"):
            list(executor.run(work, [0]))
    assert len(list(tmp_path.glob("0@*"))) == 2


def test_an_executor_goes_on_after_an_error(opened):
    for kind in KINDS:
        with pytest.raises(ConfigError):
            list(opened[kind].run(toys.refused, range(8)))
        assert len(list(opened[kind].run(toys.triple, range(5)))) == 5


def test_retries_can_be_switched_off(tmp_path: Path):
    with open_executor(Execution(executor="serial", retries=0)) as executor, pytest.raises(StageError, match="1 times"):
        list(executor.run(partial(toys.flaky, folder=str(tmp_path), times=1, bad=0), [0]))


def test_no_worker_starts_before_the_first_item(monkeypatch: pytest.MonkeyPatch):
    """A run that reuses everything pays for no cluster."""
    for kind, owner, method in (("processes", executors._Processes, "_pool"), ("dask", cluster.Dask, "_client")):
        monkeypatch.setattr(owner, method, lambda self: pytest.fail("started"))
        with open_executor(Execution(executor=kind)) as executor:
            assert executor is not None
            if kind == "processes":
                assert list(executor.run(toys.triple, [])) == []


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dask_address": f"tcp://127.0.0.1:{free_port()}"}, "no Dask cluster at tcp://127.0.0.1"),
        ({"dask_address": "nonsense://x"}, "no Dask cluster at nonsense://x"),
        ({"dask_cluster": "no_such_package.Cluster"}, "no Dask cluster at no_such_package.Cluster: No module"),
        ({"dask_cluster": "distributed.NoCluster"}, "no Dask cluster at distributed.NoCluster"),
        ({"dask_cluster": "LocalCluster"}, "no Dask cluster at LocalCluster"),
        ({"dask_options": {"no_such_option": 1}}, "no Dask cluster at distributed.LocalCluster"),
    ],
)
def test_a_cluster_that_is_not_there(options: dict, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "CONNECT", 1)
    with open_executor(Execution(executor="dask", **options)) as executor, pytest.raises(ConfigError) as caught:
        list(executor.run(toys.triple, [1]))
    assert caught.value.message.startswith(message)
    assert "execution.executor=processes" in render(caught.value.next)


def test_worker_count():
    assert Execution(workers=3).worker_count() == 3
    assert Execution().worker_count() == execution.cores() >= 1


def test_workers_start_where_they_save_time(monkeypatch: pytest.MonkeyPatch):
    """Quick items are done in this process; of slow ones the first, and then workers do the rest."""
    import os

    with open_executor(Execution(executor="processes", workers=2)) as executor:
        monkeypatch.setattr(executors, "START_SECONDS", 10.0)
        assert {pid for _, (_, pid) in executor.run(toys.triple, range(9))} == {os.getpid()}
        monkeypatch.setattr(executors, "START_SECONDS", 0.1)
        found = list(executor.run(toys.slow_triple, range(9)))
        assert sorted(item for item, _ in found) == list(range(9))
        here = [item for item, (_, pid) in found if pid == os.getpid()]
        assert here == [0]
