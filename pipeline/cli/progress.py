"""Progress on standard error: one bar per running stage on a terminal, else lines in the log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from pipeline.cli.logs import set_up
from pipeline.cli.options import Logs
from pipeline.core.logs import RUN
from pipeline.progress import bars, counted
from pipeline.terminal import duration

log = logging.getLogger("stegoflow")
EVERY = 10.0
"""Seconds between two log lines of one stage, at least."""


@contextmanager
def reporting(logs: Logs = Logs()) -> Iterator[Any]:  # noqa: B008  (frozen)
    """Set up the log and give the progress callback of a command, `(stage, done, total, unit)`.

    A stage ends where another begins or the block does. An error leaves its bar where it was.
    """
    RUN.set("")  # a command begins: whatever ran before in this process is over
    set_up(logs.log_level, logs.log_format)
    on_terminal = sys.stderr.isatty() and logs.log_format == "plain"
    with bars() if on_terminal else nullcontext(_Lines()) as shown:
        yield shown
        shown.end()


class _Lines:
    """A log line when a stage begins and ends, and every `EVERY` seconds in between."""

    def __init__(self) -> None:
        self.stage = self.counted = ""
        self.started = self.logged = 0.0

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.end()
            self.stage, self.counted, self.started, self.logged = stage, "", now, now
            self._log("begins")
        if total:
            self.counted = f": {total:,} {unit}"
        if total and now - self.logged >= EVERY:
            self.logged = now
            self._log(counted(done, total, unit), done=done, total=total, unit=unit)

    def end(self) -> None:
        if self.stage:
            self._log(f"ended after {duration(time.monotonic() - self.started)}{self.counted}")
        self.stage = ""

    def _log(self, message: str, **facts: Any) -> None:
        log.info("%s", message, extra={"stage": self.stage, **facts})
