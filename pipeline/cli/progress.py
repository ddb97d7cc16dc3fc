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
    with _bars() if on_terminal else nullcontext(_Lines()) as shown:
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


class _Bars:
    """A bar per stage. It runs until the stage ends, also where all of a unit is done: what is left has no count."""

    def __init__(self, bars: Any) -> None:
        self.bars, self.stage, self.unit, self.total = bars, "", "", 0
        self.task: Any = None

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        if stage != self.stage:
            self.end()
            self.stage, self.unit, self.total = stage, "", 0
            self.task = self.bars.add_task(stage, total=None, count="")
        if total == 0:
            return
        if unit != self.unit:  # the speed of one unit says nothing of the next
            self.bars.update(self.task, total=None)
            self.unit = unit
        self.total, known = total, total if done < total else None
        self.bars.update(self.task, completed=done, total=known, count=counted(done, total, unit))

    def end(self) -> None:
        if self.task is not None:
            count = f"{self.total:,} {self.unit}" if self.total else ""
            self.bars.update(self.task, completed=1, total=1, count=count)
            self.bars.stop_task(self.task)
        self.stage, self.task = "", None


@contextmanager
def _bars() -> Iterator[_Bars]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Times(ProgressColumn):
        """How long a stage has taken, and how long it will take from here where that is known."""

        def render(self, task: Task) -> Text:
            left = None if task.total is None or task.finished else task.time_remaining
            more = f", {duration(left)} left" if left is not None else ""
            return Text(duration(task.elapsed or 0) + more, "cyan")

    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(30, finished_style="green"),
        TextColumn("{task.fields[count]:<22}", markup=False),
        Times(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars)


def counted(done: int, total: int, unit: str) -> str:
    """`416 of 833 views`"""
    return f"{done:,} of {total:,} {unit}"
