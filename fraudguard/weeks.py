"""ISO weeks of a time zone, Monday to Sunday, as spans of moments. Knows the calendar only."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from fraudguard.errors import BadInput

WEEKS_MAX: Final = 520


@dataclass(frozen=True, slots=True, order=True)
class Week:
    """An ISO week of the time zone, from its Monday's midnight to before the next one's."""

    monday: date
    first: datetime
    before: datetime

    @property
    def name(self) -> str:
        """Like 2026-W43."""
        year, number, _ = self.monday.isocalendar()
        return f"{year}-W{number:02}"


def weeks_of(first: date, last: date, zone: ZoneInfo) -> tuple[Week, ...]:
    """The weeks from that of one day to that of another. Raises BadInput beyond WEEKS_MAX or the calendar."""
    monday = first - timedelta(days=first.weekday())
    count = (last - monday).days // 7 + 1
    if count > WEEKS_MAX:
        raise BadInput(f"{first} to {last} are {count:,} weeks", path="--since", hint=f"at most {WEEKS_MAX}")
    try:
        mondays = [monday + timedelta(weeks=n) for n in range(count + 1)]
        moments = [datetime.combine(day, time(), zone).astimezone(UTC) for day in mondays]
    except OverflowError as error:
        raise BadInput(
            f"{first} to {last} is outside of the calendar", path="--since", hint="say which weeks"
        ) from error
    return tuple(map(Week, mondays[:-1], moments[:-1], moments[1:]))
