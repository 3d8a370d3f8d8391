"""Publishes the labels that dispositions left in the outbox: at least once, oldest first, by every API process.

Two processes may publish the same label; its event id makes that harmless.
"""

import asyncio
import logging

from fraudguard import metrics
from fraudguard.api.kafka import EventProducer
from fraudguard.clock import Clock
from fraudguard.decisions.outbox import Outbox
from fraudguard.errors import BadSettings, Transient
from fraudguard.events.schema import encode
from fraudguard.events.topics import LABELS

log = logging.getLogger(__name__)

BATCH = 100
EVERY_S = 1.0  # labels wait longer for the time in which their disposition may be taken back


class LabelPublisher:
    """Runs until cancelled; failures are logged and tried again, for the labels stay in the outbox."""

    def __init__(self, outbox: Outbox, producer: EventProducer, clock: Clock) -> None:
        self._outbox, self._producer, self._clock = outbox, producer, clock

    async def run(self) -> None:
        """Publish what may go, every EVERY_S."""
        while True:
            try:
                while await self._publish() == BATCH:
                    pass
            except (Transient, BadSettings) as error:
                log.warning("labels stay in the outbox for now: %s", error)
            await asyncio.sleep(EVERY_S)

    async def _publish(self) -> int:
        """Publish one batch and say so in the store; how many there were."""
        pending = await self._outbox.take(BATCH, self._clock.now())
        metrics.OUTBOX_PENDING.set(len(pending))
        if pending:
            labels = [item.label for item in pending]
            await asyncio.gather(*(self._producer.send(LABELS, x.account_id.encode(), encode(x)) for x in labels))
            await self._outbox.mark_published([item.id for item in pending], self._clock.now())
            metrics.OUTBOX_PENDING.dec(len(pending))
        return len(pending)
