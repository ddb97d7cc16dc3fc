"""What surrounds the stages of a flow run: its end when its worker ends, its turn at the store, its tags."""

import hashlib
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.states import Crashed

from pipeline.core.errors import StageError

Log = logging.Logger | logging.LoggerAdapter[Any]
TRIES = 3
"""How often a flow run that crashes is run at most."""
WORKER_EVERY = 2.0
"""Seconds between two looks at whether the worker is alive."""
GRACE = 10.0
"""Seconds that a flow run has to end in order once its worker is gone."""
LEASE = 60.0
"""Seconds for which a run that was killed still holds its turn at a store."""


def end_with_worker(log: Log) -> None:
    """End this process when the worker that started it is gone, as by SIGTERM: nothing would stop or report it then.
    Finished parts are kept."""
    if "PREFECT__FLOW_RUN_ID" not in os.environ:  # called from Python: nobody's child
        return
    run, worker = flow_run.id, os.getppid()

    def watch() -> None:
        while os.getppid() == worker and _is_prefect(worker):
            time.sleep(WORKER_EVERY)
        with open(os.devnull, "w") as nowhere:
            for stream in (1, 2):  # the worker read these: whatever prints to them would end there
                os.dup2(nowhere.fileno(), stream)
        log.error("the worker that started this run is gone: the run ends; finished parts are kept")
        APILogHandler().flush()  # for 5 seconds at most: lines that wait to be sent end with the process
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        with suppress(Exception), get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Crashed(message="its worker was killed"))
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="worker's watch").start()


def _is_prefect(process: int) -> bool:
    """Whether a process is one of Prefect's; where this cannot be seen, as on macOS, it is believed."""
    try:
        return b"prefect" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()


def refuse_more_tries() -> None:
    """StageError where this flow run has crashed as often as it may."""
    if flow_run.run_count > TRIES:
        raise StageError(
            f"this run crashed {TRIES} times and is not tried again",
            next="mend the cause and run the same config as a new run: finished parts are kept",
        )


@contextmanager
def turn_at(store: str, log: Log) -> Iterator[None]:
    """Wait until fewer than the limit of flow runs work in a store; the limit, 1 at first, is Prefect's to change:
    `prefect gcl update NAME --limit 2`. Two runs in one store do no harm, they share the machine's memory."""
    name = limit_name(store)
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
            if limit.active_slots >= limit.limit:
                log.info("waiting for another run in this store (limit %s: %d at a time)", name, limit.limit)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    with concurrency(name, lease_duration=LEASE, raise_on_lease_renewal_failure=False):
        yield


def limit_name(store: str) -> str:
    """The concurrency limit of a store, by its URL without credentials: a name that Prefect takes."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", store).strip("-")[-60:]
    return f"stegoflow-{readable}-{hashlib.sha256(store.encode()).hexdigest()[:8]}"


def tag(tags: dict[str, str], log: Log) -> None:
    """Add tags to the current flow run, as `key:value`. A server that is away for a moment does not end the run."""
    try:
        with get_client(sync_client=True) as client:
            known = client.read_flow_run(flow_run.id).tags
            client.update_flow_run(flow_run.id, tags=[*known, *(f"{key}:{value}" for key, value in tags.items())])
    except Exception as error:
        log.warning("the run is not tagged: %s", error)
