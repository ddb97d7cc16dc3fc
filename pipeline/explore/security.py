"""Who may ask the explorer's server, and what a page of it may do.

The server listens on 127.0.0.1 alone, which every user of the machine and every page in a browser on it can reach. So
each path begins with a random token; Host must be the loopback address (a name that an attacker's DNS points there is
refused); a request with an Origin must come from the page itself, and one that changes something must have it; there is
no CORS; bodies are bounded; and the page may load nothing from elsewhere and run no script but the package's files.
"""

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 << 20
"""Bytes of a request: as many as an annotation may have."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)
NOTEBOOKS = "http://127.0.0.1:* http://localhost:* vscode-webview:"
"""Pages that may frame the explorer where it is shown in a notebook."""


class Guard:
    """The application behind its token: `app` sees paths without it."""

    def __init__(self, app: ASGIApp, token: str, *, framed: bool = False) -> None:
        self.app, self.token = app, token
        policy = POLICY.format(ancestors=NOTEBOOKS if framed else "'none'")
        self.headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            **({} if framed else {"x-frame-options": "DENY"}),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no WebSockets
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reason = self._refused(scope, headers)
        if reason:
            await PlainTextResponse(reason[1], reason[0], headers=self.headers)(scope, receive, send)
            return
        left = MAX_BODY

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    found[name] = value
            await send(message)

        path = scope["path"].removeprefix(f"/{self.token}")
        inner = {**scope, "path": path or "/", "raw_path": (path or "/").encode()}
        try:
            await self.app(inner, bounded, answer)
        except TooLarge:
            await PlainTextResponse("too large", 413, headers=self.headers)(scope, receive, send)

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """The status and text of a refusal, or None."""
        host = headers.get("host", "")
        if urlsplit(f"http://{host}").hostname not in ("127.0.0.1", "localhost") or "@" in host:
            return 403, "this server answers to 127.0.0.1 alone"
        given = scope["path"].split("/")[1]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return 403, "open the whole address that `stegoflow explore` printed: it ends in a token"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "a page of another site asked"
        if scope["method"] not in ("GET", "HEAD"):
            if origin is None:
                return 403, "only the page may change something"
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                return 415, "JSON is expected"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, "too large"
        return None


class TooLarge(Exception):
    """More bytes came than a request may have."""
