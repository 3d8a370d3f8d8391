"""Forgets what has run out: sessions and sign-ins, answers kept for idempotency keys, messages of webhooks, wishes
for evidence.

Every API process does, harmlessly.
"""

import asyncio
import logging
from datetime import timedelta

from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.repository import Repository
from fraudguard.errors import BadSettings, Transient

log = logging.getLogger(__name__)

EVERY_S = 600.0


class Housekeeper:
    """Runs until cancelled; failures are logged and tried again."""

    def __init__(self, repository: Repository, settings: Settings, clock: Clock) -> None:
        self._repository, self._clock = repository, clock
        self._idle, self._longest = (timedelta(seconds=s) for s in (settings.session_idle_s, settings.session_max_s))

    async def run(self) -> None:
        """Now, and every EVERY_S from then on."""
        while True:
            try:
                await self.tidy()
            except (Transient, BadSettings) as error:
                log.warning("what has run out stays in the store for now: %s", error)
            await asyncio.sleep(EVERY_S)

    async def tidy(self) -> None:
        """Once. Raises StoreUnavailable."""
        now = self._clock.now()
        await self._repository.sessions.prune(now, self._idle, self._longest)
        await self._repository.vouched.prune(now)
        await self._repository.repeats.prune(now)
        await self._repository.webhooks.prune(now)
        await self._repository.evidence.prune(now)
