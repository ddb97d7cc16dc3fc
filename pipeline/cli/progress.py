"""Progress on standard error: one bar per running stage on a terminal, else lines in the log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from pipeline.cli.logs import set_up
from pipeline.cli.options import Logs
from pipeline.core.logs import RUN
from pipeline.progress import Lines, bars


@contextmanager
def reporting(logs: Logs = Logs()) -> Iterator[Any]:  # noqa: B008  (frozen)
    """Set up the log and give the progress callback of a command, `(stage, done, total, unit)`.

    A stage ends where another begins or the block does. An error leaves its bar where it was.
    """
    RUN.set("")  # a command begins: whatever ran before in this process is over
    set_up(logs.log_level, logs.log_format)
    on_terminal = sys.stderr.isatty() and logs.log_format == "plain"
    with bars() if on_terminal else nullcontext(Lines()) as shown:
        yield shown
        shown.end()
