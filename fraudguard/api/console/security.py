"""What a browser may do with a page of the console: nothing but what this origin serves, nothing inline, no framing.

Plain ASGI: streams pass untouched.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_PAGE: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=()"),
)
_NO_STORE: Final = (b"cache-control", b"no-store")


class Guarded:
    """Adds the headers to every answer; pages are never cached, for they show people's data."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with the headers."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                cached = any(name.lower() == b"cache-control" for name, _ in headers)
                message["headers"] = [*headers, *_PAGE] + ([] if cached else [_NO_STORE])
            await send(message)

        await self._app(scope, receive, guarded)
