"""Figures for the console's small charts, drawn as SVG by the templates: no library, no script, no inline style."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import quantiles
from typing import Final
from zoneinfo import ZoneInfo

HEIGHT: Final = 40.0
STEP: Final = 8.0
_DAYS_FOR_A_BAND: Final = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One day. x and y from the top left; last: the day that the case is about."""

    day: date
    value: float
    x: float
    y: float
    height: float
    last: bool


@dataclass(frozen=True, slots=True)
class Spark:
    """Days up to the case's. low, high: the middle half of the days before that had any; None with too few of them."""

    bars: tuple[Bar, ...]
    width: float
    top: float
    low: float | None
    high: float | None

    def y(self, value: float) -> float:
        """Where a value stands."""
        return HEIGHT - (value / self.top * HEIGHT if self.top else 0.0)


def spark(values: Mapping[date, float], at: datetime, zone: str, days: int) -> Spark:
    """Bars of the `days` local days that end with the day of `at`."""
    end = at.astimezone(ZoneInfo(zone)).date()
    span = [end - timedelta(days=back) for back in range(days - 1, -1, -1)]
    top = max((values.get(day, 0.0) for day in span), default=0.0)
    before = [values[day] for day in span[:-1] if values.get(day)]
    low, _, high = quantiles(before, n=4) if len(before) >= _DAYS_FOR_A_BAND else (None, None, None)
    bars = []
    for place, day in enumerate(span):
        value = values.get(day, 0.0)
        height = max(value / top * HEIGHT, 1.0) if value and top else 0.0
        bars.append(Bar(day, value, place * STEP, HEIGHT - height, height, day == end))
    return Spark(tuple(bars), days * STEP, top, low, high)
