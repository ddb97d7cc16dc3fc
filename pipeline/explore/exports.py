"""Taking results along: an export at a time, in a thread of its own."""

import logging
import shlex
import threading
from pathlib import Path
from typing import Any

from pipeline import exporting
from pipeline.core.engine import Progress
from pipeline.core.errors import ConfigError, StegoflowError, render
from pipeline.core.extras import EXTRAS, installed
from pipeline.core.store import Store
from pipeline.writers import FORMATS

log = logging.getLogger("stegoflow")


class Exports:
    """Exports of a run into folders below the store's `exports`, or below the working folder where the store is a
    bucket or read-only. The page names a format, never a path."""

    def __init__(self, store: Store, record: dict[str, Any], *, read_only: bool = False) -> None:
        self.store, self.record = store, record
        here = Path.cwd() if read_only or store.folder is None else store.folder
        self.base = here / "exports"
        self._state: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def formats(self) -> list[dict[str, Any]]:
        """What can be chosen: {"name", "title", "note", "missing"}; `missing` installs what a format needs."""
        return [
            {
                "name": name,
                "title": row.title,
                "note": row.opens_in,
                "inside": row.inside,
                "missing": next((f"stegoflow[{EXTRAS[one]}]" for one in row.needs if not installed(one)), None),
            }
            for name, row in FORMATS.items()
        ]

    def state(self) -> dict[str, Any] | None:
        """The export that runs or ran last: {"format", "done", "total", "out", "command", "finished", "error"}."""
        return self._state

    def start(self, format: str, splits: list[str], version: int, cut: int) -> dict[str, Any]:
        """Begin one: of the classes of a version of the annotation, or where that is 0 of the cut into so many groups.
        ConfigError where another one runs, or the format does not exist."""
        if format not in FORMATS:
            raise ConfigError(f"there is no format {format}", next=f"one of {', '.join(FORMATS)}")
        with self._lock:
            if self._thread and self._thread.is_alive():
                raise ConfigError("an export is running", next="wait until it has ended")
            out = self._free(f"{self.record['run']}-{format}")
            choices: dict[str, Any] = {"annotation": str(version)} if version else {"cut": cut}
            command = ["stegoflow", "export", self.record["run"], *_option(choices), "--as", format]
            command += [word for split in splits for word in ("--split", split)]
            command += ["--out", str(out), "--store", self.store.shown]
            self._state = {"format": format, "done": 0, "total": 0, "out": str(out), "command": shlex.join(command)}
            self._state |= {"finished": False, "error": None, "written": 0}
            choices |= {"format": format, "splits": splits, "progress": self._progress(self._state)}
            self._thread = threading.Thread(target=self._run, args=(self._state, out, choices), name="export")
            self._thread.daemon = True
            self._thread.start()
        return self._state

    def close(self) -> None:
        """Stop the one that runs."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=30)

    def _progress(self, state: dict[str, Any]) -> Progress:
        def progress(stage: str, done: int, total: int, unit: str) -> None:
            if self._stop.is_set():
                raise ConfigError("stopped")
            state.update(done=done, total=total)

        return progress

    def _run(self, state: dict[str, Any], out: Path, choices: dict[str, Any]) -> None:
        try:
            state["written"] = exporting.export(self.store, self.record["run"], out, **choices)["written"]
        except Exception as error:
            state["error"] = str(error)
            if isinstance(error, StegoflowError):
                state["error"] = error.message + (f" — {render(error.next)}" if error.next else "")
            else:
                log.exception("an export failed")
        finally:
            state["finished"] = True

    def _free(self, name: str) -> Path:
        """The first folder of this name, or with a number behind it, that is not there."""
        number = 1
        while (found := self.base / (name if number == 1 else f"{name}-{number}")).exists():
            number += 1
        return found


def _option(choices: dict[str, Any]) -> list[str]:
    return [word for name, value in choices.items() for word in (f"--{name}", str(value))]
