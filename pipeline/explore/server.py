"""The explorer's local server."""

import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pipeline.core.errors import ConfigError
from pipeline.core.extras import require
from pipeline.core.store import Store

START_SECONDS = 20.0


class Explorer:
    """A page that is being served, until `close`."""

    def __init__(
        self,
        store: Store,
        record: dict[str, Any],
        *,
        port: int = 0,
        read_only: bool = False,
        framed: bool = False,
    ) -> None:
        """`record` is a run's; port 0 means any that is free. `framed`: pages of a notebook may show it in a frame.
        ConfigError where the port is taken or the extra `explore` is missing."""
        require("starlette", "the explorer")
        require("uvicorn", "the explorer")
        import uvicorn

        from pipeline.explore.api import application
        from pipeline.explore.security import Guard
        from pipeline.explore.service import Service

        self._socket = _listen(port)
        self.service = Service(store, record, read_only=read_only)
        self.token = secrets.token_urlsafe(24)
        self.port: int = self._socket.getsockname()[1]
        app = Guard(application(self.service), self.token, framed=framed)
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", server_header=False)
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._serve, name="explorer", daemon=True)

    @property
    def url(self) -> str:
        """The page's address. Whoever has it can do what the page can."""
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    def start(self) -> "Explorer":
        """Serve in a thread; returns when the page can be opened."""
        self.service.start()
        self._thread.start()
        limit = time.monotonic() + START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < limit:
            time.sleep(0.01)
        return self

    def __repr__(self) -> str:
        return f"<explorer of run {self.service.record['run']} at {self.url}>"

    def _repr_html_(self) -> str:
        return f'<iframe src="{self.url}" width="100%" height="800" style="border:0"></iframe>'

    def wait(self, tick: Callable[[], None] = lambda: None) -> None:
        """Return when it ends, or at Ctrl-C."""
        with suppress(KeyboardInterrupt):
            while self._thread.is_alive():
                self._thread.join(timeout=0.5)
                tick()

    def close(self) -> None:
        """End it. What was said is in the store."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self.service.close()
        self._socket.close()

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])


def _listen(port: int) -> socket.socket:
    """A socket on the loopback address. ConfigError where the port is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        found.close()
        raise ConfigError(f"--port {port}: {error}", next="--port 0, for any that is free") from None
    found.listen(128)
    return found
