"""Taking results along: an export at a time, in a thread of its own."""

import logging
import shlex
import threading
from pathlib import Path
from typing import Any

from pipeline import exporting
from pipeline.core.errors import ConfigError, StegoflowError, render
from pipeline.core.store import Store

log = logging.getLogger("stegoflow")


class Exports:
    """Exports of a run into folders below the store's `exports`, or below the working folder where the store is a
    bucket. The page names a format, never a path."""

    def __init__(self, store: Store, record: dict[str, Any]) -> None:
        self.store, self.record = store, record
        self.base = (store.folder or Path.cwd()) / "exports"
        self._state: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def formats(self) -> list[dict[str, Any]]:
        """What can be chosen: {"name", "title", "note"}."""
        return [
            {
                "name": "png",
                "title": "Label images (PNG)",
                "note": "one picture per image whose numbers are the classes, with a legend; most tools read it",
            }
        ]

    def state(self) -> dict[str, Any] | None:
        """The export that runs or ran last: {"format", "done", "total", "out", "command", "finished", "error"}."""
        return self._state

    def start(self, format: str, splits: list[str], cut: int | None) -> dict[str, Any]:
        """Begin one. ConfigError where another one runs, or the format or a split does not exist."""
        if self._thread and self._thread.is_alive():
            raise ConfigError("an export is running", next="wait until it has ended")
        if format not in [one["name"] for one in self.formats()]:
            raise ConfigError(f"there is no format {format}")
        out = self._free(f"{self.record['run']}-{format}")
        words = ["stegoflow", "export", self.record["run"], "--out", str(out), "--store", self.store.shown]
        words += [word for split in splits for word in ("--split", split)]
        words += ["--cut", str(cut)] if cut else []
        self._state = {"format": format, "done": 0, "total": 0, "out": str(out), "command": shlex.join(words)}
        self._state |= {"finished": False, "error": None}
        self._thread = threading.Thread(target=self._run, args=(out, splits, cut), name="export", daemon=True)
        self._thread.start()
        return self._state

    def close(self) -> None:
        """Stop the one that runs."""
        self._stop.set()

    def _run(self, out: Path, splits: list[str], cut: int | None) -> None:
        state = self._state
        assert state is not None

        def progress(stage: str, done: int, total: int, unit: str) -> None:
            if self._stop.is_set():
                raise ConfigError("stopped")
            state.update(done=done, total=total)

        try:
            facts = exporting.export(self.store, self.record["run"], out, splits=splits, cut=cut, progress=progress)
            state.update(written=facts["written"])
        except Exception as error:
            state["error"] = str(error)
            if isinstance(error, StegoflowError):
                state["error"] = error.message + (f"; {render(error.next)}" if error.next else "")
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
