"""Trying again after an I/O error."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from obstore.exceptions import BaseError as StoreFailure

from pipeline.core.errors import StageError
from pipeline.core.store import GO_ON, first_line

log = logging.getLogger("stegoflow")
Item = TypeVar("Item")


IO_ERRORS = (OSError, StoreFailure)
"""What trying again may mend: a store's StoreError, and what obstore raises inside of Zarr, which is no OSError."""


PAUSES = (1.0, 5.0, 25.0)
"""Seconds before the first, second, further tries after an I/O error: a store may be away for a while. How many
tries there are says `execution.retries`; within each, obstore tries a request to a bucket again 10 times, for 3 minutes
at most (its defaults)."""


def after(pause: float, function: Callable[[Item], Any], item: Item) -> Any:
    """Do an item after `pause` seconds, on the worker."""
    time.sleep(pause)
    return function(item)


def pause_after(tries: int) -> float:
    """Seconds to wait before trying again what has failed `tries` times."""
    return PAUSES[min(tries, len(PAUSES)) - 1]


def retry_or_raise(item: Any, tries: int, retries: int, error: BaseException) -> None:
    """Log that an item is tried again; StageError where it has failed too often."""
    what = f"{type(error).__name__}: {first_line(error)}"
    if tries > retries:
        raise StageError(
            f"part {item} failed {tries} times: {what}",
            next=GO_ON,
        ) from error
    log.warning("part %s: %s; trying again (%d of %d)", item, what, tries, retries)
