"""The log of the command line: lines on standard error, each with time, level, run and stage. Set up here alone."""

import json
import logging
import sys
import time
from typing import Any

from pipeline.core.logs import RUN, STAGE
from pipeline.terminal import visible

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(level: str | None = None, form: str = "plain") -> None:
    """Write log lines of `level` and above to standard error, `plain` or as `json`; called again, it replaces what it
    did. Other packages are heard from `warning` on. Without a level: warning on a terminal, else info."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(handler)
    handler = _Stderr()
    handler.setFormatter(_Json() if form == "json" else _Plain())
    root.addHandler(handler)
    logging.getLogger("stegoflow").setLevel(LEVELS[level or ("warning" if sys.stderr.isatty() else "info")])


class _Stderr(logging.Handler):
    """Writes to whatever standard error is at the moment: progress bars put a stream of their own there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _Plain(logging.Formatter):
    """`2025-11-25T23:40:01Z info 20251125-234001-ab12 features: 416 of 833 views`"""

    def format(self, record: logging.LogRecord) -> str:
        where = " ".join(name for name in (RUN.get(), _stage(record)) if name)
        line = f"{_time(record)} {record.levelname.lower():<7} {f'{where}: ' if where else ''}"
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return line + visible(record.getMessage()) + trace


class _Json(logging.Formatter):
    """The same as one JSON object; of progress also `done`, `total` and `unit`."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower()}
        found |= {"run": RUN.get() or None, "stage": _stage(record) or None, "message": record.getMessage()}
        found |= {name: getattr(record, name) for name in ("done", "total", "unit") if hasattr(record, name)}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False)


def _stage(record: logging.LogRecord) -> str:
    return getattr(record, "stage", STAGE.get())


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
