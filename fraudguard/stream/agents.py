"""From a micro-batch of Kafka records to acknowledged decisions: the stream's door.

Order of work, so that nothing is lost and nothing counts twice: read -> screen and commit -> publish -> broker has
acknowledged -> ack. A crash at any point leaves the offsets where they were; what comes again finds its first decision.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import aiokafka
import aiokafka.errors

from fraudguard import metrics
from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.domain import Message, Received, Transaction
from fraudguard.errors import BadEvent, BrokerUnavailable, Transient
from fraudguard.events.dead_letter import DeadLetter
from fraudguard.events.masking import mask_event, seal
from fraudguard.events.schema import encode, parse_event
from fraudguard.events.topics import DEAD_LETTERS, DECISIONS
from fraudguard.pipeline import Answer, Decided, Refused

log = logging.getLogger(__name__)

RETRIES_MAX = 5
RETRY_FIRST_S = 0.2


class Record(Protocol):
    """The part of a consumed Kafka record that is used here."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float  # seconds since the epoch, the broker's append time
    headers: Any


Screen = Callable[[Sequence[Received]], Awaitable[list[Answer]]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to publish."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Publisher:
    """An idempotent producer with acks=all; `publish` returns when the broker has everything."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.batch_timeout_ms / 1000
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap,
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_request_size=16 << 20,  # a dead letter carries the raw bytes of any record the broker took
            request_timeout_ms=settings.batch_timeout_ms,
        )

    async def __aenter__(self) -> "Publisher":
        try:
            await self._producer.start()
        except aiokafka.errors.KafkaError as error:
            raise BrokerUnavailable(f"cannot publish: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Send in order and wait for every acknowledgement. Raises BrokerUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                sent = [
                    await self._producer.send(r.topic, r.value, key=r.key, headers=list(r.headers)) for r in records
                ]
                await asyncio.gather(*sent)
        except (TimeoutError, aiokafka.errors.KafkaError) as error:
            raise BrokerUnavailable(f"publish was not acknowledged: {error!r}") from error


class Door:
    """Turns records into decisions and dead letters. `handle` returns only when everything is safe."""

    def __init__(self, settings: Settings, screen: Screen, publisher: Publisher, clock: Clock) -> None:
        self._settings, self._screen, self._publisher, self._clock = settings, screen, publisher, clock

    async def handle(self, records: Sequence[Record]) -> None:
        """Screen, commit and publish; after it returns the records may be acked.

        Raises Transient (store, broker, state conflict) after RETRIES_MAX attempts: stop the worker, unacked.
        """
        wait_s = RETRY_FIRST_S
        for attempt in range(1, RETRIES_MAX + 1):
            try:
                await self._publisher.publish(await self._answer(records))
                return
            except Transient as error:
                if attempt == RETRIES_MAX:
                    raise
                log.warning("attempt %d of %d: %s; again in %.1f s", attempt, RETRIES_MAX, error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s *= 2

    async def _answer(self, records: Sequence[Record]) -> list[Outgoing]:
        outgoing: list[Outgoing] = []
        batch: list[tuple[Received, Record]] = []
        for record in records:
            try:
                batch.append((self._receive(record), record))
            except BadEvent as error:
                outgoing.append(self._dead_letter(record, error))
        # Transactions and messages come on two topics: within a batch the event's own time decides.
        batch.sort(key=lambda pair: pair[0].event.event_time)
        metrics.BATCH_EVENTS.observe(len(batch))
        answers = await self._screen([received for received, _ in batch])
        for (_, record), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Decided):
                decision = answer.record.decision
                outgoing.append(Outgoing(DECISIONS, decision.account_id.encode(), encode(decision)))
            elif isinstance(answer, Refused):
                outgoing.append(self._dead_letter(record, answer.error))
        return outgoing

    def _receive(self, record: Record) -> Received:
        appended_at = datetime.fromtimestamp(record.timestamp, UTC)
        event = parse_event(record.value or b"", record.key, appended_at, self._settings.future_s)
        metrics.EVENTS.labels(event.type).inc()
        sealed = None
        key = self._settings.raw_text_key
        if key and isinstance(event, Message | Transaction):
            text = event.text if isinstance(event, Message) else event.memo
            sealed = seal(text, key.get_secret_value()) if text else None
        return Received(mask_event(event), appended_at, sealed)

    def _dead_letter(self, record: Record, error: BadEvent) -> Outgoing:
        metrics.DEAD_LETTERS.labels(error.code).inc()
        letter = DeadLetter.of(record, error, self._clock.now())
        return Outgoing(DEAD_LETTERS, record.key, letter.encode(), letter.headers)
