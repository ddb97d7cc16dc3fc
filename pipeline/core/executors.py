"""Where parts run: in this process, in worker processes, or on Dask. An executor knows nothing of the stages.

`open_executor(execution)` gives one object with one method, `run(function, items)`, which yields `(item, result)` as
the items finish, in any order. A run opens one executor and every stage submits to it. Worker processes start once they
save more time than they take to start, so a small run starts none. Worker loss and I/O errors are retried; anything
else, and what still fails after the retries, is raised.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Protocol

from pipeline.core.dask import Dask
from pipeline.core.execution import Execution, cores
from pipeline.core.retries import IO_ERRORS, Item, after, pause_after, retry_or_raise

log = logging.getLogger("stegoflow")


class Items(Protocol):
    """What is run over: it may be made one by one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class Executor(Protocol):
    """Runs a picklable function over items."""

    workers: int

    def run(self, function: Callable[[Item], Any], items: Items) -> Iterator[tuple[Item, Any]]: ...


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

    def run(self, function: Callable[[Item], Any], items: Items) -> Iterator[tuple[Item, Any]]:
        for item in items:
            yield item, do(function, item, self.retries)

    def close(self) -> None:
        pass


def do(function: Callable[[Item], Any], item: Item, retries: int) -> Any:
    """The result of an item, computed in this process and tried again after I/O errors."""
    tries = 0
    while True:
        try:
            return function(item)
        except IO_ERRORS as error:
            tries += 1
            retry_or_raise(item, tries, retries, error)
            time.sleep(pause_after(tries))


START_SECONDS = 10.0
"""What worker processes cost before their first item: each imports torch. Items that take less are done in this
process. 0: workers do everything."""


class _Processes:
    def __init__(self, execution: Execution) -> None:
        self.workers = execution.worker_count()
        self.retries = execution.retries
        self.pool: Any = None

    def run(self, function: Callable[[Item], Any], items: Items) -> Iterator[tuple[Item, Any]]:
        queue = iter(items)
        if self.pool is None:
            yield from self._here(function, queue, len(items))
        yield from self._on_workers(function, queue)

    def _here(self, function: Callable[[Item], Any], queue: Iterator[Item], left: int) -> Iterator[tuple[Item, Any]]:
        """Do items in this process for as long as workers would not save the time that they take to start."""
        loading, saved = START_SECONDS, 0.0  # the first item also loads what the others find loaded
        while left and saved < START_SECONDS:
            start, item = time.monotonic(), next(queue)
            result = do(function, item, self.retries)
            left -= 1
            each = max(0.0, time.monotonic() - start - loading)
            loading, saved = 0.0, each * left * (1 - 1 / self.workers)
            yield item, result

    def _on_workers(self, function: Callable[[Item], Any], queue: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool

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
