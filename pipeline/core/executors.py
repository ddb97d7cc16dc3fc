"""Where parts run: in this process, in worker processes, or on Dask. An executor knows nothing of the stages.

`open_executor(execution)` gives one object with one method, `run(function, items)`, which yields `(item, result)` as
the items finish, in any order. A run opens one executor and every stage submits to it; its workers start with the
first item, so a run that reuses everything starts none. Worker loss and I/O errors are retried; anything else, and
what still fails after the retries, is raised.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Protocol

from pipeline.core.dask import Dask
from pipeline.core.execution import Execution, cores
from pipeline.core.retries import IO_ERRORS, Item, after, pause_after, retry_or_raise

log = logging.getLogger("stegoflow")


class Executor(Protocol):
    """Runs a picklable function over items."""

    workers: int

    def run(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]: ...


@contextmanager
def open_executor(execution: Execution) -> Iterator[Executor]:
    """The executor that `execution` names, closed at the end of the block (its workers stopped)."""
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
