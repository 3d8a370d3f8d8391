"""What the tests that run real processes share: settings, workers to start and kill, topics to fill and read."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from pydantic import SecretStr

from fraudguard import local
from fraudguard.config import Settings
from fraudguard.domain import Decision, DecisionRecord, Event
from fraudguard.events.schema import encode
from fraudguard.events.topics import DEAD_LETTERS, DECISIONS, LABELS, MESSAGES, TRANSACTIONS, ensure_topics

TOPIC_OF = {"transaction": TRANSACTIONS, "message": MESSAGES, "label": LABELS}
ALL_TOPICS = (TRANSACTIONS, MESSAGES, LABELS, DECISIONS, DEAD_LETTERS)
ROOT = Path(__file__).parents[1]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    """Ask again every few milliseconds until it holds; AssertionError after timeout_s."""
    deadline = time.monotonic() + timeout_s
    pause = 0.005
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)


def assert_same_features(a: DecisionRecord, b: DecisionRecord, tolerance: float) -> None:
    """Equal, but for earlier risks, which the model gives within a tolerance on batches of another shape."""
    moved = {name for name in a.features if name.startswith("risk_")}
    assert {n: v for n, v in a.features.items() if n not in moved} == {
        n: v for n, v in b.features.items() if n not in moved
    }
    for name in moved:
        assert a.features[name] == pytest.approx(b.features[name], abs=2 * tolerance), name  # a difference of two


def settings_for(bootstrap: str, database_url: str, **others: object) -> Settings:
    """Settings of a test's own Kafka and database, whatever the environment says."""
    files = {"rules_dir": ROOT / "rules", "policy_path": ROOT / "rules/policy.yaml"}
    return Settings(
        kafka_bootstrap=bootstrap,
        database_url=SecretStr(database_url),
        **{"session_timeout_s": 3.0, **files, **others},  # type: ignore[arg-type]  # checked by pydantic
    )


def fresh_topics(settings: Settings) -> None:
    """Delete every topic and make them again, empty."""
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    try:
        present = [topic for topic in ALL_TOPICS if topic in admin.list_topics()]
        if present:
            admin.delete_topics(present)
        wait_until(lambda: not set(ALL_TOPICS) & set(admin.list_topics()), "topics are deleted")
    finally:
        admin.close()
    ensure_topics(settings)


class Worker:
    """`fraudguard worker` as a process; killed at the end if it still runs."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log, self.process = log, local.start("worker", settings, log)

    def kill(self) -> None:
        """kill -9, and wait."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Ask to stop as a service manager would; the exit code."""
        return local.stop(self.process)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.kill()
        if error is not None:
            print(f"--- {self.log}\n{self.log.read_text(errors='replace')[-4000:]}")


def produce(settings: Settings, events: Iterable[Event]) -> None:
    """Send events to their topics, keyed by account, and wait for the acknowledgements."""
    send_raw(settings, ((TOPIC_OF[event.type], event.account_id.encode(), encode(event)) for event in events))


def send_raw(settings: Settings, records: Iterable[tuple[str, bytes | None, bytes | None]]) -> None:
    """Send any bytes as (topic, key, value)."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=5)
    try:
        futures = [producer.send(topic, key=key, value=value) for topic, key, value in records]
        producer.flush(60)
        for future in futures:
            future.get(60)
    finally:
        producer.close()


@contextmanager
def reading(settings: Settings, topic: str) -> Iterator[KafkaConsumer]:
    """A consumer of all of a topic from its beginning, in no group."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        yield consumer
    finally:
        consumer.close()


def read_decisions(
    settings: Settings, wanted: Iterable[str], timeout_s: float = 180.0, alive: Worker | None = None
) -> Mapping[str, list[Decision]]:
    """Every published decision by event id, read until all wanted events have one."""
    missing = set(wanted)
    found: dict[str, list[Decision]] = {}
    deadline = time.monotonic() + timeout_s
    with reading(settings, DECISIONS) as consumer:
        while missing:
            assert time.monotonic() < deadline, f"{len(missing)} events without a decision, as {sorted(missing)[:5]}"
            assert alive is None or alive.process.poll() is None, f"the worker ended: {alive.log.read_text()[-4000:]}"
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    decision = Decision.model_validate_json(record.value)
                    found.setdefault(decision.event_id, []).append(decision)
                    missing.discard(decision.event_id)
    return found
