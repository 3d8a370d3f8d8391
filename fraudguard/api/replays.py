"""Dead letters sent again from the API: one replay at a time in this process, off the event loop, audited.

Knows whom to tell and what is written down; choosing, sending and marking letters is events/dead_letter.py's.
"""

import asyncio
import logging
from contextvars import Context
from dataclasses import replace

from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.letters import LetterTrail, ReplayNote
from fraudguard.errors import BrokerUnavailable, Conflict, NotFound, StoreUnavailable
from fraudguard.events.dead_letter import Selection, replay_dead_letters

log = logging.getLogger(__name__)


class Replays:
    """Another process may replay the same letters at the same time: an event counts once, however often it is sent."""

    def __init__(self, settings: Settings, trail: LetterTrail, clock: Clock) -> None:
        self._settings, self._trail, self._clock = settings, trail, clock
        self._running: asyncio.Task[None] | None = None

    async def start(self, selection: Selection, actor: str) -> ReplayNote:
        """Write down that it begins, begin, and return. Raises Conflict while one runs here, StoreUnavailable."""
        if self._running is not None and not self._running.done():
            raise Conflict("a replay is under way", hint="wait for it to end: GET /v1/dead-letters says how it went")
        note = ReplayNote(actor, self._clock.now(), _which(selection))
        await self._trail.note(note)
        # A context of its own: the request's deed and its tenant end with the request.
        self._running = asyncio.create_task(self._run(selection, note), context=Context())
        return note

    async def _run(self, selection: Selection, note: ReplayNote) -> None:
        try:
            done = await asyncio.to_thread(replay_dead_letters, self._settings, selection)
            ended = replace(note, sent=done.sent, before=done.before, refused=done.refused)
        except (BrokerUnavailable, NotFound) as error:
            log.warning("a replay of dead letters ended early: %s", error)
            ended = replace(note, problem=str(error))
        try:
            await self._trail.note(replace(ended, at=self._clock.now()))
        except StoreUnavailable as error:
            log.warning("how the replay ended could not be written down: %s; it ended so: %s", error, ended)


def _which(selection: Selection) -> str:
    if selection.ids:
        return ", ".join(f"{partition}/{offset}" for partition, offset in sorted(selection.ids))
    return selection.reason or "all"
