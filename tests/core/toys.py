"""A stage that squares numbers, and functions for the executors: importable by worker processes."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.core.engine import Job, Node, Outcome, Part, Stage, Work, ensure, silent
from pipeline.core.errors import ConfigError
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.params import Params, unhashed
from pipeline.core.store import Store


class SquaresParams(Params):
    items: int = 20
    size: int = 2
    power: int = 2
    orders: dict[str, Any] = unhashed({})
    """What a part does beside squaring, and where it leaves its marks."""


def leave_mark(folder: str, name: str) -> int:
    """Touch a new file; how many of that name there were."""
    before = len(list(Path(folder).glob(f"{name}@*")))
    Path(folder, f"{name}@{os.getpid()}-{time.monotonic_ns()}").touch()
    return before


def done(folder: str | Path) -> list[str]:
    """Names of the parts that were computed, once per time."""
    return [path.name.split("@")[0] for path in Path(folder).iterdir()]


def processes(folder: str | Path) -> set[int]:
    """Ids of the processes that began them."""
    return {int(path.name.split("@")[1].split("-")[0]) for path in Path(folder).iterdir()}


def square_part(job: Job, part: Part) -> dict[str, Any]:
    orders = job.params.orders
    log = orders["log"]
    if len(done(log)) == int(orders.get("die_after", -1)):
        if orders["how"] == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("died")
    leave_mark(log, part.name)
    patience = time.monotonic() + 60
    while len(done(log)) > 3 and len(processes(log)) < int(orders.get("together", 1)) and time.monotonic() < patience:
        time.sleep(0.01)
    job.out.write_json(f"squares/{part.name}.json", [n**job.params.power for n in range(*part)])
    time.sleep(float(orders.get("slow", 0)))
    return {"sum": sum(n**job.params.power for n in range(*part)), "pid": os.getpid()}


def compute(job: Job, work: Work) -> dict[str, Any]:
    work.parts(square_part, job.params.items, job.params.size, "items")
    if "fail_at_end" in job.params.orders:
        raise RuntimeError("after the parts")
    return {"items": job.params.items, "sum": sum(job.out.marker(part)["sum"] for part in job.out.markers())}


SQUARES = Stage("squares", version=1, encoding=1, inputs=(), params=SquaresParams, compute=compute)


SERIAL = Execution(executor="serial", retries=0)


def squares(
    store: str | Path,
    log: str | Path,
    *,
    params: dict[str, Any] | None = None,
    execution: Execution = SERIAL,
    **orders: Any,
) -> Outcome:
    """Make the artifact exist."""
    Path(log).mkdir(exist_ok=True)
    progress = orders.pop("progress", silent)
    given = SquaresParams(**params or {}, orders={"log": str(log), **orders})
    with open_executor(execution) as executor:
        node = Node(SQUARES, given, {})
        return ensure(node, Store(store), execution=execution, executor=executor, progress=progress)


# For the executors ----------------------------------------------------------------------------------------------------


def triple(item: int) -> tuple[int, int]:
    return item * 3, os.getpid()


def slow_triple(item: int) -> tuple[int, int]:
    time.sleep(0.3)
    return triple(item)


def flaky(item: int, *, folder: str, times: int, bad: int) -> int:
    """Item `bad` fails with an I/O error the first `times` times."""
    if leave_mark(folder, str(item)) < times and item == bad:
        raise OSError(f"cannot read item {item}")
    return item


def store_failure(item: int, *, folder: str) -> int:
    """obstore's own error, once."""
    from obstore.exceptions import GenericError

    if leave_mark(folder, str(item)) == 0:
        raise GenericError("connection reset")
    return item


def mortal(item: int, *, folder: str, times: int, bad: int) -> int:
    """Item `bad` takes its worker with it the first `times` times."""
    if leave_mark(folder, str(item)) < times and item == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return item


def refused(item: int) -> int:
    if item == 3:
        raise ConfigError("item 3 is not allowed", next="leave it out")
    return item


def crash(item: int) -> int:
    raise ZeroDivisionError(f"item {item}")


if __name__ == "__main__":  # store, log, roots: run the stage, print what it did
    store, log, places = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if "wait" in places:
        Path(log).mkdir(exist_ok=True)
        Path(places["wait"], f"ready-{os.getpid()}").touch()
        while not Path(places["wait"], "go").exists():
            time.sleep(0.001)
    outcome = squares(store, log, **places)
    print(json.dumps([outcome.status, outcome.parts_run, outcome.parts_total]))
