"""100,000 malformed records of many kinds, good ones between them: the worker never stops and nothing is lost.

FRAUDGUARD_SLOW_EVENTS shortens the run (five malformed records for each).
"""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import Worker, fresh_topics, read_decisions, reading, send_raw, settings_for

from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.events.dead_letter import DeadLetter
from fraudguard.events.topics import DEAD_LETTERS, LABELS, MESSAGES, TRANSACTIONS

RECORDS = 5 * int(os.environ.get("FRAUDGUARD_SLOW_EVENTS", "20000"))
GOOD_EVERY = 500

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Record = tuple[str, bytes | None, bytes | None]


def valid(n: int) -> dict[str, Any]:
    """A transaction as JSON fields."""
    return {
        "type": "transaction", "version": 1, "event_id": f"t-{n}", "account_id": f"a-{n % 50}",
        "event_time": f"2026-10-0{1 + n % 9}T10:00:00Z", "direction": "debit", "kind": "transfer", "channel": "app",
        "amount": "10.00", "currency": "CNY", "counterparty_id": "c-1", "attributes": {},
    }  # fmt: skip


def with_field(name: str, *values: object) -> Callable[[random.Random, int], bytes]:
    """The valid event with one field set to one of these."""
    return lambda rng, n: json.dumps({**valid(n), name: rng.choice(values)}).encode()


def without_field(rng: random.Random, n: int) -> bytes:
    """The valid event without one of its required fields."""
    fields = valid(n)
    del fields[rng.choice([name for name in fields if name not in ("counterparty_id", "attributes")])]
    return json.dumps(fields).encode()


KINDS: dict[str, Callable[[random.Random, int], bytes | None]] = {
    "no value": lambda rng, n: None,
    "empty": lambda rng, n: b"",
    "random bytes": lambda rng, n: b"\xff" + rng.randbytes(rng.randrange(200)),
    "cut short": lambda rng, n: json.dumps(valid(n)).encode()[: rng.randrange(1, 200)],
    "two documents": lambda rng, n: json.dumps(valid(n)).encode() * 2,
    "not an object": lambda rng, n: rng.choice([b"null", b"[]", b"1", b'"x"', b"true", b"NaN"]),
    "deeply nested": lambda rng, n: b"[" * rng.randrange(200, 5000),
    "twice the key": lambda rng, n: b'{"type": "message",' + json.dumps(valid(n)).encode()[1:],
    "missing field": without_field,
    "unknown field": lambda rng, n: json.dumps({**valid(n), f"field{rng.randrange(99)}": 1}).encode(),
    "version": with_field("version", 2, 0, "1", 1.0, True, None),
    "type": with_field("type", "Transaction", "decision", "", None, 7, ["transaction"]),
    "amount": with_field("amount", 10, 10.0, "-5", "0", "1e5", "NaN", "١٢", "10.001", "9" * 19, "", None, "10,00"),
    "currency": with_field("currency", "cny", "RMB", "XYZ", "", 156, None),
    "time": with_field("event_time", "yesterday", "2026-10-01", "2026-13-01T00:00:00Z", "2026-10-01T10:00:00", 1, None),
    "future": lambda rng, n: json.dumps(
        {**valid(n), "event_time": (datetime.now(UTC) + timedelta(days=2)).isoformat()}
    ).encode(),
    "id": with_field("event_id", "", " x", "a\u0000b", "x" * 129, 5, None, "a\nb"),
    "ip": with_field("ip", "300.1.1.1", "localhost", "1.2.3", 7),
    "attributes": with_field("attributes", [], {"a": [1]}, {"a": None}, {str(i): 1 for i in range(33)}, {"": 1}),
    "NUL": with_field("memo", "a\u0000b"),
    "long": lambda rng, n: json.dumps({**valid(n), "memo": "很长" * rng.randrange(501, 3000)}).encode(),
}


def records(rng: random.Random) -> Iterator[tuple[str, Record]]:
    """(kind, record) without end; every kind in turn, and now and then a record under another account's key."""
    names = list(KINDS)
    for n in range(RECORDS):
        kind = names[n % len(names)]
        key = f"a-{n % 50}".encode()
        topic = rng.choice((TRANSACTIONS, MESSAGES, LABELS))
        if n % 97 == 0:
            yield "wrong key", (topic, rng.choice((None, b"a-other", b"")), json.dumps(valid(n)).encode())
        else:
            yield kind, (topic, key, KINDS[kind](rng, n))


def test_malformed_records_all_end_in_the_dead_letters(kafka: EmbeddedKafka, database_url: str, tmp_path: Path) -> None:
    """One dead letter a bad record, each with its bytes and a usable reason; every good record is decided."""
    settings = settings_for(kafka.bootstrap, database_url, model="off")
    fresh_topics(settings)
    sent: list[Record] = []
    good = []
    for n, (_, record) in enumerate(records(random.Random(9))):
        sent.append(record)
        if n % GOOD_EVERY == 0:
            good.append(f"good-{n}")
            fields = {**valid(n), "event_id": good[-1]}
            sent.append((TRANSACTIONS, fields["account_id"].encode(), json.dumps(fields).encode()))
    with Worker(settings, tmp_path / "worker.log") as worker:
        send_raw(settings, sent)
        read_decisions(settings, good, timeout_s=900, alive=worker)
        letters = read_letters(settings, RECORDS, worker)
        assert worker.stop() == 0
    assert len(letters) == RECORDS
    assert len({(letter.topic, letter.partition, letter.offset) for letter in letters}) == RECORDS
    raw = Counter(letter.raw for letter in letters)
    assert raw == Counter(value for _, _, value in sent) - Counter(value for _, _, value in sent if is_good(value))
    assert all(letter.code and letter.reason and letter.hint for letter in letters)
    print(Counter(letter.code for letter in letters))


def is_good(value: bytes | None) -> bool:
    """One of the good records that stand between the others."""
    return bool(value) and b'"event_id": "good-' in value and value.endswith(b"}") and value.startswith(b"{")


def read_letters(settings: Any, count: int, worker: Worker) -> list[DeadLetter]:
    """Dead letters until there are `count`, and whatever more is there by then."""
    letters: list[DeadLetter] = []
    with reading(settings, DEAD_LETTERS) as consumer:
        while True:
            batch = [record for records in consumer.poll(timeout_ms=2000).values() for record in records]
            letters.extend(DeadLetter.decode(record.value) for record in batch)
            if not batch and len(letters) >= count:
                return letters
            assert worker.process.poll() is None, worker.log.read_text()[-4000:]
