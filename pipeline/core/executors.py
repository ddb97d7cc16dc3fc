"""Where parts run: in this process, in worker processes, or on Dask. An executor knows nothing of the stages.

`open_executor(execution)` gives one object with one method, `run(function, items)`, which yields `(item, result)` as
the items finish, in any order. A run opens one executor and every stage submits to it; its workers start with the
first item, so a run that reuses everything starts none. Worker loss and I/O errors are retried; anything else, and
what still fails after the retries, is raised.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

from obstore.exceptions import BaseError as StoreFailure
from pydantic import Field

from pipeline.core.errors import StageError
from pipeline.core.params import Params
from pipeline.core.store import first_line

log = logging.getLogger("stegoflow")
Item = TypeVar("Item")
IO_ERRORS = (OSError, StoreFailure)
"""What trying again may mend: a store's StoreError, and what obstore raises inside of Zarr, which is no OSError."""
PAUSES = (1.0, 5.0, 25.0)
"""Seconds before the first, second, further tries after an I/O error: a store may be away for a while."""


class Execution(Params):
    """How a run is carried out. None of these fields enters a fingerprint."""

    device: str = "auto"
    """`auto` (CUDA if torch sees it, else the CPU) or a torch device such as `cpu` or `cuda:1`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of backbone and head: `auto` is bf16 where the hardware multiplies it fast, else fp32."""
    batch_size: int = Field(8, ge=1)
    """Views per call of the backbone. 8 stay in the caches of a CPU (6 % faster than 16, measured in bf16)."""
    executor: Literal["serial", "processes", "dask"] = "processes"
    """Where parts run."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; by default one per core."""
    dask_address: str | None = None
    """A running scheduler, such as `tcp://scheduler:8786`; without it a cluster is started for the run."""
    dask_cluster: str = "distributed.LocalCluster"
    """The class of cluster to start, such as `dask_jobqueue.SLURMCluster` or `dask_cuda.LocalCUDACluster`."""
    dask_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of that class."""
    retries: int = Field(3, ge=0)
    """How often a part is tried again after an I/O error (1, 5, then 25 seconds later) or the loss of its worker."""
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """Share of images that may be undecodable before a stage gives up."""

    def worker_count(self) -> int:
        """The number of worker processes that this run will use."""
        return max(1, self.workers or cores())


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Executor(Protocol):
    """Runs a picklable function over items."""

    workers: int

    def run(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]: ...


@contextmanager
def open_executor(execution: Execution) -> Iterator[Executor]:
    """The executor that `execution` names, closed at the end of the block (its workers stopped)."""
    from pipeline.core.dask import Dask  # which imports from here

    kinds: dict[str, Callable[[Execution], Any]] = {"serial": _Serial, "processes": _Processes, "dask": Dask}
    executor = kinds[execution.executor](execution)
    try:
        yield executor
    finally:
        executor.close()


class _Serial:
    def __init__(self, execution: Execution) -> None:
        self.workers = 1
        self.retries = execution.retries

    def run(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        for item in items:
            for attempt in range(self.retries + 1):
                try:
                    result = function(item)
                except IO_ERRORS as error:
                    retry_or_raise(item, attempt + 1, self.retries, error)
                    time.sleep(pause_after(attempt + 1))
                else:
                    yield item, result
                    break

    def close(self) -> None:
        pass


class _Processes:
    def __init__(self, execution: Execution) -> None:
        self.workers = execution.worker_count()
        self.retries = execution.retries
        self.pool: Any = None

    def run(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool

        queue = iter(items)
        tries: Counter[Any] = Counter()
        running: dict[Any, tuple[Item, Any]] = {}
        again: list[tuple[Item, float]] = []
        while True:
            room = 2 * self.workers - len(running)
            fresh = [again.pop() for _ in range(min(room, len(again)))]
            fresh += [(item, 0.0) for item in islice(queue, room - len(fresh))]
            for item, pause in fresh:
                running[self._submit(partial(after, pause, function), item)] = item, self.pool
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                item, pool = running.pop(future)
                try:
                    result = future.result()
                except (*IO_ERRORS, BrokenProcessPool) as error:
                    if isinstance(error, BrokenProcessPool) and pool is self.pool:
                        self.close()  # all items of one pool fail with it; the pool after it is sound
                    tries[item] += 1
                    retry_or_raise(item, tries[item], self.retries, error)
                    again.append((item, pause_after(tries[item]) if isinstance(error, IO_ERRORS) else 0.0))
                else:
                    yield item, result

    def _submit(self, function: Callable[[Item], Any], item: Item) -> Any:
        from concurrent.futures.process import BrokenProcessPool

        try:
            return self._pool().submit(function, item)
        except BrokenProcessPool:  # a worker was lost since the last look
            self.close()
            return self._pool().submit(function, item)

    def _pool(self) -> Any:
        if self.pool is None:
            from loky import ProcessPoolExecutor

            threads = str(max(1, cores() // self.workers))
            limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
            self.pool = ProcessPoolExecutor(max_workers=self.workers, env=limits)
        return self.pool

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, kill_workers=True)
            self.pool = None


def after(pause: float, function: Callable[[Item], Any], item: Item) -> Any:
    """Do an item after `pause` seconds, on the worker."""
    time.sleep(pause)
    return function(item)


def pause_after(tries: int) -> float:
    """Seconds to wait before trying again what has failed `tries` times."""
    return PAUSES[min(tries, len(PAUSES)) - 1]


def retry_or_raise(item: Any, tries: int, retries: int, error: BaseException) -> None:
    """Log that an item is tried again; StageError where it has failed too often."""
    what = f"{type(error).__name__}: {first_line(error)}"
    if tries > retries:
        raise StageError(
            f"part {item} failed {tries} times: {what}",
            next="mend the cause and run the same command again: finished parts are kept",
        ) from error
    log.warning("part %s: %s; trying again (%d of %d)", item, what, tries, retries)
