"""What runs in a forked child: a run that counts its work and may be killed, starved or cut off from its store."""

import errno
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import GenericError

from pipeline.api import run
from pipeline.config import validate
from pipeline.core import engine, executors, gc, retries
from pipeline.core import runs as records
from pipeline.core.store import Store
from pipeline.stages import head


def run_config(command: dict[str, Any]) -> dict[str, Any]:
    """Run a config (data as in YAML) and return what `stegoflow run --json` prints."""
    _prepare(command)
    return run(validate(command["config"]), stage=command.get("stage")).summary()


def collect(command: dict[str, Any]) -> dict[str, Any]:
    """Collect garbage without any grace, again and again, until a file appears."""
    store, rounds, gone = Store(command["store"]), 0, 0
    while not Path(command["until"]).exists():
        gone += len(gc.collect(store, 0.0, delete=True))
        rounds += 1
    return {"rounds": rounds, "removed": gone}


def run_and_forget(command: dict[str, Any]) -> dict[str, Any]:
    """Run configs one after another, forgetting each run at its end, until a file appears: what they share is wanted,
    unwanted, collected and wanted again all the time."""
    _prepare(command)
    done = 0
    while not Path(command["until"]).exists():
        config = validate(command["configs"][done % len(command["configs"])])
        result = run(config)
        records.forget(Store(config.store), result.id)
        done += 1
    return {"runs": done}


ACTIONS = {"run": run_config, "collect": collect, "run_and_forget": run_and_forget}


def _prepare(command: dict[str, Any]) -> None:
    executors.START_SECONDS = 0.0
    retries.PAUSES = tuple(command.get("pauses", (0.1, 0.5, 1.0)))
    head.CHECKPOINT = 10
    if "counted" in command:
        _count_parts(command["counted"])
    if "kill_at" in command:
        _on_write(command["kill_at"], command["how"])
    if "away" in command:
        _cut_off(*command["away"])
    if "largest_file" in command:  # Python ignores SIGXFSZ, so that a write fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (command["largest_file"],) * 2)
    if "go" in command:  # all children of one test start together
        Path(command["go"] + f".{os.getpid()}").touch()
        while not Path(command["go"]).exists():
            time.sleep(0.002)


def _count_parts(path: str) -> None:
    """Append a line to a file for every part that was computed, before its marker is written."""
    finish = engine.Artifact.finish_part

    def counted(self: Any, part: str, facts: dict[str, Any]) -> bool:
        with Path(path).open("a") as file:
            file.write(f"{self.stage} {part}\n")
        return finish(self, part, facts)

    engine.Artifact.finish_part = counted  # type: ignore[method-assign]


def _on_write(number: int, how: str) -> None:
    """SIGKILL at the write of that number: `before` it, `after` it, or `inside`: with half of it in the file that a
    local store stages a write in."""
    seen = 0
    put, put_async = obstore.put, obstore.put_async

    def due() -> bool:
        nonlocal seen
        seen += 1
        return seen == number

    def die(store: Any, path: str, data: Any) -> None:
        if how == "inside" and isinstance(getattr(store, "prefix", None), Path):  # a local store
            staged = Path(store.prefix, f"{path}#1")
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(bytes(memoryview(data))[: len(memoryview(data)) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def killing_put(store: Any, path: str, data: Any, **more: Any) -> Any:
        now = due()
        if now and how != "after":
            die(store, path, data)
        try:
            return put(store, path, data, **more)
        finally:  # a create that finds an object is a write as well
            if now:
                os.kill(os.getpid(), signal.SIGKILL)

    async def killing_put_async(store: Any, path: str, data: Any, **more: Any) -> Any:
        now = due()
        if now and how != "after":
            die(store, path, data)
        try:
            return await put_async(store, path, data, **more)
        finally:
            if now:
                os.kill(os.getpid(), signal.SIGKILL)

    obstore.put, obstore.put_async = killing_put, killing_put_async


def _cut_off(first: int, seconds: float) -> None:
    """From the write of that number on, every write fails for so many seconds."""
    seen, since = 0, 0.0
    put, put_async = obstore.put, obstore.put_async

    def check() -> None:
        nonlocal seen, since
        seen += 1
        if seen == first:
            since = time.monotonic()
        if seen >= first and time.monotonic() - since < seconds:
            raise GenericError(f"connection refused ({os.strerror(errno.ECONNREFUSED)})")

    def failing_put(*args: Any, **more: Any) -> Any:
        check()
        return put(*args, **more)

    async def failing_put_async(*args: Any, **more: Any) -> Any:
        check()
        return await put_async(*args, **more)

    obstore.put, obstore.put_async = failing_put, failing_put_async
