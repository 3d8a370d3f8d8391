"""Dead letters: records that cannot be used, kept whole with the reason, listed and sent again.

Knows the letter's JSON envelope and the dead-letter topic; does not judge events. Letters hold raw bytes, unmasked,
because they must be sent again exactly; what people are shown of them is masked here.

A letter that was sent again is marked by a small record behind it in its own partition, so that a second replay passes
over it. The mark follows the acknowledged record: a crash between them repeats an event, which its id makes harmless.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import kafka.errors
import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from fraudguard.config import Settings
from fraudguard.domain import format_time
from fraudguard.errors import BadEvent, BadInput, BrokerUnavailable, NotFound
from fraudguard.events.masking import mask_text
from fraudguard.events.topics import CONNECT_MS, DEAD_LETTER_BYTES_MAX, DEAD_LETTERS, INPUTS

# A compressed batch may hide a record of any size. A larger one is not copied: it stays where the letter points.
RAW_BYTES_MAX = 8 << 20
PREVIEW_CHARS, PREVIEW_BYTES = 160, 2560

CODE_HEADER = "fraudguard-code"  # on a letter: its reason code
REPLAYS_HEADER = "fraudguard-replays"  # on a record sent again: how often by now
REPLAY_OF_HEADER = "fraudguard-replay-of"  # on a record sent again: dead_letters/PARTITION/OFFSET of its letter
REPLAYED_HEADER = "fraudguard-replayed"  # on a mark: the offset, in this partition, of the letter that was sent again

_CHUNK_LETTERS, _CHUNK_BYTES = 500, 8 << 20
_SILENCE_S_MAX = 30
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class Record(Protocol):
    """The part of a consumed record that a letter is made of. timestamp: seconds since 1970."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float
    headers: Any


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be used, and why.

    code, reason, path, hint: the BadEvent's. topic, partition, offset, key, source_time: the record's. time: when it
    was refused. replays: how often it had been sent again before. size: of the record's value, in bytes; raw: that
    value, None where the record had none, or where it has more than RAW_BYTES_MAX.
    """

    code: str
    reason: str
    path: str
    hint: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    source_time: datetime
    time: datetime
    replays: int
    size: int
    raw: bytes | None

    @classmethod
    def of(cls, record: Record, error: BadEvent, now: datetime) -> "DeadLetter":
        """The letter for a consumed record."""
        value = record.value
        return cls(
            code=error.code,
            reason=error.reason,
            path=error.path,
            hint=error.hint,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            source_time=datetime.fromtimestamp(record.timestamp, UTC),
            time=now,
            replays=_replays(record.headers),
            size=len(value or b""),
            raw=value if value is None or len(value) <= RAW_BYTES_MAX else None,
        )

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Kafka headers, so that others can choose letters without reading them."""
        return ((CODE_HEADER, self.code.encode()),)

    def encode(self) -> bytes:
        """The JSON envelope."""
        return orjson.dumps(
            {
                "version": 1,
                "code": self.code,
                "reason": self.reason,
                "path": self.path,
                "hint": self.hint,
                "source": {
                    "topic": self.topic,
                    "partition": self.partition,
                    "offset": self.offset,
                    "time": format_time(self.source_time),
                },
                "key": _to_base64(self.key),
                "time": format_time(self.time),
                "replays": self.replays,
                "size": self.size,
                "raw": _to_base64(self.raw),
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> "DeadLetter":
        """The letter of an envelope. Raises BadInput."""
        try:
            body = orjson.loads(value)
            source = body["source"]
            if body["version"] != 1:
                raise ValueError("unknown version")
            return cls(
                **{name: str(body[name]) for name in ("code", "reason", "path", "hint")},
                topic=str(source["topic"]),
                partition=int(source["partition"]),
                offset=int(source["offset"]),
                key=_from_base64(body["key"]),
                source_time=datetime.fromisoformat(source["time"]),
                time=datetime.fromisoformat(body["time"]),
                replays=int(body["replays"]),
                size=int(body["size"]),
                raw=_from_base64(body["raw"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise BadInput("is not a dead letter of version 1", path=DEAD_LETTERS) from error


@dataclass(frozen=True, slots=True)
class Listed:
    """A letter as people may see it: key and preview are masked. id: PARTITION/OFFSET in the dead-letter topic."""

    id: str
    code: str
    reason: str
    path: str
    hint: str
    source: str
    key: str
    source_time: datetime
    time: datetime
    replays: int
    replayed: bool
    size: int
    preview: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest letters, newest first, and how many there are in all, by reason code."""

    letters: tuple[Listed, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters to send again. ids: (partition, offset) pairs, empty for all; again: also those sent before."""

    reason: str | None = None
    ids: frozenset[tuple[int, int]] = frozenset()
    again: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """sent: republished and acknowledged. before: passed over, for they had been sent again before.

    refused: cannot be sent again: the record was too large to be kept, was empty, or its source is none of our topics.
    """

    sent: int
    before: int
    refused: int


def list_dead_letters(settings: Settings, limit: int, reason: str | None = None, *, tail: int | None = None) -> Listing:
    """The newest `limit` letters up to now, of one reason code or of all.

    Reads the whole topic once, or the newest `tail` records of each partition, whose letters alone are then counted.
    Without a consumer group. Raises NotFound without a topic, and BrokerUnavailable.
    """
    newest: list[tuple[datetime, int, int, DeadLetter]] = []
    replayed: set[tuple[int, int]] = set()
    counts: Counter[str] = Counter()
    with _Reader(settings) as reader:
        for record in reader.records(None if tail is None else reader.newest(tail)):
            letter = _letter(record, replayed)
            if letter is None or (reason is not None and letter.code != reason):
                continue
            counts[letter.code] += 1
            shown = replace(letter, raw=(letter.raw or b"")[:PREVIEW_BYTES])  # not 2 x limit x 8 MiB in memory
            newest.append((letter.time, record.partition, record.offset, shown))
            if len(newest) > 2 * limit:
                newest = sorted(newest, key=lambda entry: entry[:3])[-limit:] if limit else []
    newest.sort(key=lambda entry: entry[:3], reverse=True)
    listed = (_show(letter, partition, offset, replayed) for _, partition, offset, letter in newest[:limit])
    return Listing(tuple(listed), dict(counts))


def replay_dead_letters(settings: Settings, selection: Selection) -> Replayed:
    """Publish the selected letters' keys and bytes on their source topics again, with acks=all, and mark them.

    Letters written after the start are left alone, so records that fail again do not go round. Order within a partition
    is kept. Raises NotFound without a topic, and BrokerUnavailable: what was acknowledged until then is marked.
    """
    sent = before = refused = 0
    with _Reader(settings) as reader, _producer(settings) as producer:
        replayed: set[tuple[int, int]] = set()
        # A mark stands behind its letter, so nothing before the first chosen one matters.
        starts = {number: min(o for p, o in selection.ids if p == number) for number, _ in selection.ids} or None
        for record in reader.records(starts):
            _note_mark(record, replayed)
        chunk: list[tuple[Any, DeadLetter]] = []
        for record in reader.records(starts):
            place = (record.partition, record.offset)
            if selection.ids and place not in selection.ids:
                continue
            letter = _letter(record, set())
            if letter is None or (selection.reason is not None and letter.code != selection.reason):
                continue
            if place in replayed and not selection.again:
                before += 1
            elif letter.topic not in INPUTS or (letter.raw is None and (letter.size or letter.key is None)):
                refused += 1
            else:
                chunk.append((record, letter))
                if len(chunk) >= _CHUNK_LETTERS or sum(kept.size for _, kept in chunk) >= _CHUNK_BYTES:
                    sent += _send(producer, chunk)
                    chunk = []
        sent += _send(producer, chunk)
    return Replayed(sent, before, refused)


class _Reader:
    """Reads the dead-letter topic from its beginning to where it ended on entering; no group, no commits."""

    def __init__(self, settings: Settings) -> None:
        try:
            self._consumer = KafkaConsumer(
                bootstrap_servers=settings.kafka_bootstrap,
                bootstrap_timeout_ms=CONNECT_MS,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=DEAD_LETTER_BYTES_MAX,
            )
        except kafka.errors.KafkaError as error:
            raise BrokerUnavailable(f"cannot read {DEAD_LETTERS}: {error}") from error

    def __enter__(self) -> "_Reader":
        try:
            numbers = self._consumer.partitions_for_topic(DEAD_LETTERS)
            if not numbers:
                self._consumer.close()
                raise NotFound(f"there is no topic {DEAD_LETTERS}; `fraudguard topics` makes it")
            partitions = [TopicPartition(DEAD_LETTERS, number) for number in sorted(numbers)]
            self._consumer.assign(partitions)
            self._ends = self._consumer.end_offsets(partitions)
        except kafka.errors.KafkaError as error:
            self._consumer.close()
            raise BrokerUnavailable(f"cannot read {DEAD_LETTERS}: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def newest(self, count: int) -> dict[int, int]:
        """From which offset on a partition has at most so many records."""
        return {partition.partition: max(0, end - count) for partition, end in self._ends.items()}

    def records(self, starts: Mapping[int, int] | None = None) -> Iterator[Any]:
        """Records partition by partition in order: all, or of these partitions those from an offset on.

        Raises BrokerUnavailable after _SILENCE_S_MAX of silence.
        """
        try:
            for partition, end in self._ends.items():
                if starts is not None and partition.partition not in starts:
                    continue
                self._consumer.assign([partition])
                if starts is None:
                    self._consumer.seek_to_beginning(partition)
                else:
                    self._consumer.seek(partition, starts[partition.partition])
                while self._consumer.position(partition) < end:
                    batch = self._consumer.poll(timeout_ms=_SILENCE_S_MAX * 1000).get(partition, [])
                    if not batch and self._consumer.position(partition) < end:
                        raise BrokerUnavailable(f"{DEAD_LETTERS} gave nothing for {_SILENCE_S_MAX} s")
                    yield from (record for record in batch if record.offset < end)
        except kafka.errors.KafkaError as error:
            raise BrokerUnavailable(f"cannot read {DEAD_LETTERS}: {error}") from error


def _producer(settings: Settings) -> KafkaProducer:
    try:
        return KafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap,
            bootstrap_timeout_ms=CONNECT_MS,
            acks="all",
            enable_idempotence=True,
            max_request_size=DEAD_LETTER_BYTES_MAX,
            compression_type="gzip",  # as large as it came in: the broker's limit is on compressed batches
        )
    except kafka.errors.KafkaError as error:
        raise BrokerUnavailable(f"cannot publish: {error}") from error


def _send(producer: KafkaProducer, chunk: Sequence[tuple[Any, DeadLetter]]) -> int:
    """Send and wait for every acknowledgement, then mark; how many. Raises BrokerUnavailable."""
    waiting = []
    try:
        for record, letter in chunk:
            headers = [
                (REPLAY_OF_HEADER, f"{DEAD_LETTERS}/{record.partition}/{record.offset}".encode()),
                (REPLAYS_HEADER, str(letter.replays + 1).encode()),
            ]
            waiting.append((record, producer.send(letter.topic, letter.raw, letter.key, headers)))
        marks = []
        try:
            for record, future in waiting:
                future.get(_SILENCE_S_MAX)
                mark = orjson.dumps({"version": 1, "replayed": record.offset})
                headers = [(REPLAYED_HEADER, str(record.offset).encode())]
                marks.append(producer.send(DEAD_LETTERS, mark, record.key, headers, record.partition))
        finally:
            for future in marks:
                future.get(_SILENCE_S_MAX)
    except kafka.errors.KafkaError as error:
        raise BrokerUnavailable(f"a letter was not taken again: {error}") from error
    return len(waiting)


def _letter(record: Any, replayed: set[tuple[int, int]]) -> DeadLetter | None:
    """The record as a letter; None for a mark, which is noted, and for what is no letter."""
    if _note_mark(record, replayed):
        return None
    try:
        return DeadLetter.decode(record.value or b"")
    except BadInput:
        return None


def _note_mark(record: Any, replayed: set[tuple[int, int]]) -> bool:
    offset = dict(record.headers).get(REPLAYED_HEADER)
    if offset is None:
        return False
    if offset.isdigit():
        replayed.add((record.partition, int(offset)))
    return True


def _replays(headers: Any) -> int:
    """How often the record was sent again, by its headers: a mapping, pairs or None, and anybody's bytes."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    value = dict(pairs).get(REPLAYS_HEADER, b"")
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) < 10 else 0


def _show(letter: DeadLetter, partition: int, offset: int, replayed: set[tuple[int, int]]) -> Listed:
    return Listed(
        id=f"{partition}/{offset}",
        code=letter.code,
        reason=letter.reason,
        path=letter.path,
        hint=letter.hint,
        source=f"{letter.topic}/{letter.partition}/{letter.offset}",
        key=preview(letter.key or b""),
        source_time=letter.source_time,
        time=letter.time,
        replays=letter.replays,
        replayed=(partition, offset) in replayed,
        size=letter.size,
        preview=preview(letter.raw or b""),
    )


def preview(raw: bytes) -> str:
    """The beginning of anybody's bytes for people's eyes: masked, on one line, printable, at most PREVIEW_CHARS."""
    text = raw[:PREVIEW_BYTES].decode(errors="replace")
    text = mask_text(_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text))  # an escape must not hide a number
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= PREVIEW_CHARS else text[: PREVIEW_CHARS - 1] + "…"


def _to_base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _from_base64(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value, validate=True)
