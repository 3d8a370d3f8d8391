"""Ends open streams whose caller may call no longer: the session has ended, the account or the key too.

One question to the store every CHECK_S for all streams of this process, none while there is none. While the store does
not answer streams go on; nothing new comes out of it either.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from fastapi import Request

from fraudguard.api.auth import COOKIE, HEADER
from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.repository import Repository
from fraudguard.errors import BadSettings, Transient

log = logging.getLogger(__name__)

CHECK_S = 2.0


@dataclass(frozen=True, eq=False, slots=True)
class _Open:
    """A stream: by what its caller was let in, and how to end it."""

    key: str | None
    token: str | None
    end: Callable[[], None]


class Streams:
    """Runs until cancelled; failures are logged and tried again."""

    def __init__(self, repository: Repository, settings: Settings, clock: Clock) -> None:
        self._repository, self._clock = repository, clock
        self._idle, self._longest = (timedelta(seconds=s) for s in (settings.session_idle_s, settings.session_max_s))
        self._open: set[_Open] = set()

    @contextmanager
    def watched(self, request: Request, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called, perhaps more than once, when the caller of this request may call no longer."""
        key = request.headers.get(HEADER)
        stream = _Open(key, None if key else request.cookies.get(COOKIE), end)
        self._open.add(stream)
        try:
            yield
        finally:
            self._open.discard(stream)

    async def run(self) -> None:
        """Look at them every CHECK_S."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self._check()
            except (Transient, BadSettings) as error:
                log.warning("whether streams should end is not known now: %s", error)

    async def _check(self) -> None:
        watched = tuple(self._open)
        tokens = {one.token for one in watched if one.token is not None}
        keys = {one.key for one in watched if one.key is not None}
        now, alive = self._clock.now(), set[str | None]()
        if tokens:
            alive |= await self._repository.sessions.alive(tokens, now, self._idle, self._longest)
        if keys:
            alive |= await self._repository.keys.alive(keys)
        for one in watched:
            if (one.token or one.key) not in alive:
                one.end()
