"""What the windows and the profile read of an event, computed once: its time, base amount and hashed entities."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final, Literal

from fraudguard.domain import Message, Screenable
from fraudguard.features.money import Rates

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US


def microseconds(time: datetime) -> int:
    """Whole microseconds since 1970-01-01 UTC; negative before."""
    return (time - EPOCH) // _MICROSECOND


def time_of(us: int) -> datetime:
    """The inverse of `microseconds`."""
    return EPOCH + timedelta(microseconds=us)


def entity_hash(entity_id: str) -> int:
    """63 bits of BLAKE2b: stored instead of ids, so that a state is bounded and holds no ids."""
    return int.from_bytes(blake2b(entity_id.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, slots=True)
class Facts:
    """us: event time in microseconds. cents: amount in hundredths of the base currency, None without a rate."""

    flow: Literal["out", "in", "message"]
    us: int
    cents: int | None = None
    transfer: bool = False
    counterparty: int | None = None
    device: int | None = None
    country: str | None = None
    by_counterparty: bool = False


def facts_of(event: Screenable, rates: Rates) -> Facts:
    """The facts of one event."""
    us = microseconds(event.event_time)
    if isinstance(event, Message):
        return Facts("message", us, by_counterparty=event.sender == "counterparty")
    return Facts(
        "out" if event.direction == "debit" else "in",
        us,
        rates.cents(event.amount, event.currency),
        event.kind == "transfer",
        None if event.counterparty_id is None else entity_hash(event.counterparty_id),
        None if event.device_id is None else entity_hash(event.device_id),
        event.country,
    )
