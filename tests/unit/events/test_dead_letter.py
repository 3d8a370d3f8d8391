"""The dead letter's envelope and what people are shown of it; sending again is tested on a real Kafka."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.errors import BadEvent, BadInput
from fraudguard.events.dead_letter import PREVIEW_CHARS, RAW_BYTES_MAX, REPLAYS_HEADER, DeadLetter, preview

NOW = datetime(2026, 11, 21, 10, 0, 0, 20_000, tzinfo=UTC)
ERROR = BadEvent("is missing", code="missing_field", path="amount", hint="send one")


@dataclass
class Consumed:
    """A consumed record."""

    topic: str = "transactions"
    partition: int = 3
    offset: int = 4711
    key: bytes | None = b"a-1"
    value: bytes | None = b"{}"
    timestamp: float = NOW.timestamp()
    headers: Any = ()


@settings(max_examples=100, deadline=None)
@given(key=st.none() | st.binary(max_size=50), value=st.none() | st.binary(max_size=300))
def test_any_bytes_come_back_as_they_were(key, value):
    """Key and value survive the envelope exactly, absent ones as absent."""
    letter = DeadLetter.of(Consumed(key=key, value=value), ERROR, NOW)
    again = DeadLetter.decode(letter.encode())
    assert again == letter
    assert (again.key, again.raw, again.size) == (key, value, len(value or b""))


def test_a_letter_says_what_and_where():
    """Code, path, fix and the record's place are in the letter; the code is a header too."""
    letter = DeadLetter.of(Consumed(), ERROR, NOW)
    assert (letter.code, letter.reason, letter.path, letter.hint) == (
        "missing_field",
        "is missing",
        "amount",
        "send one",
    )
    assert (letter.topic, letter.partition, letter.offset, letter.source_time) == ("transactions", 3, 4711, NOW)
    assert letter.headers == (("fraudguard-code", b"missing_field"),)


def test_a_record_too_large_is_pointed_at_not_copied():
    """Exactly RAW_BYTES_MAX is copied, a byte more is not, and its size is told."""
    largest = DeadLetter.of(Consumed(value=b"x" * RAW_BYTES_MAX), ERROR, NOW)
    assert largest.raw is not None
    larger = DeadLetter.of(Consumed(value=b"x" * (RAW_BYTES_MAX + 1)), ERROR, NOW)
    assert (larger.raw, larger.size) == (None, RAW_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("headers", "replays"),
    [
        (None, 0), ((), 0), ([(REPLAYS_HEADER, b"2")], 2), ({REPLAYS_HEADER: b"3"}, 3), ([("other", b"9")], 0),
        ([(REPLAYS_HEADER, b"-1")], 0), ([(REPLAYS_HEADER, b"x" * 99)], 0), ([(REPLAYS_HEADER, b"9" * 99)], 0),
        ([(REPLAYS_HEADER, None)], 0),
    ],
)  # fmt: skip
def test_replays_are_counted_from_the_headers(headers, replays):
    """As pairs or as a mapping; what somebody else wrote there counts as none."""
    assert DeadLetter.of(Consumed(headers=headers), ERROR, NOW).replays == replays


GOOD = DeadLetter.of(Consumed(), ERROR, NOW).encode()


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\xff", b"[]", b"{}", b"1", GOOD.replace(b'"version":1', b'"version":2'),
        GOOD.replace(b'"raw":"e30="', b'"raw":"%"'), GOOD.replace(b'"time":"2026', b'"time":"x'),
        GOOD.replace(b'"source":{', b'"source":1,"x":{'), b"[" * 10_000,
    ],
    ids=lambda value: repr(value[:16]),
)  # fmt: skip
def test_what_is_no_letter_is_refused(value):
    """Anything that is not a version 1 envelope is BadInput."""
    with pytest.raises(BadInput, match="not a dead letter of version 1"):
        DeadLetter.decode(value)


def test_equal_letters_are_equal():
    """Decoding compares every field, so the round trip above means something."""
    letter = DeadLetter.decode(GOOD)
    assert replace(letter, replays=1) != letter


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"text": "13800138000"}', '{"text": "<PHONE>"}'),
        ('{"text": "急用钱 a@b.cc"}'.encode(), '{"text": "急用钱 <EMAIL>"}'),
        (rb'{"text": "\uff11\uff13\uff18\uff10\uff10\uff11\uff13\uff18\uff10\uff10\uff10"}', '{"text": "<PHONE>"}'),
        (rb"\u0031\u0033800138000", "<PHONE>"),
        (b"a\x00\n\x1b[31mb", "a   [31mb"),
        (rb"\ud800", " "),
        (b"\xff\xfeok", "\ufffd\ufffdok"),
        (b"", ""),
    ],
)
def test_previews_are_masked_and_printable(raw, shown):
    """Numbers are hidden even when escaped, control characters do not reach a terminal."""
    assert preview(raw) == shown


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4000))
def test_previews_fit_a_line(raw):
    """Any bytes: one printable line of bounded length."""
    shown = preview(raw)
    assert len(shown) <= PREVIEW_CHARS
    assert shown.isprintable()
