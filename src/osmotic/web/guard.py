"""What stands between the network and the page: who may ask, for what, how much, and how many at once.

Everything is refused that the page does not need. Of gradio's sixty routes that leaves the page itself, its own
scripts and styles, and the queue: no upload, no file, no proxy, no documentation.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY = 2**20
OPEN = 64
PATIENCE = 10.0
"""Caps: bytes of a body, requests open at once (a tab holds up to three), seconds in which a body must come."""

JOIN = "/queue/join"
HASH = r"[A-Za-z0-9_-]{1,64}"
FILE = r"[A-Za-z0-9_./-]{1,200}"
ROUTES = {
    "GET": re.compile(
        rf"/|/config|/theme\.css|/favicon\.ico|/(assets|static)/{FILE}|/gradio_api/(queue/data|heartbeat/{HASH})"
    ),
    "POST": re.compile(r"/gradio_api/queue/join"),
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# gradio's page is built from inline scripts; what matters is that nothing is fetched from, or sent to, anybody else.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
# Headers by which a client could pretend to be elsewhere.
DROPPED = (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for", b"x-forwarded-server", b"forwarded")
CARDS = re.compile(rb'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>')


class Refusal(NamedTuple):
    """A status and a sentence."""

    status: int
    text: str


class Guard:
    """ASGI middleware that lets only the page's own requests through.

    Args:
        app: what is guarded.
        host: the address that is bound; a Host header must name it, or loopback.
        token: what every request must show, as a cookie that ``/?token=...`` sets or as ``Authorization: Bearer``;
            None where everybody on this machine may ask.
        room: how many more requests the queue can hold.
    """

    def __init__(self, app: App, host: str, token: str | None, room: Callable[[], int]) -> None:
        self.app, self.host, self.token, self.room = app, host, token, room
        self.session = secrets.token_urlsafe(32)
        self.open = self.joining = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self.entering(scope, headers):
            return await self._enter(send)
        refusal = self.refusal(scope, headers)
        if refusal is not None:
            return await answer(scope, send, refusal)
        joins = scope["path"].endswith(JOIN)
        self.open, self.joining = self.open + 1, self.joining + joins
        try:
            await self._pass(scope, receive, send)
        finally:
            self.open, self.joining = self.open - 1, self.joining - joins

    def refusal(self, scope: Scope, headers: dict[bytes, str]) -> Refusal | None:
        """Why a request is refused, None if it is not; the cheapest and the least telling reasons first."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if not self._ours(headers.get(b"host", "")):
            return Refusal(403, "This address is not the one that is served; open the one that was printed.")
        if not self._same_origin(headers):
            return Refusal(403, "This request comes from another page, and is refused.")
        if not self._known(headers):
            return Refusal(401, "The token is missing or wrong; open the address with ?token=... that was printed.")
        if method not in ROUTES:
            return Refusal(405, "Only GET and POST are answered.")
        path = scope["path"]
        if ROUTES[method].fullmatch(path) is None or ".." in path or "//" in path:
            return Refusal(404, "There is nothing here.")
        if method == "POST" and not headers.get(b"content-type", "").lower().startswith("application/json"):
            return Refusal(415, "Requests are JSON.")
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length[:20]) > BODY:
            return Refusal(413, f"A request may have {BODY:,} bytes.")
        if self.open >= OPEN or (path.endswith(JOIN) and self.joining >= self.room()):
            return Refusal(503, "The server is busy with other requests; try again in a minute.")
        return None

    def entering(self, scope: Scope, headers: dict[bytes, str]) -> bool:
        """Whether this is ``GET /?token=...`` with the right token, at the right address."""
        if self.token is None or scope["path"] != "/" or scope["method"] != "GET":
            return False
        shown = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=None).get("token", [""])[0]
        return self._ours(headers.get(b"host", "")) and same(shown, self.token)

    def _known(self, headers: dict[bytes, str]) -> bool:
        if self.token is None:
            return True
        if same(headers.get(b"authorization", "").removeprefix("Bearer "), self.token):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get("osmotic")
        except CookieError:
            return False
        return cookie is not None and same(cookie.value, self.session)

    def _ours(self, header: str) -> bool:
        """Whether a Host header names this server: a page of another name that points here (DNS rebinding) does not."""
        name = hostname(header)
        if name in LOOPBACK or name == self.host.lower():
            return True
        if self.token is None or self.host not in ("0.0.0.0", "::"):
            return False
        return name == socket.gethostname().lower() or is_address(name)

    def _same_origin(self, headers: dict[bytes, str]) -> bool:
        origin = headers.get(b"origin")
        if origin is not None:
            return origin.partition("://")[2].lower() == headers.get(b"host", "").lower()
        return (
            headers.get(b"sec-fetch-site", "none") in ("none", "same-origin")
            or headers.get(b"sec-fetch-mode") == "navigate"
        )

    async def _enter(self, send: Send) -> None:
        cookie = f"osmotic={self.session}; HttpOnly; SameSite=Lax; Path=/"
        head = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"content-length", b"0"), *_secured([])]
        await send({"type": "http.response.start", "status": 303, "headers": head})
        await send({"type": "http.response.body", "body": b""})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on: its body whole and small, without what a client should not say."""
        try:
            body = await asyncio.wait_for(whole(receive), PATIENCE)
        except (TimeoutError, ValueError):
            return await answer(scope, send, Refusal(413, f"A request may have {BODY:,} bytes, sent without delay."))
        page = scope["path"] == "/"
        dropped = (*DROPPED, b"accept-encoding") if page else DROPPED
        inner = {**scope, "headers": [(n, v) for n, v in scope["headers"] if n.lower() not in dropped]}
        if page:
            inner["query_string"] = b""
        await self.app(inner, replay(body, receive), Mended(send) if page else Secured(send))


class Secured:
    """A ``send`` that adds the headers of safety, and takes away what gradio says to other origins."""

    def __init__(self, send: Send) -> None:
        self.send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": _secured(message.get("headers", []))}
        await self.send(message)


class Mended(Secured):
    """Also takes the cards for social networks, which name gradio's and GitHub's addresses, out of the page."""

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        self.start: Message = {}
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = CARDS.sub(b"", self.body)
        kept = [(n, v) for n, v in self.start["headers"] if n.lower() not in (b"content-length", b"cache-control")]
        head = [*kept, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        await super().__call__({**self.start, "headers": head})
        await super().__call__({"type": "http.response.body", "body": body})


def _secured(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(n, v) for n, v in headers if not n.lower().startswith(b"access-control-") and n.lower() != b"server"]
    return kept + [(n.encode(), v.encode()) for n, v in HEADERS.items()]


async def answer(scope: Scope, send: Send, refusal: Refusal) -> None:
    """A refusal: JSON where the page's scripts read it, else plain text."""
    api = scope["path"].startswith("/gradio_api/")
    body = (json.dumps({"detail": refusal.text}) if api else refusal.text + "\n").encode()
    kind = b"application/json" if api else b"text/plain; charset=utf-8"
    head = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *_secured([])]
    if refusal.status == 503:
        head.append((b"retry-after", b"30"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def whole(receive: Receive) -> bytes:
    """A request's body.

    Raises:
        ValueError: as soon as it is longer than :data:`BODY`.
    """
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > BODY:
            raise ValueError("too long")
    return body


def replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives a body that was read, then what follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def same(shown: str, secret: str) -> bool:
    """Whether two strings are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(shown.encode(), secret.encode())


def hostname(header: str) -> str:
    """The name in a Host header, in small letters and without port or brackets; empty for none."""
    try:
        return (urlsplit(f"//{header}").hostname or "") if not re.search(r"[@/\\?#\s]", header) else ""
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a name is an IP address, which cannot be rebound."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
