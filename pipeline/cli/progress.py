"""Progress bars of the command line, on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bars() -> Iterator[Any]:
    """Bars on standard error: one per stage, none for what takes less than a moment."""

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        known: dict[tuple[str, str], Any] = {}

        def show(stage: str, done: int, total: int, unit: str) -> None:
            key = stage, unit
            if key not in known:
                if done >= total:
                    return
                known[key] = bars.add_task(stage, total=total, unit=unit)
            bars.update(known[key], completed=done, total=total)

        yield show
