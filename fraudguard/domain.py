"""The frozen value types that the rooms exchange, in the order data flows.

Knows the wire format's fields and their bounds (version 1) and nothing of Kafka, files, torch or SQL.
Turning bytes into these types, with readable errors, is `events/schema.py`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, Self

import iso4217
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

Scalar = float | int | str | bool | None

# ---------------------------------------------------------------- events


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, or microseconds where the event has them."""
    value = value.astimezone(UTC)
    spec = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.isoformat(timespec=spec).replace("+00:00", "Z")


# Fractions beyond microseconds are cut off: Java clocks write nine digits.
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 time with zone, like 2026-11-21T10:00:00.000Z")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise ValueError("must be a date and time that exist (leap seconds are not accepted)") from error


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from error


def _decimal_string(value: Any) -> Any:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,18}(\.\d{1,6})?", value, re.ASCII):
        raise ValueError('must be a decimal string of at most 18 digits, like "50000.00"')
    return Decimal(value)


def _printable(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable characters without surrounding spaces")
    return value


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain the NUL character")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("must not contain unpaired surrogates")
    return value


# Metals and test codes have no minor unit: they count in whole units.
_MINOR_UNITS: dict[str, int] = {currency.value: currency.exponent or 0 for currency in iso4217.Currency}


def _currency(value: str) -> str:
    if value not in _MINOR_UNITS:
        raise ValueError("must be an ISO 4217 code, like CNY")
    return value


def _ip(value: str) -> str:
    try:
        if "%" in value:  # a zone index means something on one machine only
            raise ValueError
        ip_address(value)
    except ValueError as error:
        raise ValueError("must be an IPv4 or IPv6 address, like 203.0.113.5") from error
    return value


def _integer(value: Any) -> Any:
    if type(value) is not int:  # True == 1 == 1.0 in Python, but not on the wire
        raise ValueError("must be the integer 1")
    return value


INTEGER_MAX = 2**53 - 1  # larger integers do not survive JavaScript, JSON libraries or the rules' core


def _attribute(value: Any) -> Any:
    if not isinstance(value, str | bool | int | float):
        raise ValueError("must be a string, a number or a boolean")
    if isinstance(value, int) and abs(value) > INTEGER_MAX:
        raise ValueError(f"must lie within +-{INTEGER_MAX}; send longer numbers as strings")
    return value


Id = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_printable)]
Time = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339),
    AfterValidator(_to_utc),
    PlainSerializer(format_time, when_used="json"),
]
Amount = Annotated[
    Decimal,
    BeforeValidator(_decimal_string),
    Field(gt=0, max_digits=18),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,18}(\.[0-9]{1,6})?$", "examples": ["50000.00"]}),
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Ip = Annotated[str, StringConstraints(max_length=45), AfterValidator(_ip)]
TEXT_CHARS_MAX, MEMO_CHARS_MAX, ATTRIBUTE_CHARS_MAX = 8000, 1000, 1000
Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_CHARS_MAX), AfterValidator(_no_nul)]
Memo = Annotated[str, StringConstraints(max_length=MEMO_CHARS_MAX), AfterValidator(_no_nul)]
AttributeText = Annotated[str, StringConstraints(max_length=ATTRIBUTE_CHARS_MAX), AfterValidator(_no_nul)]
AttributeValue = Annotated[AttributeText | bool | int | float, BeforeValidator(_attribute)]
Attributes = Annotated[dict[Id, AttributeValue], Field(max_length=32)]
Language = Annotated[str, StringConstraints(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]


class Typology(StrEnum):
    """The kind of fraud."""

    SCAM = "scam"
    ACCOUNT_TAKEOVER = "account_takeover"
    MONEY_LAUNDERING = "money_laundering"
    CASH_OUT = "cash_out"
    MULE = "mule"
    OTHER = "other"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Event(_Wire):
    version: Annotated[Literal[1], BeforeValidator(_integer)]
    event_id: Id
    account_id: Id
    event_time: Time


class Transaction(_Event):
    """One movement of money, seen from the account."""

    type: Literal["transaction"]
    direction: Literal["debit", "credit"]
    kind: Literal["transfer", "card", "cash", "top_up", "bill", "refund", "other"]
    channel: Literal["app", "web", "card_present", "card_not_present", "atm", "branch", "api"]
    amount: Amount
    currency: Currency
    counterparty_id: Id | None = None
    merchant_id: Id | None = None
    device_id: Id | None = None
    ip: Ip | None = None
    country: Country | None = None
    memo: Memo | None = None
    attributes: Attributes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _minor_units(self) -> Self:
        allowed = _MINOR_UNITS[self.currency]
        given = -int(self.amount.as_tuple().exponent)
        if given > allowed:
            raise PydanticCustomError(
                "minor_units",
                "must have at most {allowed} decimal places in {currency}, not {given}",
                {"field": "amount", "allowed": allowed, "currency": self.currency, "given": given},
            )
        return self


class Message(_Event):
    """One utterance of a conversation around the account."""

    type: Literal["message"]
    conversation_id: Id
    channel: Literal["chat", "call", "sms", "email", "service"]
    sender: Literal["customer", "counterparty", "agent", "system"]
    language: Language | None = None
    text: Text
    attributes: Attributes = Field(default_factory=dict)


class Label(_Event):
    """What a transaction or message turned out to be, told later by a person or a chargeback."""

    type: Literal["label"]
    target_event_id: Id
    source: Literal["chargeback", "analyst", "customer", "law_enforcement", "other"]
    verdict: Literal["fraud", "legitimate"]
    typology: Annotated[Typology, Field(strict=False)] | None = None  # strict would want the enum, not its string
    attributes: Attributes = Field(default_factory=dict, exclude_if=lambda attributes: not attributes)


Screenable = Transaction | Message
Event = Transaction | Message | Label


@dataclass(frozen=True, slots=True)
class Received:
    """One masked event at the door of the pipeline.

    received_at: when the broker appended it (Kafka) or when it was read (file).
    sealed_text: the unmasked text, encrypted; None unless the operator configured a key.
    """

    event: Event
    received_at: datetime
    sealed_text: bytes | None = None


# ---------------------------------------------------------------- features


@dataclass(frozen=True, slots=True)
class Feature:
    """One declared value that rules may name, and the model's head may read.

    window: "1h", "1d", "7d", "30d" or "" for none. model: an input of the joint-fusion head. group `declared`: a window
    of rules/features.yaml.
    """

    name: str
    type: Literal["number", "text", "boolean"]
    unit: str
    window: str
    meaning: str
    group: Literal["event", "velocity", "profile", "feedback", "declared", "conversation", "score"]
    model: bool = False


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Entity = Literal["account", "counterparty", "device", "ip", "merchant"]
# The feature that holds an event's id of each entity.
ENTITY_FIELDS: Mapping[Entity, str] = {
    "account": "account_id",
    "counterparty": "counterparty_id",
    "device": "device_id",
    "ip": "ip",
    "merchant": "merchant_id",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A velocity feature declared in rules/features.yaml: over one entity's events of the last `seconds`.

    of: the event feature that is summed (number) or counted distinct (text); "" for count. matches: whether an event
    counts, given its features of the `event` group and its attributes. key: 16 hex digits over all that changes a
    value; stored state and counters go by it, so a changed declaration never reads what another one counted.
    """

    name: str
    entity: Entity
    aggregate: Literal["count", "sum", "max", "mean", "distinct"]
    of: str
    seconds: int
    key: str
    matches: Callable[[Mapping[str, Scalar]], bool] = field(compare=False)


@dataclass(frozen=True, slots=True)
class WindowCount:
    """One bucket of a declared window of an entity shared by accounts, as stored or as what to add to it.

    window: the key. bucket: event time // bucket length. count: events; total: sum in hundredths; peak: largest, in
    hundredths, None where none had a value; members: 1,024 bits, one set for each distinct value's hash.
    """

    window: str
    entity_id: str
    bucket: int
    count: int
    total: int
    peak: int | None
    members: int


@dataclass(frozen=True, slots=True)
class WatchList:
    """A list of entities declared in rules/lists.yaml; its entries are in the store."""

    name: str
    kind: Literal["allow", "block"]
    entity: Entity
    owner: str
    description: str


# Of the lines' text (features/timeline.py), which a model is trained on: raised with every change of what they say.
TIMELINE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One event as the model reads it; `text` never contains a line break."""

    type: Literal["transaction", "message"]
    event_time: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The account's lines from sequence number `start` on; the last one is the event being screened."""

    account_id: str
    start: int
    lines: tuple[Line, ...]

    @property
    def hash(self) -> str:
        """SHA-256 over the lines as the model reads them, in hex."""
        return hashlib.sha256("\n".join(line.text for line in self.lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the features room says of one event at the moment it was taken.

    sequence: 1, 2, 3... in the account. features: every registry feature but the `score` and
    `conversation` groups, by name; None is a missing value. late: beyond the lateness bound.
    """

    sequence: int
    late: bool
    timeline: Timeline
    features: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class EntityCount:
    """Transactions of one UTC day with an entity shared by accounts, and how many are confirmed fraud.

    As a stored row: the totals. As a change: what to add (frauds may be negative when a label is withdrawn).
    day: days since 1970-01-01 of the transactions' own event times.
    """

    kind: Literal["counterparty", "device", "ip", "merchant"]
    entity_id: str
    day: int
    transactions: int
    frauds: int


# ---------------------------------------------------------------- engine


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A timeline and the numeric features at its last line.

    tenant: whose adapter and head shall read it, where the release has them; else the release's own do.
    """

    timeline: Timeline
    features: Mapping[str, Scalar]
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """risk: calibrated P(fraud) in [0, 1].

    model: what gave it: name@version+precision, or name@version/tenant+precision where a tenant's adapter and head did.
    """

    risk: float
    typology: Typology
    model: str


@dataclass(frozen=True, slots=True)
class Contribution:
    """What leaving one thing out does to a risk. effect: the risk with everything less the risk without it.

    kind and name: `line` and its sequence number in the account; `feature`, the windows of one value together, by its
    name; `group`, all features of one of the registry's groups, by its name.
    """

    kind: Literal["line", "feature", "group"]
    name: str
    effect: float


# ---------------------------------------------------------------- rules


class Outcome(StrEnum):
    """What happens to the event; ordered approve < step_up < review < block by `severity`."""

    APPROVE = "approve"
    STEP_UP = "step_up"
    REVIEW = "review"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """0 for approve to 3 for block."""
        return list(Outcome).index(self)


STOPPED: Final = frozenset({Outcome.REVIEW, Outcome.BLOCK})  # the outcomes that hold a payment up

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that held. state `shadow`: recorded, never acted on; so also a live rule outside of its rollout."""

    rule: str
    version: int
    outcome: Outcome
    reason: str
    state: Literal["live", "shadow"]
    severity: Severity = field(default="medium", compare=False)


# ---------------------------------------------------------------- decisions


class DecisionHit(_Wire):
    """A live rule's hit as consumers see it."""

    rule: str
    version: int
    outcome: Outcome


class Decision(_Wire):
    """The immutable answer to one event, as published, stored and returned.

    risk and typology are null when the decision is degraded. latency_ms: from received_at to decided_at. severity: of
    the strongest of what asked for the outcome; null where nothing did. tenant: whose event it was; left out for the
    house's own.
    """

    decision_id: str
    event_id: Id
    event_type: Literal["transaction", "message"]
    account_id: Id
    sequence: Annotated[int, Field(ge=1)]
    outcome: Outcome
    risk: Annotated[float, Field(ge=0, le=1)] | None
    typology: Typology | None
    reasons: tuple[str, ...]
    hits: tuple[DecisionHit, ...]
    degraded: bool
    model: str
    rules_version: str
    decided_at: Time
    latency_ms: Annotated[float, Field(ge=0)]
    severity: Severity | None = None
    tenant: Annotated[str, Field(max_length=64, exclude_if=lambda tenant: not tenant)] = ""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision with everything that reproduces it: what the `decisions` table holds.

    event is masked. line: this event's line of the timeline. timeline_start: sequence of the timeline's first line.
    hits: live and shadow. policy_version and decision.rules_version name stored documents.
    """

    decision: Decision
    event: Screenable
    received_at: datetime
    late: bool
    line: str
    timeline_start: int
    timeline_hash: str
    features: Mapping[str, Scalar]
    score: Score | None
    hits: tuple[Hit, ...]
    policy_version: str
    sealed_text: bytes | None = None


# ---------------------------------------------------------------- people


class Role(StrEnum):
    """What a caller may do; every route names the roles it serves."""

    SERVICE = "service"  # systems that send events and read decisions
    VIEWER = "viewer"  # reads, masked
    ANALYST = "analyst"  # works cases
    LEAD = "lead"  # works cases, and what an inbox needs besides: assigning, merging, second reviews
    RULE_EDITOR = "rule_editor"  # owns rules, policy and lists
    ADMIN = "admin"  # everything
