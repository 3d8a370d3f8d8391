"""What happens around every request: a bound on its body, a measurement, no personal data cached, no tenant left over.

Plain ASGI: nothing is buffered but the bounded body, and streams pass untouched.
"""

import asyncio
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fraudguard import metrics
from fraudguard.api.problems import ProblemError
from fraudguard.clock import Clock
from fraudguard.decisions.connection import on_behalf_of
from fraudguard.tenants import HOUSE

BODY_BYTES_MAX = 64 * 1024  # the largest event of 8,000 characters in UTF-8 takes about half
FILES_BYTES_MAX = 2 * 1024 * 1024  # whole rule files, or 10,000 entries of a list
EVIDENCE_BYTES_MAX = 4 * 1024 * 1024  # a file of a case: decisions/case_files.py
BODY_S = 10.0  # from the headers to the last byte of the body

# What may be sent where by POST, in bytes, and what to do where it is too much.
_LARGE = (
    (
        re.compile(r"/v1/(rules/(check|releases)|lists/[^/]+/entries)"),
        FILES_BYTES_MAX,
        "send the files that changed, or the entries in parts",
    ),
    (
        re.compile(r"/console/(rule-drafts/(check|propose|backtest)|lists/[^/]+/entries)"),
        FILES_BYTES_MAX,
        "send one rule, or the entries in parts",
    ),
    (re.compile(r"/v1/cases/[^/]+/files"), EVIDENCE_BYTES_MAX, "send a smaller picture, or the pages that matter"),
)
_ONE_EVENT = "send one event a request, its text in UTF-8 and without escapes"


class BodyLimit:
    """Reads the body first, up to its bounds in bytes and time, so that nothing behind it can be kept waiting."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """413 when the body is too large, 408 when it does not come."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bytes_max, hint = _bound(scope)
        try:
            async with asyncio.timeout(BODY_S):
                body = await _read(scope, receive, bytes_max)
        except TimeoutError:
            detail = f"the body did not arrive within {BODY_S:g} s"
            await _refuse(408, "body_too_slow", detail, hint)(scope, receive, send)
            return
        if body is None:
            detail = f"the body has more than {bytes_max:,} bytes"
            await _refuse(413, "too_large", detail, hint)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


async def _read(scope: Scope, receive: Receive, bytes_max: int) -> bytes | None:
    """The whole body, or None when it is too large. A client that left ends it early."""
    announced = dict(scope["headers"]).get(b"content-length", b"")
    if announced.isdigit() and int(announced) > bytes_max:
        return None
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > bytes_max:
            return None
        more = message["type"] == "http.request" and message.get("more_body", False)
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    first = True

    async def replay() -> Message:
        nonlocal first
        if not first:
            return await receive()
        first = False
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _bound(scope: Scope) -> tuple[int, str]:
    """The bytes that a body may have, and what to do about one that has more."""
    for path, bytes_max, hint in _LARGE:
        if scope["method"] == "POST" and path.fullmatch(scope["path"]):
            return bytes_max, hint
    return BODY_BYTES_MAX, _ONE_EVENT


def _refuse(status: int, code: str, detail: str, hint: str) -> ASGIApp:
    # The rest of the body is not read: the connection cannot be used again.
    return ProblemError(status, code, detail, hint=hint, headers={"Connection": "close"}).response()


class Tenancy:
    """Ends with each request what its authentication began: to work on behalf of a tenant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until somebody is known, the request is the house's own."""
        with on_behalf_of(HOUSE):
            await self._app(scope, receive, send)


class Meter:
    """Seconds by method, route and status. A path that is no route is counted under none of ours."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Measure until the last byte was sent; an answer of /v1 is never cached."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._clock.monotonic(), 500

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope["path"].startswith("/v1/"):
                    message["headers"] = [*message["headers"], (b"cache-control", b"no-store")]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            labels = (scope["method"], route, str(status))
            metrics.API_SECONDS.labels(*labels).observe(self._clock.monotonic() - began)
