"""The `event` group of the registry: what an event itself says, its attributes included.

Knows one event, its base amount and the time zone of its calendar features; knows no other event.
"""

from datetime import UTC
from typing import Final
from zoneinfo import ZoneInfo

from fraudguard.domain import WEEKDAYS, Message, Scalar, Screenable
from fraudguard.features.facts import HOUR_US, Facts

_SATURDAY: Final = 5


def event_features(event: Screenable, facts: Facts, zone: ZoneInfo, *, late: bool) -> dict[str, Scalar]:
    """Every feature of the group and `attributes.NAME` for each attribute. zone: of the calendar features."""
    features: dict[str, Scalar] = {
        "event_type": event.type,
        "account_id": event.account_id,
        "channel": event.channel,
        "hour": event.event_time.hour,
        "late": late,
        **_calendar(event, zone),
    }
    if isinstance(event, Message):
        features |= _NO_TRANSACTION
        features |= {"sender": event.sender, "language": event.language, "text": event.text}
    else:
        features |= _NO_MESSAGE
        features |= {
            "direction": event.direction,
            "kind": event.kind,
            "amount": float(event.amount),
            "currency": event.currency,
            "amount_base": None if facts.cents is None else facts.cents / 100,
            "counterparty_id": event.counterparty_id,
            "merchant_id": event.merchant_id,
            "device_id": event.device_id,
            "ip": event.ip,
            "country": event.country,
            "memo": event.memo,
        }
    features |= {f"attributes.{name}": value for name, value in event.attributes.items()}
    return features


def _calendar(event: Screenable, zone: ZoneInfo) -> dict[str, Scalar]:
    try:
        local = event.event_time.astimezone(zone)
    except OverflowError:  # the first and the last hours of the years 1 and 9999
        local = event.event_time.astimezone(UTC)
    weekday = local.weekday()
    us = ((local.hour * 60 + local.minute) * 60 + local.second) * 1_000_000 + local.microsecond
    return {
        "local_time": us / HOUR_US,
        "weekday": WEEKDAYS[weekday],
        "day_of_month": local.day,
        "month": local.month,
        "is_weekend": weekday >= _SATURDAY,
    }


_NO_MESSAGE: Final[dict[str, Scalar]] = dict.fromkeys(("sender", "language", "text"))
_NO_TRANSACTION: Final[dict[str, Scalar]] = dict.fromkeys(
    (
        "direction", "kind", "amount", "currency", "amount_base", "counterparty_id", "merchant_id", "device_id", "ip",
        "country", "memo",
    )
)  # fmt: skip
