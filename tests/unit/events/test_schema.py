"""Reading bytes as events: strict, with named errors, and never another exception."""

import json
from datetime import UTC, datetime, timedelta, timezone

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fraudguard.domain import Event, Label, Message, Transaction
from fraudguard.errors import BadEvent
from fraudguard.events.schema import EVENT_BYTES_MAX, encode, json_schemas, parse_event

TRANSACTION = {
    "type": "transaction", "version": 1, "event_id": "t-1", "account_id": "a-1",
    "event_time": "2026-11-21T10:00:00.000Z", "direction": "debit", "kind": "transfer", "channel": "app",
    "amount": "50000.00", "currency": "CNY", "counterparty_id": "c-9", "merchant_id": None, "device_id": "d-1",
    "ip": "203.0.113.5", "country": "CN", "memo": "货款", "attributes": {},
}  # fmt: skip
MESSAGE = {
    "type": "message", "version": 1, "event_id": "m-1", "account_id": "a-1", "event_time": "2026-11-21T09:58:00.000Z",
    "conversation_id": "k-1", "channel": "chat", "sender": "counterparty", "language": "zh",
    "text": "急用钱，先转到安全账户", "attributes": {},
}  # fmt: skip
LABEL = {
    "type": "label", "version": 1, "event_id": "l-1", "account_id": "a-1", "event_time": "2026-11-28T09:00:00.000Z",
    "target_event_id": "t-1", "source": "chargeback", "verdict": "fraud", "typology": "scam",
}  # fmt: skip
EVENTS = {"transaction": TRANSACTION, "message": MESSAGE, "label": LABEL}


def _bytes(fields: dict) -> bytes:
    return json.dumps(fields).encode()


def _refused(raw: bytes, **more) -> BadEvent:
    with pytest.raises(BadEvent) as raised:
        parse_event(raw, **more)
    return raised.value


def _answer(raw: bytes) -> Event | BadEvent:
    try:
        return parse_event(raw)
    except BadEvent as error:
        return error


@pytest.mark.parametrize(("fields", "model"), [(TRANSACTION, Transaction), (MESSAGE, Message), (LABEL, Label)])
def test_events_survive_the_wire(fields, model):
    """What is read and written again is the same event, byte for byte the second time."""
    event = parse_event(_bytes(fields))
    assert type(event) is model
    assert json.loads(encode(event)) == fields
    assert encode(parse_event(encode(event))) == encode(event)


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"version": True}, "unknown_version", "version"),
        ({"version": 1.0}, "unknown_version", "version"),
        ({"version": "1"}, "unknown_version", "version"),
        ({"version": 2}, "unknown_version", "version"),
        ({"version": None}, "unknown_version", "version"),
        ({"type": "transfer"}, "unknown_type", "type"),
        ({"type": ["transaction"]}, "unknown_type", "type"),
        ({"event_id": ""}, "bad_field", "event_id"),
        ({"event_id": " t"}, "bad_field", "event_id"),
        ({"event_id": "t\n"}, "bad_field", "event_id"),
        ({"event_id": "t\u202e1"}, "bad_field", "event_id"),
        ({"event_id": 7}, "bad_field", "event_id"),
        ({"event_id": "t" * 129}, "too_long", "event_id"),
        ({"amount": 50000}, "bad_field", "amount"),
        ({"amount": 50000.0}, "bad_field", "amount"),
        ({"amount": "0"}, "bad_field", "amount"),
        ({"amount": "0.00"}, "bad_field", "amount"),
        ({"amount": "-1"}, "bad_field", "amount"),
        ({"amount": "+1"}, "bad_field", "amount"),
        ({"amount": "1e3"}, "bad_field", "amount"),
        ({"amount": "NaN"}, "bad_field", "amount"),
        ({"amount": "５０"}, "bad_field", "amount"),
        ({"amount": "1,000"}, "bad_field", "amount"),
        ({"amount": "1."}, "bad_field", "amount"),
        ({"amount": " 1"}, "bad_field", "amount"),
        ({"amount": "1\n"}, "bad_field", "amount"),
        ({"amount": "1.001"}, "bad_field", "amount"),
        ({"amount": "1.0", "currency": "JPY"}, "bad_field", "amount"),
        ({"amount": "1.0001", "currency": "KWD"}, "bad_field", "amount"),
        ({"amount": "1234567890123456789"}, "bad_field", "amount"),
        ({"amount": "99999999999999999.99"}, "bad_field", "amount"),
        ({"currency": "cny"}, "bad_field", "currency"),
        ({"currency": "CNX"}, "bad_field", "currency"),
        ({"currency": "RMB"}, "bad_field", "currency"),
        ({"country": "CHN"}, "bad_field", "country"),
        ({"ip": "1.2.3"}, "bad_field", "ip"),
        ({"ip": "1.2.3.04"}, "bad_field", "ip"),
        ({"ip": "fe80::1%eth0"}, "bad_field", "ip"),
        ({"ip": 16909060}, "bad_field", "ip"),
        ({"event_time": "2026-11-21T10:00:00"}, "bad_field", "event_time"),
        ({"event_time": "2026-11-21"}, "bad_field", "event_time"),
        ({"event_time": "2026-02-30T10:00:00Z"}, "bad_field", "event_time"),
        ({"event_time": "2026-11-21T24:00:00Z"}, "bad_field", "event_time"),
        ({"event_time": "2026-06-30T23:59:60Z"}, "bad_field", "event_time"),
        ({"event_time": "0000-01-01T00:00:00Z"}, "bad_field", "event_time"),
        ({"event_time": "0001-01-01T00:00:00+10:00"}, "bad_field", "event_time"),
        ({"event_time": "9999-12-31T23:59:59-10:00"}, "bad_field", "event_time"),
        ({"event_time": "2026-11-21T10:00:00+99:00"}, "bad_field", "event_time"),
        ({"event_time": "٢٠٢٦-11-21T10:00:00Z"}, "bad_field", "event_time"),
        ({"event_time": 1795255200}, "bad_field", "event_time"),
        ({"direction": "in"}, "bad_field", "direction"),
        ({"direction": None}, "bad_field", "direction"),
        ({"memo": "x" * 1001}, "too_long", "memo"),
        ({"memo": "\x00"}, "bad_field", "memo"),
        ({"memo": "\ud800"}, "bad_json", ""),
        ({"attributes": None}, "bad_field", "attributes"),
        ({"attributes": []}, "bad_field", "attributes"),
        ({"attributes": {"x": None}}, "bad_field", "attributes.x"),
        ({"attributes": {"x": [1]}}, "bad_field", "attributes.x"),
        ({"attributes": {"x": {"y": 1}}}, "bad_field", "attributes.x"),
        ({"attributes": {"x": 2**53}}, "bad_field", "attributes.x"),
        ({"attributes": {"x": "y" * 1001}}, "too_long", "attributes.x"),
        ({"attributes": {"": 1}}, "bad_field", "attributes."),
        ({"attributes": {str(n): n for n in range(33)}}, "too_long", "attributes"),
        ({"amuont": "1"}, "unknown_field", "amuont"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(change, code, path):
    """Each has its code, the field's path and a hint."""
    error = _refused(_bytes(TRANSACTION | change))
    assert (error.code, error.path) == (code, path)
    assert error.hint


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "999999999999999999"}, {"amount": "0.01"}, {"amount": "1", "currency": "JPY"},
        {"amount": "1.001", "currency": "KWD"}, {"event_time": "2026-11-21t18:00:00.123456789+08:00"},
        {"event_time": "1970-01-01T00:00:00-00:00"}, {"ip": "2001:db8::1"}, {"memo": ""}, {"memo": None},
        {"event_id": "t" * 128}, {"event_id": "交易 1"}, {"attributes": {"x": -(2**53) + 1, "y": 0.5, "z": False}},
        {"attributes": {str(n): n for n in range(32)}},
    ],
)  # fmt: skip
def test_bounds_are_inside(change):
    """The last good value of each bound is taken."""
    assert parse_event(_bytes(TRANSACTION | change)).event_id


def test_text_has_1_to_8000_characters():
    """Counted in characters, not bytes; a longer text is refused with its length."""
    assert parse_event(_bytes(MESSAGE | {"text": "😀" * 8000})).text == "😀" * 8000
    error = _refused(_bytes(MESSAGE | {"text": "急" * 8001}))
    assert (error.code, error.path) == ("too_long", "text")
    assert error.reason == "has 8,001 characters, 8,000 at most"
    assert _refused(_bytes(MESSAGE | {"text": ""})).path == "text"


def test_the_largest_legal_event_is_taken():
    """Every bound reached at once, every character escaped: still below the size limit."""
    fields = MESSAGE | {
        "text": "😀" * 8000,
        "attributes": {("😀" * 126 + f"{n:02}"): "😀" * 1000 for n in range(32)},
    }
    raw = _bytes(fields)
    assert len(raw) < EVENT_BYTES_MAX
    assert len(parse_event(raw).attributes) == 32


def test_several_errors_are_told_at_once():
    """The first in full, a name that is nearly right before what it causes, the others by their paths."""
    fields = {k: v for k, v in TRANSACTION.items() if k != "amount"} | {"amuont": "1", "kind": "x"}
    error = _refused(_bytes(fields))
    assert error.hint == (
        "did you mean `amount`? Else put fields of your own under `attributes`; also wrong: kind, amount"
    )


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "bad_json"), (b" ", "bad_json"), (b"{", "bad_json"), (b"{} {}", "bad_json"), (b"null", "bad_json"),
        (b'"x"', "bad_json"), (b"[]", "bad_json"), (b"1", "bad_json"), (b"true", "bad_json"), (b"NaN", "bad_json"),
        (b'{"a": -Infinity}', "bad_json"), (b'{"a": 1e999}', "bad_json"), (b'{"a": ' + b"9" * 5000 + b"}", "bad_json"),
        (b'{"a": 1, "a": 1}', "bad_json"), (b'{"x": {"a": 1, "\\u0061": 1}}', "bad_json"),
        (b"\xef\xbb\xbf{}", "bad_json"),
        (b'{"a": "\x00"}', "bad_json"), (b'{"a": "\\ud800"}', "bad_json"), (b'{"\\uDfff": 1}', "bad_json"),
        (b"[" * 100_000, "bad_json"), (b'{"a":' * 100_000, "bad_json"), (b'{"a":[' + b"[" * 900, "bad_json"),
        (b"\xff", "not_utf8"), (b'{"a": "\xed\xa0\x80"}', "not_utf8"), ('{"a": "é"}'.encode("latin-1"), "not_utf8"),
        ("{}".encode("utf-16"), "not_utf8"), (b"{}" * (5 << 20), "too_large"), (b"{}", "unknown_type"),
    ],
    ids=lambda value: repr(value[:24]),
)  # fmt: skip
def test_what_is_no_event_at_all(raw, code):
    """Bytes that are not one JSON object of a known type have a code too."""
    assert _refused(raw).code == code


def test_the_key_must_be_the_account():
    """From Kafka, no key and another key are refused; without one being given, as in a file, none is asked for."""
    raw, now = _bytes(MESSAGE), datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert parse_event(raw, b"a-1", now).account_id == "a-1"
    assert parse_event(raw).account_id == "a-1"
    assert _refused(raw, key=b"a-2").code == "wrong_key"
    assert _refused(raw, key=b"a-2", appended_at=now).code == "wrong_key"
    assert _refused(raw, key=None, appended_at=now).code == "wrong_key"


def test_the_future_has_a_bound():
    """Exactly future_s ahead of the append time is taken, a millisecond more is not; the past has no bound."""
    at = datetime(2026, 11, 21, 9, 58, tzinfo=UTC)
    raw = _bytes(MESSAGE)
    assert parse_event(raw, b"a-1", at - timedelta(seconds=300))
    error = _refused(raw, key=b"a-1", appended_at=at - timedelta(seconds=300, milliseconds=1))
    assert (error.code, error.path) == ("future_event_time", "event_time")
    assert parse_event(raw, b"a-1", at - timedelta(seconds=10), future_s=10)
    assert parse_event(raw, b"a-1", at.replace(year=9999))


def test_times_are_kept_in_utc():
    """Another zone's time is the same moment; nine decimals are cut to six."""
    event = parse_event(_bytes(MESSAGE | {"event_time": "2026-11-21T18:00:00.123456789+08:00"}))
    assert event.event_time == datetime(2026, 11, 21, 18, 0, 0, 123456, timezone(timedelta(hours=8)))
    assert json.loads(encode(event))["event_time"] == "2026-11-21T10:00:00.123456Z"


SECRET = "13800138000"


@pytest.mark.parametrize("fields", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("wrong", [SECRET, {"x": SECRET}, [SECRET], int(SECRET), SECRET * 1000, f"\x00{SECRET}"])
def test_errors_never_quote_the_event(fields, wrong):
    """Whatever field holds what it must not, the error's texts do not hold it; nor a name that somebody made up."""
    changes = [{name: wrong} for name in fields] + [{SECRET: 1}, {"attributes": {SECRET: wrong}}]
    for change in changes:
        answer = _answer(_bytes(fields | change))
        if isinstance(answer, BadEvent):
            assert SECRET not in f"{answer} {answer.reason} {answer.path} {answer.hint} {answer.code}"
            assert answer.path.isprintable()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def _spoilt_bytes(draw) -> bytes:
    """A good event's bytes with pieces cut out, doubled, or replaced."""
    raw = bytearray(json.dumps(draw(st.sampled_from(list(EVENTS.values()))), ensure_ascii=False).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.integers(0, 12)))
        raw[start:end] = draw(st.binary(max_size=6) | st.sampled_from([b'"', b"\\u0000", b"{", b"1e400", b"\\ud800"]))
    return bytes(raw)


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=200) | _spoilt_bytes() | _json.map(lambda v: json.dumps(v).encode()))
@example(raw=b'{"type":"label","version":1' + b',"a":{"b":1}' * 3 + b"}")
def test_any_bytes_are_an_event_or_a_bad_event(raw):
    """No bytes raise anything but BadEvent, and every BadEvent can be written down."""
    answer = _answer(raw)
    if isinstance(answer, BadEvent):
        assert answer.code
        assert str(answer).encode()
    else:
        assert encode(parse_event(encode(answer))) == encode(answer)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(EVENTS)))
def test_accepted_events_obey_the_published_schemas(data, kind):
    """Any value in any field: what the reader takes, the schema takes, as sent and as written."""
    fields = dict(EVENTS[kind])
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)):
        fields[name] = data.draw(
            _json | st.text("0123456789.", max_size=8) | st.sampled_from(["USD", "zh-CN", "agent"])
        )
    answer = _answer(_bytes(fields))
    if not isinstance(answer, BadEvent):
        validator = jsonschema.Draft202012Validator(json_schemas()[kind])
        validator.validate(fields)
        validator.validate(json.loads(encode(answer)))
