"""The executor on a Dask cluster: one that is started for the run, or one whose address is given.

Workers may join and leave while it runs. A scheduler that is lost is waited for; what was submitted to it is submitted
again, and one that stays away ends the run with an error.
"""

import importlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.execution import Execution
from pipeline.core.extras import require
from pipeline.core.retries import IO_ERRORS, Item, after, pause_after, retry_or_raise
from pipeline.core.store import GO_ON, first_line, refuse_secrets

log = logging.getLogger("stegoflow")
CONNECT = 20
"""Seconds that a Dask scheduler has to answer, and to come back."""
POLL = 0.02
"""Seconds between two looks at what Dask has finished."""
GATHER = 5.0
"""Seconds that a result, which is small, has to come from its worker."""
SAY_EVERY = 30.0
"""Seconds between two log lines about workers that are not there."""


class Dask:
    """Runs items on the cluster that `execution` names."""

    def __init__(self, execution: Execution) -> None:
        require("distributed", "execution.executor=dask")
        refuse_secrets(execution.dask_address or "")
        self.execution = execution
        self.where = execution.dask_address or execution.dask_cluster
        self.retries = execution.retries
        self.client: Any = None
        self.cluster: Any = None
        self.asked = 0.0
        self.seen = "none was seen"
        """Which workers there were when last asked."""

    @property
    def workers(self) -> int:
        return max(1, self._client().scheduler_info(n_workers=0).get("n_workers", 0))

    def run(self, function: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        from distributed import as_completed

        if self.client is not None and self.client.status != "running":  # its scheduler was lost since the last stage
            self.close()
        client = self._client()
        queue = iter(items)
        tries: Counter[Any] = Counter()
        running: dict[Any, Item] = {}
        losses = 0
        connection, finished = client.scheduler_comm, as_completed()

        def submit(item: Item, pause: float = 0.0) -> None:
            future = client.submit(partial(after, pause, function), item, pure=False)
            running[future] = item
            finished.add(future)

        while True:
            room = 4 * self.workers + 4 - len(running)  # workers may come and go
            if client.scheduler_comm is not connection:  # all that was submitted is forgotten
                losses += 1
                self._reconnect(losses)
                connection, finished = client.scheduler_comm, as_completed()
                lost = list(running.values())
                running.clear()
                for item in lost:
                    submit(item)
            for item in islice(queue, max(0, room)):
                submit(item)
            if not running:
                return
            while client.scheduler_comm is connection and not finished.has_ready():
                time.sleep(POLL)
                self._look_for_workers(len(running))
            if client.scheduler_comm is not connection:
                continue
            future = next(finished)
            outcome = self._outcome(future)
            if client.scheduler_comm is not connection:
                continue
            if outcome is None:
                finished.add(future)
                continue
            result, error = outcome
            item = running.pop(future)
            if error is None:
                yield item, result
                continue
            tries[item] += 1
            if isinstance(error, IO_ERRORS) or type(error).__name__ == "KilledWorker":
                retry_or_raise(item, tries[item], self.retries, error)
                submit(item, pause_after(tries[item]) if type(error).__name__ != "KilledWorker" else 0.0)
            else:
                raise error

    def _outcome(self, future: Any) -> tuple[Any, BaseException | None] | None:
        """The result of a future that has ended, or why there is none; None where it was lost with its worker, and Dask
        computes it again."""
        from distributed.client import CancelledError

        if future.status == "error":
            return None, future.exception()
        try:
            return future.result(timeout=GATHER), None
        except TimeoutError:
            return None if future.status != "error" else (None, future.exception())
        except (OSError, CancelledError):
            return None, OSError(f"the Dask scheduler at {self.where} lost the result")

    def _reconnect(self, losses: int) -> None:
        """Wait while the client looks for its scheduler. StageError where it does not come back, or is lost more often
        than a part may be tried again."""
        log.warning("the connection to the Dask scheduler at %s was lost", self.where)
        while losses <= self.retries and self.client.status == "connecting":
            time.sleep(POLL)
        if losses > self.retries or self.client.status != "running":
            raise StageError(
                f"the Dask scheduler at {self.where} is gone",
                next=("start it again, or add ", Set("execution.executor", "processes"), f"; {GO_ON}"),
            )

    def _look_for_workers(self, waiting: int) -> None:
        """Log, each SAY_EVERY seconds, that no worker is left; how many parts wait for one."""
        now = time.monotonic()
        if now - self.asked < SAY_EVERY:
            return
        self.asked = now
        workers = self.client.scheduler_info(n_workers=-1).get("workers", {})
        if workers:
            names = sorted(str(worker.get("name", address)) for address, worker in workers.items())
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            self.seen = f"{', '.join(names[:3])}{more} at {time.strftime('%H:%M:%S')}"
        else:
            log.warning(
                "no Dask worker is left at %s: %d parts wait for one to join (last seen: %s)",
                self.where, waiting, self.seen,
            )  # fmt: skip

    def _wait_for_a_worker(self) -> None:
        """Wait until the first worker has joined; TimeoutError after `execution.wait_for_workers` seconds."""
        limit, started = self.execution.wait_for_workers, time.monotonic()
        while True:
            waited = time.monotonic() - started
            left = SAY_EVERY if limit is None else min(SAY_EVERY, limit - waited)
            if left <= 0:
                raise TimeoutError(f"no worker joined for {limit:g} seconds (execution.wait_for_workers)")
            try:
                return self.client.wait_for_workers(1, timeout=left)
            except TimeoutError:
                if self.client.status != "running":
                    raise OSError("its scheduler is gone") from None
                log.warning("waiting for a Dask worker at %s, for %.0f s by now", self.where, waited + left)

    def _client(self) -> Any:
        if self.client is None:
            from distributed import Client, LocalCluster

            execution = self.execution
            try:
                if execution.dask_address:
                    self.client = Client(execution.dask_address, timeout=CONNECT)
                else:
                    module, _, name = execution.dask_cluster.rpartition(".")
                    kind = getattr(importlib.import_module(module), name)  # noqa: TID251 (docs/security.md)
                    options = dict(execution.dask_options)
                    if isinstance(kind, type) and issubclass(kind, LocalCluster):  # its own dashboard is for everyone
                        options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", **options}  # any free port
                    if kind is LocalCluster:
                        options = {"n_workers": execution.worker_count(), "threads_per_worker": 1, **options}
                    self.cluster = kind(**options)
                    self.client = Client(self.cluster)
                self._wait_for_a_worker()
            except (OSError, ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
                reason = first_line(error)
                for text in _texts(execution.dask_options):
                    reason = reason.replace(text, "…")
                raise ConfigError(
                    f"no Dask cluster at {self.where}: {reason}",
                    next=("start it, or ", Set("execution.executor", "processes")),
                ) from None  # the error itself may quote an option
        return self.client

    def close(self) -> None:
        for opened in (self.client, self.cluster):
            if opened is not None:
                opened.close()
        self.client = self.cluster = None


def _texts(options: Any) -> list[str]:
    """Every text among the values of Dask's options, at any depth: each may be a password."""
    values = options.values() if isinstance(options, dict) else options if isinstance(options, list) else ()
    found = [options] if isinstance(options, str) and options else []
    return found + [text for value in values for text in _texts(value)]
