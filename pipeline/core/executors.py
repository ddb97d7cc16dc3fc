"""Where parts run: in this process, in worker processes, or on Dask. An executor knows nothing of the stages.

`open_executor(execution)` gives one object with one method, `run(function, items)`, which yields `(item, result)` as
the items finish, in any order. A run opens one executor and every stage submits to it; its workers start with the
first item, so a run that reuses everything starts none. Worker loss and I/O errors are retried; anything else, and
what still fails after the retries, is raised.
"""

import importlib
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

from pipeline.core.errors import ConfigError, StageError
from pipeline.core.params import Params
from pipeline.core.store import first_line, refuse_secrets

log = logging.getLogger("stegoflow")
Item = TypeVar("Item")
IO_ERRORS = (OSError, StoreFailure)
"""What trying again may mend: a store's StoreError, and what obstore raises inside of Zarr, which is no OSError."""
PAUSES = (1.0, 5.0, 25.0)
"""Seconds before the first, second, further tries after an I/O error: a store may be away for a while."""
CONNECT = 20
"""Seconds that a Dask scheduler has to answer."""


class Execution(Params):
    """How a run is carried out. None of these fields enters a fingerprint."""

    device: str = "auto"
    """`auto` (CUDA if torch sees it, else the CPU) or a torch device such as `cpu` or `cuda:1`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of backbone and head: `auto` is bf16 where the hardware multiplies it fast, else fp32."""
    batch_size: int = Field(16, ge=1)
    """Views per call of the backbone."""
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
    kinds: dict[str, Callable[[Execution], Any]] = {"serial": _Serial, "processes": _Processes, "dask": _Dask}
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
                    _retry_or_raise(item, attempt + 1, self.retries, error)
                    time.sleep(_pause(attempt + 1))
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
                running[self._submit(partial(_after, pause, function), item)] = item, self.pool
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
                    _retry_or_raise(item, tries[item], self.retries, error)
                    again.append((item, _pause(tries[item]) if isinstance(error, IO_ERRORS) else 0.0))
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


class _Dask:
    def __init__(self, execution: Execution) -> None:
        refuse_secrets(execution.dask_address or "")
        self.execution = execution
        self.retries = execution.retries
        self.client: Any = None
        self.cluster: Any = None

    @property
    def workers(self) -> int:
        return max(1, len(self._client().scheduler_info()["workers"]))

    def run(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        from distributed import as_completed

        client = self._client()
        queue = iter(items)
        tries: Counter[Any] = Counter()
        running: dict[Any, Item] = {}
        finished = as_completed()

        def submit(item: Item, pause: float = 0.0) -> None:
            future = client.submit(partial(_after, pause, function), item, pure=False)
            running[future] = item
            finished.add(future)

        while True:
            for item in islice(queue, max(0, 4 * self.workers + 4 - len(running))):  # workers may come and go
                submit(item)
            if not running:
                return
            future = next(finished)
            item = running.pop(future)
            if future.status == "finished":
                yield item, future.result()
                continue
            error = future.exception() if future.status == "error" else OSError("the scheduler lost the task")
            tries[item] += 1
            if isinstance(error, IO_ERRORS) or type(error).__name__ == "KilledWorker":
                _retry_or_raise(item, tries[item], self.retries, error)
                submit(item, _pause(tries[item]) if type(error).__name__ != "KilledWorker" else 0.0)
            else:
                raise error

    def _client(self) -> Any:
        if self.client is None:
            from distributed import Client, LocalCluster

            execution = self.execution
            try:
                if execution.dask_address:
                    self.client = Client(execution.dask_address, timeout=CONNECT)
                else:
                    module, _, name = execution.dask_cluster.rpartition(".")
                    kind = getattr(importlib.import_module(module), name)
                    options = dict(execution.dask_options)
                    if isinstance(kind, type) and issubclass(kind, LocalCluster):  # its own dashboard is for everyone
                        options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", **options}  # any free port
                    if kind is LocalCluster:
                        options = {"n_workers": execution.worker_count(), "threads_per_worker": 1, **options}
                    self.cluster = kind(**options)
                    self.client = Client(self.cluster)
                self.client.wait_for_workers(1, timeout=300)
            except (OSError, ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
                where, reason = execution.dask_address or execution.dask_cluster, first_line(error)
                for text in _texts(execution.dask_options):
                    reason = reason.replace(text, "…")
                raise ConfigError(
                    f"no Dask cluster at {where}: {reason}",
                    next="start it, or set execution.executor=processes",
                ) from None  # the error itself may quote an option
        return self.client

    def close(self) -> None:
        for opened in (self.client, self.cluster):
            if opened is not None:
                opened.close()


def _after(pause: float, function: Callable[[Item], Any], item: Item) -> Any:
    time.sleep(pause)
    return function(item)


def _pause(tries: int) -> float:
    return PAUSES[min(tries, len(PAUSES)) - 1]


def _texts(options: Any) -> list[str]:
    """Every text among the values of Dask's options, at any depth: each may be a password."""
    values = options.values() if isinstance(options, dict) else options if isinstance(options, list) else ()
    found = [options] if isinstance(options, str) and options else []
    return found + [text for value in values for text in _texts(value)]


def _retry_or_raise(item: Any, tries: int, retries: int, error: BaseException) -> None:
    what = f"{type(error).__name__}: {first_line(error)}"
    if tries > retries:
        raise StageError(
            f"part {item} failed {tries} times: {what}",
            next="mend the cause and run the same command again: finished parts are kept",
        ) from error
    log.warning("part %s: %s; trying again (%d of %d)", item, what, tries, retries)
