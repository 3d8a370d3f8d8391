"""A stream of server-sent events ends what makes it, also for a client that reads no further."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest
from starlette.types import Message

from fraudguard.api import narrative
from fraudguard.api.narrative import EventStream


async def test_who_reads_no_further_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After TOLD_S the stream ends and its maker is closed, so its place is free for others."""
    closed = asyncio.Event()

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "event: text\ndata: {}\n\n"
        finally:
            closed.set()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    monkeypatch.setattr(narrative, "TOLD_S", 0.05)
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "GET", "path": "/", "headers": []}
    await asyncio.wait_for(EventStream(events(), lambda _: nullcontext())(scope, receive, send), 30)
    assert closed.is_set()
