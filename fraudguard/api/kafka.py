"""The API's two ends of Kafka: a producer of events and a listener to decisions. Both open by themselves and come back.

Events go out keyed by account, acknowledged by every in-sync replica. The listener belongs to no consumer group: each
API process hears every decision, from the moment it was positioned, and wakes those who wait for one.
"""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aiokafka
from aiokafka.errors import KafkaError, KafkaTimeoutError

from fraudguard import metrics
from fraudguard.config import Settings
from fraudguard.domain import Decision
from fraudguard.errors import BrokerUnavailable
from fraudguard.events.topics import DECISIONS

log = logging.getLogger(__name__)

OPEN_S = 10.0  # to connect, or to close
REACH_S = 2.0  # to answer whether it is there
SEND_S = 10.0  # to acknowledge one event
RETRY_S = 0.5  # between two attempts to open
WAITING_MAX = 10_000  # requests waiting for decisions in one process


class EventProducer:
    """An idempotent producer with acks=all; `run` opens it and opens a new one when it failed for good."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._failed = asyncio.Event()

    async def run(self) -> None:
        """Keep a producer open until cancelled."""
        while True:
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=self._settings.kafka_bootstrap, enable_idempotence=True, acks="all", linger_ms=0
            )
            try:
                async with asyncio.timeout(OPEN_S):
                    await producer.start()
                self._failed.clear()
                self._producer = producer
                await self._failed.wait()
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("cannot connect to Kafka at %s: %r", self._settings.kafka_bootstrap, error)
            finally:
                self._producer = None
                with suppress(TimeoutError, KafkaError):
                    async with asyncio.timeout(OPEN_S):
                        await producer.stop()
            await asyncio.sleep(RETRY_S)

    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Return when the broker has it. Raises BrokerUnavailable; the broker may then have it, or get it later."""
        producer = self._opened()
        try:
            async with asyncio.timeout(SEND_S):
                acknowledged = await producer.send(topic, value, key=key)
                await asyncio.shield(acknowledged)  # given up, never cancelled: the batch holds others' events too
        except (TimeoutError, KafkaTimeoutError) as error:
            raise BrokerUnavailable("Kafka did not acknowledge the event in time") from error
        except KafkaError as error:
            if not error.retriable and producer is self._producer:
                self._failed.set()
            log.warning("Kafka refused an event: %r", error)
            raise BrokerUnavailable("Kafka did not take the event") from error

    async def topics(self) -> frozenset[str]:
        """The topics that Kafka has just now. Raises BrokerUnavailable."""
        try:
            async with asyncio.timeout(REACH_S):
                metadata = await self._opened().client.fetch_all_metadata()
        except (TimeoutError, KafkaError, OSError) as error:
            raise BrokerUnavailable("Kafka does not answer") from error
        return frozenset(metadata.topics())

    def _opened(self) -> aiokafka.AIOKafkaProducer:
        if self._producer is None:
            raise BrokerUnavailable("not connected to Kafka")
        return self._producer


class DecisionListener:
    """Hears every decision and hands it to the requests that wait for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: dict[str, list[asyncio.Future[Decision]]] = {}
        self._count = 0
        self._offsets: dict[aiokafka.TopicPartition, int] = {}  # the next one to hear, by partition
        self.positioned = False

    @contextmanager
    def expect(self, decision_id: str) -> Iterator[asyncio.Future[Decision]]:
        """A future of this decision, whose id is known before; enter before its event is sent, so that none is missed.

        Raises BrokerUnavailable when not listening, or when WAITING_MAX requests wait already.
        """
        if not self.positioned:
            raise BrokerUnavailable("not listening to decisions")
        if self._count >= WAITING_MAX:
            raise BrokerUnavailable(f"{WAITING_MAX:,} requests are waiting for decisions already")
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(decision_id, []).append(future)
        self._count += 1
        metrics.SCREENS_WAITING.set(self._count)
        try:
            yield future
        finally:
            self._waiting[decision_id].remove(future)
            if not self._waiting[decision_id]:
                del self._waiting[decision_id]
            self._count -= 1
            metrics.SCREENS_WAITING.set(self._count)

    async def run(self) -> None:
        """Listen until cancelled. A new connection goes on where the last one stopped."""
        while True:
            consumer = aiokafka.AIOKafkaConsumer(
                DECISIONS,
                bootstrap_servers=self._settings.kafka_bootstrap,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="latest",
            )
            try:
                async with asyncio.timeout(OPEN_S):
                    await consumer.start()
                    await self._position(consumer)
                self.positioned = True
                while True:
                    self._hear(await consumer.getmany(timeout_ms=1_000))
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("cannot listen to decisions at %s: %r", self._settings.kafka_bootstrap, error)
            finally:
                self.positioned = False
                with suppress(TimeoutError, KafkaError):
                    async with asyncio.timeout(OPEN_S):
                        await consumer.stop()
            await asyncio.sleep(RETRY_S)

    async def _position(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Stand at the end of every partition, or where the last connection stopped."""
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            if partition in self._offsets:
                consumer.seek(partition, self._offsets[partition])
            else:
                self._offsets[partition] = await consumer.position(partition)

    def _hear(self, batch: dict[aiokafka.TopicPartition, list[aiokafka.ConsumerRecord]]) -> None:
        for partition, records in batch.items():
            for record in records:
                try:
                    self._take(record.value or b"")
                except (ValueError, KeyError, TypeError):
                    log.warning("%s %d: offset %d is not a decision", DECISIONS, partition.partition, record.offset)
            self._offsets[partition] = records[-1].offset + 1

    def _take(self, value: bytes) -> None:
        fields = json.loads(value)
        # Most decisions are other processes' business: only those waited for are read in full.
        waiting = self._waiting.get(fields["decision_id"])
        if waiting:
            decision = Decision.model_validate_json(value)
            for future in waiting:
                if not future.done():
                    future.set_result(decision)
