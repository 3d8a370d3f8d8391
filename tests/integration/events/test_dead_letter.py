"""Dead letters on a real Kafka: written, listed, sent again once."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from fraudguard.config import Settings
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.errors import BadEvent, BrokerUnavailable, NotFound
from fraudguard.events import topics
from fraudguard.events.dead_letter import (
    RAW_BYTES_MAX,
    REPLAYS_HEADER,
    DeadLetter,
    Replayed,
    Selection,
    list_dead_letters,
    replay_dead_letters,
)

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
ALL = (*topics.INPUTS, topics.DECISIONS, topics.DEAD_LETTERS)
RAW = [b"\xff\xfe\x00", b'{"text": "call 13800138000 now"}', b"", None, "急用钱".encode() * 40_000]


@pytest.fixture
def settings(kafka: EmbeddedKafka) -> Iterator[Settings]:
    """Settings for a Kafka whose topics are new."""
    settings = Settings(kafka_bootstrap=kafka.bootstrap, topic_partitions=2)
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
        _remove(admin)
        topics.ensure_topics(settings)
        yield settings
        _remove(admin)


def _remove(admin: KafkaAdminClient) -> None:
    existing = [name for name in admin.list_topics() if name in ALL]
    if existing:
        admin.delete_topics(existing)
        while any(name in ALL for name in admin.list_topics()):  # bounded by the test's timeout
            pass


def _read(settings: Settings, topic: str) -> list:
    """Every record of a topic."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, group_id=None, auto_offset_reset="earliest")
    partitions = [TopicPartition(topic, number) for number in range(2)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    records = []
    while any(consumer.position(p) < ends[p] for p in partitions):
        for batch in consumer.poll(timeout_ms=5000).values():
            records += batch
    consumer.close()
    return records


class _Consumed:
    """A consumed record as the stream passes it on: seconds, not milliseconds."""

    def __init__(self, record) -> None:
        self.topic, self.partition, self.offset = record.topic, record.partition, record.offset
        self.key, self.value, self.headers = record.key, record.value, record.headers
        self.timestamp = record.timestamp / 1000


def _send(settings: Settings, topic: str, records) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", max_request_size=16 << 20)
    for future in [producer.send(topic, value, key, list(headers)) for key, value, headers in records]:
        future.get(30)
    producer.close()


def _refuse(settings: Settings, records, code: str = "bad_json") -> None:
    """Write a dead letter for each record, as the stream does."""
    error = BadEvent("the record is not JSON", code=code, hint="send JSON")
    letters = [DeadLetter.of(_Consumed(record), error, NOW) for record in records]
    _send(settings, topics.DEAD_LETTERS, [(letter.key, letter.encode(), letter.headers) for letter in letters])


def test_letters_are_listed_masked(settings):
    """The list shows where a record came from and a masked beginning of it, and counts by reason code."""
    _send(settings, topics.MESSAGES, [(b"a-1", raw, ()) for raw in RAW])
    _refuse(settings, _read(settings, topics.MESSAGES))
    listing = list_dead_letters(settings, limit=10)
    assert listing.counts == {"bad_json": len(RAW)}
    assert {letter.source.split("/")[0] for letter in listing.letters} == {"messages"}
    previews = " ".join(letter.preview for letter in listing.letters)
    assert "call <PHONE> now" in previews
    assert "13800138000" not in repr(listing)
    assert max(len(letter.preview) for letter in listing.letters) <= 160
    assert len(list_dead_letters(settings, limit=2).letters) == 2
    assert list_dead_letters(settings, limit=0).letters == ()


def test_list_can_be_narrowed_to_a_reason(settings):
    """Only the letters of the code asked for are shown and counted."""
    _send(settings, topics.LABELS, [(b"a-1", b"{}", ())])
    records = _read(settings, topics.LABELS)
    _refuse(settings, records)
    _refuse(settings, records, code="wrong_key")
    listing = list_dead_letters(settings, limit=10, reason="wrong_key")
    assert [letter.code for letter in listing.letters] == ["wrong_key"]
    assert listing.counts == {"wrong_key": 1}


def test_replay_sends_the_same_bytes_and_only_once(settings):
    """Key and bytes come again exactly; a second replay passes over them; one that fails again says it was replayed."""
    _send(settings, topics.MESSAGES, [(b"a-1", raw, ()) for raw in RAW])
    first = _read(settings, topics.MESSAGES)
    _refuse(settings, first)
    assert replay_dead_letters(settings, Selection()) == Replayed(sent=len(RAW), before=0, refused=0)
    again = _read(settings, topics.MESSAGES)[len(RAW) :]
    assert [(r.key, r.value) for r in again] == [(r.key, r.value) for r in first]
    assert {dict(r.headers)[REPLAYS_HEADER] for r in again} == {b"1"}

    assert replay_dead_letters(settings, Selection()) == Replayed(sent=0, before=len(RAW), refused=0)
    assert all(letter.replayed for letter in list_dead_letters(settings, 10).letters)

    _refuse(settings, again[:1], code="wrong_key")
    (letter,) = list_dead_letters(settings, 10, reason="wrong_key").letters
    assert (letter.replays, letter.replayed) == (1, False)
    assert replay_dead_letters(settings, Selection()) == Replayed(sent=1, before=len(RAW), refused=0)
    assert dict(_read(settings, topics.MESSAGES)[-1].headers)[REPLAYS_HEADER] == b"2"


def test_replay_can_be_narrowed_and_repeated_on_purpose(settings):
    """By reason code, by the letter's own place, and once more when asked."""
    _send(settings, topics.TRANSACTIONS, [(b"a-1", b"one", ()), (b"a-1", b"two", ())])
    one, two = _read(settings, topics.TRANSACTIONS)
    _refuse(settings, [one], code="bad_json")
    _refuse(settings, [two], code="bad_field")
    assert replay_dead_letters(settings, Selection(reason="bad_field")).sent == 1
    (letter,) = list_dead_letters(settings, 10, reason="bad_json").letters
    partition, offset = map(int, letter.id.split("/"))
    chosen = Selection(ids=frozenset({(partition, offset)}))
    assert replay_dead_letters(settings, chosen).sent == 1
    assert replay_dead_letters(settings, chosen) == Replayed(sent=0, before=1, refused=0)
    assert replay_dead_letters(settings, Selection(again=True)).sent == 2
    assert [r.value for r in _read(settings, topics.TRANSACTIONS)][2:4] == [b"two", b"one"]


def test_what_cannot_be_sent_again_is_counted(settings):
    """A record too large to be kept, one of nothing, and one from a topic that is not ours, are refused, not sent."""

    class Huge:
        topic, partition, offset, key, timestamp, headers = "messages", 0, 0, b"a-1", 1.0, ()
        value = b"x" * (RAW_BYTES_MAX + 1)

    class Foreign(Huge):
        topic, value = "payroll", b"{}"

    class Nothing(Huge):
        key = value = None

    error = BadEvent("is too large", code="too_large")
    letters = [DeadLetter.of(record, error, NOW) for record in (Huge(), Foreign(), Nothing())]
    assert letters[0].raw is None
    assert letters[0].size == RAW_BYTES_MAX + 1
    _send(settings, topics.DEAD_LETTERS, [(letter.key, letter.encode(), letter.headers) for letter in letters])
    assert replay_dead_letters(settings, Selection()) == Replayed(sent=0, before=0, refused=3)


def test_the_largest_letter_fits_its_topic(settings):
    """A letter with RAW_BYTES_MAX incompressible-looking bytes is taken by the topic that ensure_topics makes."""

    class Large:
        topic, partition, offset, key, timestamp, headers = "messages", 0, 0, b"a-1", 1.0, ()
        value = bytes(range(256)) * (RAW_BYTES_MAX // 256)

    letter = DeadLetter.of(Large(), BadEvent("is too large", code="too_large"), NOW)
    _send(settings, topics.DEAD_LETTERS, [(letter.key, letter.encode(), letter.headers)])
    (listed,) = list_dead_letters(settings, 1).letters
    assert listed.size == RAW_BYTES_MAX
    assert replay_dead_letters(settings, Selection()).sent == 1


def test_foreign_records_in_the_topic_are_passed_over(settings):
    """What somebody else wrote into the dead-letter topic stops neither the list nor the replay."""
    _send(settings, topics.DEAD_LETTERS, [(b"k", b"junk", ()), (b"k", None, ()), (None, b"[]", ())])
    assert list_dead_letters(settings, 10).letters == ()
    assert replay_dead_letters(settings, Selection()) == Replayed(0, 0, 0)


def test_a_missing_topic_and_a_missing_broker_are_told(kafka):
    """Without the topic: NotFound with the command that makes it. Without Kafka: BrokerUnavailable."""
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
        _remove(admin)
    with pytest.raises(NotFound, match="fraudguard topics"):
        list_dead_letters(Settings(kafka_bootstrap=kafka.bootstrap), 10)
    with pytest.raises(BrokerUnavailable):
        list_dead_letters(Settings(kafka_bootstrap="127.0.0.1:1"), 10)
