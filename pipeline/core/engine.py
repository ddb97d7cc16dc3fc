"""Stages, nodes (a stage with its params, inputs and roots) and `ensure`, which makes the artifact of a node exist.

Knows nothing of images: a stage is a name, a version, what it reads, and a function that fills a folder.
"""

import logging
import random
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pipeline.core.artifact import PART_NAME, Artifact, record, shown
from pipeline.core.environment import environment
from pipeline.core.errors import StageError
from pipeline.core.execution import Execution
from pipeline.core.executors import Executor
from pipeline.core.fingerprint import digest, fingerprint
from pipeline.core.gc import wait_for_removal
from pipeline.core.logs import STAGE
from pipeline.core.params import Params, hashed
from pipeline.core.retries import IO_ERRORS
from pipeline.core.store import GO_ON, Store

log = logging.getLogger("stegoflow")
Progress = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, unit); total 0 where a stage begins, which cannot say yet how much it has to do."""


def silent(stage: str, done: int, total: int, unit: str) -> None:
    """The progress callback that shows nothing."""


class Part(NamedTuple):
    """Items start..stop-1: the unit of work, of resume and of a Dask task."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.start:08d}-{self.stop:08d}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Parts:
    """Some of the parts of `size` that `total` items are cut into, made one by one: there may be millions."""

    numbers: "array[int]"
    size: int
    total: int

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Part]:
        return map(self.part, self.numbers)

    def part(self, number: int) -> Part:
        return Part(number * self.size, min((number + 1) * self.size, self.total))


class Root(NamedTuple):
    """Something from outside the store that stages read: a dataset's images, say."""

    location: str
    """Where it lies now: a folder or URL. Never hashed."""
    digest: str
    """Of its content."""


@dataclass(frozen=True)
class Job:
    """What a stage's functions get, here or on a worker: picklable, no state."""

    out: Artifact
    params: Any
    """The stage's resolved Params."""
    inputs: dict[str, Artifact]
    """By the name of the stage that made them."""
    roots: dict[str, Root]
    execution: Execution


@dataclass
class Work:
    """The side of a stage that stays in the run's process: parts, progress, what was counted."""

    job: Job
    executor: Executor
    progress: Progress
    parts_run: int = 0
    parts_total: int = 0
    parts_repeated: int = 0
    """Of those run, the ones that another run had finished by then."""

    def parts(self, function: Callable[[Job, Part], dict[str, Any]], total: int, size: int, unit: str) -> None:
        """Run `function(job, part)` on every part of `total` items that has no marker yet, in random order.

        The function writes the part's data and returns the facts for its marker. Two runs that share an artifact walk
        its parts in different orders and look at the marker first, so neither waits for the other.
        """
        out = self.job.out
        missing = missing_parts(out, total, size)
        random.SystemRandom().shuffle(missing.numbers)
        finished = total - sum(part.stop - part.start for part in missing)
        self.parts_total += -(-total // size)
        self.progress(out.stage, finished, total, unit)
        for part, (ran, first) in self.executor.run(partial(_do_part, function, self.job), missing):
            self.count(ran, first)
            finished += part.stop - part.start
            self.progress(out.stage, finished, total, unit)

    def count(self, ran: bool, first: bool) -> None:
        """Count a part: whether it was computed here, and whether nobody else had finished it by then."""
        self.parts_run += ran
        self.parts_repeated += ran and not first

    def tick(self, done: int, total: int, unit: str) -> None:
        """Show the progress of work that is not cut into parts."""
        self.progress(self.job.out.stage, done, total, unit)


def missing_parts(out: Artifact, total: int, size: int) -> Parts:
    """The parts that have no marker yet."""
    done = bytearray(-(-total // size))
    parts = Parts(array("q"), size, total)
    for name in filter(PART_NAME.fullmatch, out.each_marker_name()):
        number = int(name.partition("-")[0]) // size
        if number < len(done) and parts.part(number).name == name:
            done[number] = 1
    parts.numbers.extend(number for number, there in enumerate(done) if not there)
    return parts


def _do_part(function: Callable[[Job, Part], dict[str, Any]], job: Job, part: Part) -> tuple[bool, bool]:
    """Compute a part unless it is marked as done: whether it was computed, and whether its marker is this one's."""
    if job.out.store.exists(f"{job.out.root}/parts/{part.name}.json"):
        return False, False
    start, cpu = time.monotonic(), time.process_time()
    facts = function(job, part)
    spent = {"seconds": round(time.monotonic() - start, 3), "cpu_seconds": round(time.process_time() - cpu, 3)}
    first = job.out.finish_part(part.name, {**facts, **spent})
    return True, first


@dataclass(frozen=True)
class Stage:
    """A stage's entry in the registry."""

    name: str
    version: int
    """Bumped by hand when the values change for the same params and inputs; renames every artifact downstream."""
    encoding: int
    """Bumped when the files on disk change."""
    inputs: tuple[str, ...]
    """The stages whose artifacts are read; a trailing `?` marks one that may be absent. A stage whose params lack a
    value that another one suggests reads that one too."""
    params: type[Params]
    """Of a stage whose params are a discriminated union: what its models have in common."""
    compute: Callable[[Job, Work], dict[str, Any]]
    """Fills the artifact's folder and returns facts for its manifest (`items` at least)."""
    roots: tuple[str, ...] = ()
    """The roots that are read, written as `inputs` are. A stage that lacks an input or a root is left out of a run."""
    optional: bool = False
    """Left out of a run, which warns, where a package that its params ask for is not installed."""


@dataclass(frozen=True)
class Node:
    """One artifact that a config means: a stage with its params resolved, its inputs and roots named."""

    stage: Stage
    params: Params
    inputs: dict[str, str]
    """{stage: fingerprint}."""
    roots: dict[str, Root] = field(default_factory=dict)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(**self.facts()))

    def facts(self) -> dict[str, Any]:
        """What decides the artifact's values, JSON-ready: the arguments of `fingerprint`."""
        return {
            "stage": self.stage.name,
            "version": self.stage.version,
            "encoding": self.stage.encoding,
            "params": hashed(self.params),
            "inputs": self.inputs,
            "roots": {name: root.digest for name, root in self.roots.items()},
        }

    @property
    def recipe(self) -> str:
        """Hash of what is done, apart from what it is done to."""
        return digest([self.stage.name, self.stage.version, self.stage.encoding, hashed(self.params)])

    def artifact(self, store: Store) -> Artifact:
        return Artifact(store, self.stage.name, self.fingerprint)


@dataclass(frozen=True)
class Outcome:
    """What `ensure` did for one stage."""

    stage: str
    fingerprint: str
    status: str
    """`ran` or `reused`."""
    seconds: float
    parts_run: int
    parts_total: int
    parts_repeated: int = 0
    """Parts that another run finished while this one computed them too."""


def ensure(node: Node, store: Store, *, execution: Execution, executor: Executor, progress: Progress) -> Outcome:
    """Make a node's artifact exist: reuse it, or run its stage from wherever an earlier run stopped.

    Safe to call from any number of processes at once: each does missing parts, one manifest wins.

    StageError where the store cannot be read or written, DamageError where something in it is not what was written.
    """
    current = STAGE.set(node.stage.name)
    try:
        return _ensure(node, store, execution, executor, progress)
    except IO_ERRORS as error:
        raise StageError(
            f"{type(error).__name__}: {error}",
            next=GO_ON,
        ) from error
    finally:
        STAGE.reset(current)


def _ensure(node: Node, store: Store, execution: Execution, executor: Executor, progress: Progress) -> Outcome:
    started = time.monotonic()
    out = node.artifact(store)
    sources = {stage: Artifact(store, stage, name) for stage, name in node.inputs.items()}
    wait_for_removal([out, *sources.values()])
    if out.exists:
        return Outcome(node.stage.name, node.fingerprint, "reused", 0.0, 0, out.manifest["parts"])
    spec = {**node.facts(), "recipe": node.recipe}
    store.create(f"{out.root}/spec.json", record("spec", spec))
    work = Work(Job(out, node.params, sources, node.roots, execution), executor, progress)
    progress(node.stage.name, 0, 0, "")
    facts = node.stage.compute(work.job, work)
    seconds = round(time.monotonic() - started, 2)
    manifest = {
        **spec,
        "fingerprint": node.fingerprint,
        **facts,
        "files": {name: file for name, file in out.files.items() if not PART_NAME.search(name)},
        "parts": work.parts_total,
        "seconds": seconds,
        "environment": environment(),
    }
    if not store.create(f"{out.root}/manifest.json", record("manifest", manifest)):
        log.info("%s %s: another run finished it first", node.stage.name, shown(node.fingerprint))
    if work.parts_repeated:
        log.info("%s: %d parts were also done by another run", node.stage.name, work.parts_repeated)
    counts = work.parts_run, work.parts_total, work.parts_repeated
    return Outcome(node.stage.name, node.fingerprint, "ran", seconds, *counts)
