"""Who may ask, and what a browser may do with the answer."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

from ..network.addresses import is_loopback
from ..network.asgi import App, Receive, Scope, Send, answer, header
from .permits import Permits

COOKIE = "tracefork"
TOKEN = b"x-tracefork-token"
"""The header that a page of ours sends with all that acts."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }.items()
)
_SAFE = ("GET", "HEAD")


class Guard:
    """An app that only its own pages, and people of this machine, reach."""

    def __init__(self, app: App, permits: Permits, *, host: str, port: int) -> None:
        self._app = app
        self._permits = permits
        self._listening_on = host
        names = ["127.0.0.1", "localhost", "[::1]"]
        self._hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or say why it is refused."""
        if scope["type"] != "http":
            return

        async def guarded(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refused = self._refused(scope)
        if refused is None:
            entered = self._entered(scope)
            if entered is not None:
                await answer(guarded, 303, b"", "text/plain", entered)
                return
            if self._unknown(scope):
                refused = 403, "open the address that tracefork-otel printed: it has the token of this page"
        if refused is not None:
            status, why = refused
            await answer(guarded, status, f"{why}\n".encode(), "text/plain; charset=utf-8")
            return
        await self._app(scope, receive, guarded)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        if not self._is_ours(header(scope, b"host")):
            return 421, "this page answers to its own address alone"
        origin = header(scope, b"origin")
        if origin is not None and not self._is_ours(origin.partition("://")[2]):
            return 403, "this request came from a page of somebody else"
        reading = scope["method"] in _SAFE
        site = header(scope, b"sec-fetch-site")
        moved = reading and header(scope, b"sec-fetch-mode") == "navigate"
        if site in ("cross-site", "same-site") and not moved:
            return 403, "this request came from a page of somebody else"
        if not reading:
            shown = header(scope, TOKEN) or ""
            if not hmac.compare_digest(shown.encode(), self._permits.action.encode()):
                return 403, "this request does not come from a page of this server: load the page anew"
        return None

    def _is_ours(self, host: str | None) -> bool:
        if not is_loopback(self._listening_on):
            return host is not None  # it has many names; the cookie tells who comes
        return host is not None and host.lower() in self._hosts

    def _entered(self, scope: Scope) -> tuple[tuple[bytes, bytes], ...] | None:
        """Return the headers that let the bearer of the token in, without it in the address."""
        entry = self._permits.entry
        if entry is None or scope["method"] not in _SAFE:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = query.pop("token", None)
        if shown is None or not hmac.compare_digest(shown[-1].encode(), entry.encode()):
            return None
        rest = urlencode(query, doseq=True)
        where = scope["raw_path"].decode("latin-1") + (f"?{rest}" if rest else "")
        cookie = f"{COOKIE}={entry}; Path=/; HttpOnly; SameSite=Strict"
        # No other host: two slashes would begin with one.
        return (b"location", f"/{where.lstrip('/')}".encode("latin-1")), (b"set-cookie", cookie.encode())

    def _unknown(self, scope: Scope) -> bool:
        entry = self._permits.entry
        if entry is None:
            return False
        try:
            shown = SimpleCookie(header(scope, b"cookie") or "").get(COOKIE)
        except CookieError:
            return True
        return shown is None or not hmac.compare_digest(shown.value.encode(), entry.encode())
