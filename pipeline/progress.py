"""What a person sees of work that goes on: bars on a terminal, a line in a notebook, lines in the log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.terminal import duration

if TYPE_CHECKING:
    from pipeline.core.engine import Progress

EVERY = 0.2
"""Seconds between two changes of a notebook's line, at least."""
LOGGED = 10.0
"""Seconds between two log lines of one stage, at least."""
log = logging.getLogger("stegoflow")


@contextmanager
def watched(progress: "Progress | None") -> "Iterator[Progress]":
    """`progress`; of None bars on a terminal, a line in a notebook, and elsewhere the log `stegoflow`, at INFO."""
    if progress is not None:
        yield progress
    elif "ipykernel" in sys.modules:
        line = Line()
        yield line
        line.end()
    elif sys.stderr.isatty():
        with bars() as shown:
            yield shown
            shown.end()
    else:
        lines = Lines()
        yield lines
        lines.end()


class Line:
    """The output of a notebook's cell: what goes on now, with a bar, replaced by the time that all of it took."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self.html = HTML
        self.output = display(HTML(""), display_id=True)
        self.started, self.shown = time.monotonic(), 0.0

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if now - self.shown >= EVERY or not total:
            self.shown = now
            bar = f"<progress value={done} max={total}></progress> {counted(done, total, unit)}" if total else ""
            self.output.update(self.html(f"{stage} {bar}"))

    def end(self) -> None:
        """All is done."""
        self.output.update(self.html(duration(time.monotonic() - self.started)))


class Lines:
    """A log line when a stage begins and ends, and every `LOGGED` seconds in between."""

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
        if total and now - self.logged >= LOGGED:
            self.logged = now
            self._log(counted(done, total, unit), done=done, total=total, unit=unit)

    def end(self) -> None:
        """The stage that goes on has ended."""
        if self.stage:
            self._log(f"ended after {duration(time.monotonic() - self.started)}{self.counted}")
        self.stage = ""

    def _log(self, message: str, **facts: Any) -> None:
        log.info("%s", message, extra={"stage": self.stage, **facts})


class Bars:
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
def bars() -> Iterator[Bars]:
    """Bars on standard error, which is a terminal."""
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
        yield Bars(bars)


def counted(done: int, total: int, unit: str) -> str:
    """`416 of 833 views`"""
    return f"{done:,} of {total:,} {unit}"
