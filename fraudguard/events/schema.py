"""From the bytes of one record to an event, and back; the wire format's errors and its published JSON Schemas.

Knows JSON, the wire types of `domain` and how to say what is wrong with an event without quoting it: a reason never
holds a value that somebody sent, and names that somebody made up are masked. Knows no Kafka and no files.
"""

import json
import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fraudguard.domain import Decision, Event, Label, Message, Transaction
from fraudguard.errors import BadEvent
from fraudguard.events.masking import mask_text
from fraudguard.tenants import ATTRIBUTE, HOUSE, NAME

# The largest event that obeys the bounds, with every character escaped, has about half of it; Kafka's own default too.
EVENT_BYTES_MAX = 1 << 20
PATHS_NAMED_MAX = 5

TYPES: dict[str, type[Transaction | Message | Label]] = {
    "transaction": Transaction,
    "message": Message,
    "label": Label,
}

_OWN_FIELDS = "put fields of your own under `attributes`"
_HINTS = {
    "event_id": "send 1 to 128 printable characters without surrounding spaces",
    "account_id": "send 1 to 128 printable characters without surrounding spaces",
    "event_time": "send RFC 3339 with a zone, like 2026-11-21T10:00:00.000Z",
    "amount": 'send a positive decimal string in whole and minor units, like "50000.00"; the sign is in `direction`',
    "currency": "send three capital letters of ISO 4217, like CNY",
    "country": "send two capital letters of ISO 3166, like CN",
    "ip": "send an IPv4 or IPv6 address, like 203.0.113.5",
    "language": "send a language tag, like zh or en-US",
    "text": "send 1 to 8,000 characters; split a longer utterance into several messages",
    "memo": "send at most 1,000 characters",
    "attributes": "send at most 32 names, each with a string (up to 1,000 characters), a number or a boolean",
}


class _Refused(ValueError):
    """What the JSON reader's hooks raise; the message is ours and quotes nothing."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused("an object names the same field twice")
    return found


def _constant(_: str) -> NoReturn:
    raise _Refused("NaN and Infinity are not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Refused("a number is too large")
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def parse_event(
    raw: bytes, key: bytes | None = None, appended_at: datetime | None = None, future_s: int = 300
) -> Event:
    """One record's value as an event, not masked yet.

    appended_at: when the broker appended the record; None for a line of a file. With it, or with a key, the record's
    key must be the event's account_id, and the event may be at most future_s seconds ahead of it.
    Raises BadEvent, and nothing else, for any bytes.
    """
    event = _validate(_read(raw))
    _check_tenant(event)
    if (key is not None or appended_at is not None) and key != event.account_id.encode():
        raise BadEvent(
            "the record has no key" if key is None else "the record's key is not the event's account_id",
            code="wrong_key",
            path="account_id",
            hint="key every record by account_id, so that an account's events stay in order",
        )
    if appended_at is not None and event.event_time - appended_at > timedelta(seconds=future_s):
        ahead_s = int((event.event_time - appended_at).total_seconds())
        raise BadEvent(
            f"lies {ahead_s} s ahead of the time the broker took the record, {future_s} s at most",
            code="future_event_time",
            path="event_time",
            hint="check the sender's clock and its time zone",
        )
    return event


def encode(model: BaseModel) -> bytes:
    """An event or a decision as it goes over the wire: compact JSON in UTF-8."""
    return model.model_dump_json().encode()


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas (2020-12) of what users send and get, by name: transaction, message, label, decision."""
    schemas = {name: model.model_json_schema() for name, model in TYPES.items()}
    schemas["decision"] = Decision.model_json_schema(mode="serialization")
    for name, schema in schemas.items():
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = f"fraudguard {name}, version 1"
    return schemas


def _read(raw: bytes) -> dict[str, Any]:
    """The record's JSON object."""
    if len(raw) > EVENT_BYTES_MAX:
        raise BadEvent(
            f"the record has {len(raw):,} bytes, {EVENT_BYTES_MAX:,} at most", code="too_large", hint="send less text"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        reason = f"the record is not UTF-8 at byte {error.start}"
        raise BadEvent(reason, code="not_utf8", hint="encode the JSON in UTF-8") from None
    try:
        value = _decoder.decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        reason = f"the record is not JSON: {error.msg} at character {error.pos}" if text else "the record is empty"
        raise BadEvent(reason, code="bad_json", hint="send one JSON object, without a byte order mark") from None
    except _Refused as error:
        raise BadEvent(str(error), code="bad_json", hint="send each field once, with finite numbers") from None
    except UnicodeEncodeError:
        reason = "a string holds half of a surrogate pair"
        raise BadEvent(reason, code="bad_json", hint="escape characters as JSON does, or send plain UTF-8") from None
    except RecursionError:
        raise BadEvent("the record is nested too deeply", code="bad_json", hint="events are flat") from None
    except ValueError:  # an integer of more digits than Python converts
        raise BadEvent("a number is too large", code="bad_json", hint="send long numbers as strings") from None
    if not isinstance(value, dict):
        reason = f"the record is {_kind(value)}, not an object"
        raise BadEvent(reason, code="bad_json", hint='send one event a record: {"type": "transaction", ...}')
    return value


def _validate(fields: dict[str, Any]) -> Event:
    event_type = fields.get("type")
    model = TYPES.get(event_type) if isinstance(event_type, str) else None
    if model is None:
        reason = "is missing" if "type" not in fields else "is not a known type"
        raise BadEvent(reason, code="unknown_type", path="type", hint=_choose(event_type, TYPES))
    version = fields.get("version")
    if type(version) is not int or version != 1:
        reason = "is missing" if "version" not in fields else "is not a known version"
        raise BadEvent(reason, code="unknown_version", path="version", hint="this build reads version 1, an integer")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _explain(model, error.errors(include_url=False)) from None


def _check_tenant(event: Event) -> None:
    """Whose an event is decides who sees it, so a name that is none is refused, never taken for the house's."""
    named = event.attributes.get(ATTRIBUTE, HOUSE)
    if named != HOUSE and (not isinstance(named, str) or not NAME.fullmatch(named) or mask_text(named) != named):
        raise BadEvent(
            "is no tenant's name",
            code="bad_field",
            path=f"attributes.{ATTRIBUTE}",
            hint="send 1 to 64 letters, digits, dots, dashes and underlines, without long numbers",
        )


def _explain(model: type[BaseModel], errors: list[ErrorDetails]) -> BadEvent:
    """The first error in full, and where the others are. A name that is nearly right is told before what it caused."""
    errors.sort(key=lambda error: error["type"] != "extra_forbidden")
    first = errors[0]
    path = _path(first)
    code, reason, hint = _describe(model, first, path.partition(".")[0])
    others = list(dict.fromkeys(p for error in errors if (p := _path(error)) != path))
    if others:
        more = f" and {len(others) - PATHS_NAMED_MAX} more" if len(others) > PATHS_NAMED_MAX else ""
        hint = f"{hint}; also wrong: {', '.join(others[:PATHS_NAMED_MAX])}{more}"
    return BadEvent(reason, code=code, path=path, hint=hint)


def _describe(model: type[BaseModel], error: ErrorDetails, field: str) -> tuple[str, str, str]:
    """Code, reason and hint of one error. Nothing of `error["input"]` but its kind and length may get out."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    hint = _HINTS.get(field, _HINTS["event_id"] if field.endswith("_id") else "see the JSON Schema of this type")
    if kind == "extra_forbidden":
        meant = get_close_matches(str(error["loc"][-1])[:64], list(model.model_fields), n=1)
        return (
            "unknown_field",
            "is not a field",
            f"did you mean `{meant[0]}`? Else {_OWN_FIELDS}" if meant else _OWN_FIELDS,
        )
    if kind == "missing":
        return "missing_field", "is missing", hint
    if kind == "string_too_long":
        return "too_long", f"has {len(value):,} characters, {context['max_length']:,} at most", hint
    if kind == "too_long":
        return "too_long", f"has {len(value)} entries, {context['max_length']} at most", hint
    if kind in ("literal_error", "enum"):
        allowed = [part for part in context["expected"].split("'") if part.isidentifier() and part != "or"]
        return "bad_field", "is not one of the values allowed", _choose(value, allowed)
    if kind == "string_too_short":
        return "bad_field", "must not be empty", hint
    if kind == "string_pattern_mismatch":
        return "bad_field", "is not written as required", hint
    if kind == "value_error":
        return "bad_field", str(context["error"]), hint
    if kind in ("string_type", "dict_type"):
        expected = "a string" if kind == "string_type" else "an object"
        return "bad_field", f"must be {expected}, not {_kind(value)}", hint
    if kind in ("minor_units", "greater_than", "decimal_max_digits"):
        return "bad_field", error["msg"].removeprefix("Decimal input ").removeprefix("Input "), hint
    return "bad_field", "cannot be used", hint


def _path(error: ErrorDetails) -> str:
    """`amount`, `attributes.x`. Names are the sender's own words: masked, bounded and printable."""
    location = error["loc"]
    if not location:
        return str(error.get("ctx", {}).get("field", ""))
    # What follows an attribute's name is how the type checker got there.
    return ".".join(_name(part) for part in location[:2])


def _name(part: str | int) -> str:
    masked = mask_text(str(part)[:64])
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in masked)


def _choose(value: object, allowed: Iterable[str]) -> str:
    options = list(allowed)
    near = get_close_matches(value[:64], options, n=1) if isinstance(value, str) else []
    meant = f"did you mean `{near[0]}`? " if near else ""
    return f"{meant}Send one of {', '.join(options)}"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names[type(value)]
