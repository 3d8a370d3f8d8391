"""How the console writes money, times, risks and ids. Pure; the zone and the moment are passed in."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from fraudguard.api.console.words import Words
from fraudguard.domain import Feature, Scalar

ID_CHARACTERS: Final = 14


def money(amount: float | Decimal | None, currency: str) -> str:
    """`CNY 50,000`; hundredths only where there are any and the amount is small enough for them to matter."""
    if amount is None:
        return ""
    amount = float(amount)
    cents = abs(amount) < 1_000 and round(amount * 100) % 100 != 0
    return f"{currency} {amount:,.{2 if cents else 0}f}"


def risk(value: float | None) -> str:
    """Two digits, never rounded up to certainty."""
    if value is None:
        return "–"
    return f"{min(value, 0.994):.2f}" if value < 1 else "1.00"


def change(value: float) -> str:
    """A risk's change with its sign."""
    return f"{'+' if value >= 0 else '−'}{abs(value):.2f}"


def time(at: datetime, now: datetime, zone: ZoneInfo, words: Words) -> str:
    """`14:02:11` today, `Mon 14:02` within six days, else the date."""
    local, today = at.astimezone(zone), now.astimezone(zone)
    days = (today.date() - local.date()).days
    if days == 0:
        return f"{local:%H:%M:%S}"
    if 0 < days < 7:
        return f"{words(f'day.{local.weekday()}')} {local:%H:%M}"
    return f"{local:%Y-%m-%d}"


def exact(at: datetime, zone: ZoneInfo) -> str:
    """For a tooltip."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def iso(at: datetime) -> str:
    """For machines."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def age(since: timedelta, words: Words) -> str:
    """`4 min`, `3 h`, `2 d`: its largest unit."""
    seconds = max(0, int(since.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return words(f"unit.{unit}", n=seconds // size)
    return words("unit.s", n=seconds)


def short(identity: str) -> str:
    """An id with its middle left out where it is long; the whole of it stands in a tooltip."""
    if len(identity) <= ID_CHARACTERS:
        return identity
    return f"{identity[:7]}…{identity[-6:]}"


def size(count: int) -> str:
    """`812 B`, `45 KB`, `3.9 MB`."""
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1_000:,.0f} KB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def value(found: Scalar, feature: Feature | None, words: Words) -> str:
    """A feature's value by its unit."""
    if isinstance(found, bool):
        return words("value.yes" if found else "value.no")
    if isinstance(found, str) or found is None:
        return str(found or "")
    unit = feature.unit if feature else ""
    if unit in {"share", "probability"}:
        return f"{found:.2f}"
    if len(unit) == 3 and unit.isupper():
        return money(found, unit)
    return f"{found:,.0f}" if float(found).is_integer() else f"{found:,.1f}"
