"""Any order of parts, any crash point, any interleaving of two runs gives the same store.

Lines of processes work on one artifact. A process is a thread that stands still before each operation on the store
until the test gives it a turn, so whatever Hypothesis draws happens the same way every time. A process may crash at any
operation, before it takes effect or after; the next one of its line then begins, while the other line goes on. The
store is looked at after every single operation.
"""

import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from pipeline.core import engine
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Node, Part, Stage, Work, ensure, silent
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.params import Params
from pipeline.core.store import Store

ITEMS, SIZE = 11, 3
PARTS = [Part(start, min(start + SIZE, ITEMS)) for start in range(0, ITEMS, SIZE)]
NAMES = {part.name for part in PARTS}
MOST = 30
"""No process makes more operations than this."""
PATIENCE = 30
"""Seconds after which a process that does not come back is stuck."""
NAMED_BY_CONTENT = True
"""Whether files are named by their content, so that a marker and the data under it are of one process."""


# The stage: squares in parts, and a file of all sums ------------------------------------------------------------------


def squares(part: Part) -> list[int]:
    return [n * n for n in range(*part)]


def square_part(job: Job, part: Part) -> dict[str, Any]:
    process = current()
    assert part.name not in look_at(process.objects).markers(), "a part that is done is not done again"
    process.computed.append(part.name)
    job.out.write_json(f"squares/{part.name}.json", {"values": squares(part), "by": process.name})
    return {"sum": sum(squares(part)), "by": process.name}


def compute(job: Job, work: Work) -> dict[str, Any]:
    work.parts(square_part, ITEMS, SIZE, "items")
    sums = {name: job.out.marker(name)["sum"] for name in job.out.markers()}
    job.out.write_json("sums.json", {"values": sums, "by": current().name})
    return {"items": ITEMS, "sum": sum(sums.values()), "by": current().name}


NODE = Node(Stage("squares", version=1, encoding=1, inputs=(), params=Params, compute=compute), Params(), {})


def part_data(artifact: Artifact, part: Part) -> dict[str, Any]:
    """The data of a finished part. Nothing else here knows where they lie."""
    return artifact.read_json(f"squares/{part.name}.json")


def look_at(objects: MemoryStore) -> Artifact:
    """The artifact as it is now, without waiting for anyone."""
    store = Store("memory:///")
    store.objects = objects  # type: ignore[assignment]
    return NODE.artifact(store)


# Processes that take turns --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """What is drawn for one process."""

    order: tuple[int, ...] = tuple(range(len(PARTS)))
    """The order in which it walks the parts."""
    crash: tuple[int, bool] | None = None
    """The number of the operation at which it crashes, and whether that one still takes effect."""


class Crash(BaseException):
    """The end of a process: no Exception, so nothing on the way may catch it."""


class Process(threading.Thread):
    """One run of the stage."""

    def __init__(self, name: str, objects: MemoryStore, life: Life) -> None:
        super().__init__(name=name, daemon=True)
        self.objects, self.life = objects, life
        self.computed: list[str] = []
        self.operations = 0
        self.status = ""
        self.crashed = self.ending = self.over = False
        self.error: BaseException | None = None
        self.turn, self.stands = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        execution = Execution(executor="serial", retries=0)
        store = TurnStore("memory:///")
        store.objects = self.objects  # type: ignore[assignment]
        try:
            with open_executor(execution) as executor:
                outcome = ensure(NODE, store, execution=execution, executor=executor, progress=silent)
            self.status = outcome.status
        except Crash:
            pass
        except BaseException as error:
            self.error = error
        self.over = True
        self.stands.release()

    def operation(self, work: Callable[[], Any]) -> Any:
        """In the thread: do one operation when it has the turn, unless it crashes there."""
        self.stands.release()
        self.turn.acquire()
        if self.crashed or self.ending:
            raise Crash
        number, effective = self.life.crash or (-1, False)
        self.crashed = number == self.operations
        self.operations += 1
        if self.crashed and not effective:
            raise Crash
        result = work()
        if self.crashed:
            raise Crash
        return result

    def come_to_stand(self) -> None:
        """In the test: wait until it stands before its next operation, or is over."""
        assert self.stands.acquire(timeout=PATIENCE), f"{self.name} is stuck"
        if self.error is not None:
            raise self.error

    def step(self) -> None:
        """In the test: let it do one operation, and all that follows up to the next."""
        self.turn.release()
        self.come_to_stand()

    def end(self) -> None:
        """In the test: end the thread, wherever it stands."""
        self.ending = True
        self.turn.release()
        self.join(PATIENCE)
        assert not self.is_alive(), f"{self.name} does not end"


def current() -> Process:
    process = threading.current_thread()
    assert isinstance(process, Process)
    return process


def in_turn(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A Store's method as an operation of the process that calls it."""

    def operation(self: Store, *arguments: Any, **options: Any) -> Any:
        def work() -> Any:
            result = plain(self, *arguments, **options)
            return iter(list(result)) if isinstance(result, Iterator) else result

        return current().operation(work)

    return operation


LEFT_OUT = ("mark", "check_layout", "zarr", "path_of", "wrap_errors", "leftovers", "delete_leftover", "drop_empty")
"""What no run calls, or what calls the operations below."""
OPERATIONS = ("get", "put", "create", "exists", "entries", "folders", "delete")
TurnStore = type("TurnStore", (Store,), {name: in_turn(getattr(Store, name)) for name in OPERATIONS})


class DrawnOrder:
    """Stands for the engine's random.SystemRandom."""

    def shuffle(self, numbers: "array[int]") -> None:
        order = current().life.order
        numbers[:] = array("q", sorted(numbers, key=order.__getitem__))


LOCK_FREE = {
    name: property(member.func) for name, member in vars(Artifact).items() if isinstance(member, cached_property)
}
"""Python 3.11 holds one lock for all objects while it fills a cached property; real processes share none."""


# Playing them ---------------------------------------------------------------------------------------------------------


@dataclass
class Witness:
    """Looks at the store after every operation."""

    objects: MemoryStore
    seen: dict[str, Any] = field(default_factory=dict)
    """Every marker and the manifest as they were first seen."""

    def look(self) -> None:
        artifact = look_at(self.objects)
        markers = artifact.markers()
        found = {name: artifact.marker(name) for name in markers}
        for part in PARTS:
            if part.name in markers:
                self.agree(found[part.name], part_data(artifact, part), squares(part), sum(squares(part)))
        if artifact.exists:
            assert markers == NAMES, "the manifest comes after all markers"
            sums = {part.name: sum(squares(part)) for part in PARTS}
            self.agree(artifact.manifest, artifact.read_json("sums.json"), sums, sum(sums.values()))
            found["manifest"] = artifact.manifest
        assert {name: found.get(name) for name in self.seen} == self.seen, "a record never changes and never goes"
        self.seen = found

    def agree(self, record: dict[str, Any], data: dict[str, Any], values: Any, total: int) -> None:
        """A marker or a manifest stands for data that are there, and are those of an undisturbed run."""
        assert (data["values"], record["sum"]) == (values, total)
        if NAMED_BY_CONTENT:
            assert data["by"] == record["by"]


def play(lines: list[list[Life]], bursts: list[int]) -> list[Process]:
    """Run lines of processes on one store: `bursts` operations of each line in turn, then each line to its end, then
    one process more. Returns all processes."""
    witness = Witness(MemoryStore())
    began: list[Process] = []
    coming = [iter(line) for line in [*lines, [Life()]]]
    running: list[Process | None] = [None for _ in coming]

    def step(line: int) -> bool:
        """One operation of a line; False at its end."""
        process = running[line]
        if process is None or process.over:
            life = next(coming[line], None)
            if life is None:
                return False
            process = running[line] = Process(f"process {len(began)}", witness.objects, life)
            began.append(process)
            process.come_to_stand()
        process.step()
        witness.look()
        return True

    with (
        mock.patch.object(engine, "random", SimpleNamespace(SystemRandom=DrawnOrder)),
        mock.patch.multiple(Artifact, **LOCK_FREE),
    ):
        try:
            for index, burst in enumerate(bursts):
                for _ in range(burst):
                    step(index % len(lines))
            for line in range(len(coming)):
                while step(line):
                    pass
        finally:
            for process in began:
                process.end()
    for process in began:
        assert process.operations <= MOST
        assert len(process.computed) == len(set(process.computed)), "no process does a part twice"
    assert set(witness.seen) == {*NAMES, "manifest"}
    assert began[-1].status == "reused", "one more process finds everything done"
    return began


def in_vain(began: list[Process]) -> int:
    """How many parts were computed more often than once, by all processes together."""
    return sum(len(process.computed) for process in began) - len(PARTS)


def crashes(began: list[Process]) -> int:
    return sum(process.crashed for process in began)


# What must hold, `play` apart -----------------------------------------------------------------------------------------

ORDERS = st.permutations(range(len(PARTS))).map(tuple)
CRASHING = st.builds(Life, ORDERS, st.tuples(st.integers(0, MOST - 5), st.booleans()))
LINES = st.builds(lambda lives, order: [*lives, Life(order)], st.lists(CRASHING, max_size=2), ORDERS)
"""Up to two processes that crash, if they come so far, and one that does not."""


@settings(max_examples=150, deadline=None)
@given(LINES, LINES, st.lists(st.integers(0, 6), min_size=10, max_size=30))
def test_two_lines_at_once(one: list[Life], other: list[Life], bursts: list[int]):
    began = play([one, other], bursts)
    assert in_vain(began) <= crashes(began) + len(PARTS), "but for crashes, a part is done by both lines at most"


@settings(max_examples=30, deadline=None)
@given(LINES)
def test_one_line_alone(line: list[Life]):
    began = play([line], [])
    assert in_vain(began) <= crashes(began), "a crash costs one part at most"


@pytest.mark.parametrize("effective", [False, True])
def test_a_crash_at_every_operation(effective: bool):
    undisturbed = play([[Life()]], [])[0]
    assert (in_vain([undisturbed]), undisturbed.status) == (0, "ran")
    for number in range(undisturbed.operations):
        began = play([[Life(crash=(number, effective)), Life()]], [])
        assert (crashes(began), in_vain(began) <= 1) == (1, True)


def test_two_runs_in_step_do_everything_twice():
    """The processes do run at once: this is what drawn orders are there to avoid."""
    began = play([[Life()], [Life()]], [1] * 2 * MOST)
    assert [process.status for process in began] == ["ran", "ran", "reused"]
    assert in_vain(began) == len(PARTS)


def test_every_operation_of_a_store_waits_for_its_turn():
    public = {name for name, member in vars(Store).items() if callable(member) and not name.startswith("_")}
    assert public == {*OPERATIONS, *LEFT_OUT}
