"""Which months a batch needs."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.decisions.batch import months_of


@pytest.mark.parametrize(
    ("at", "own", "ahead"),
    [
        (datetime(2026, 11, 30, 23, 59, tzinfo=UTC), {date(2026, 11, 1)}, {date(2026, 11, 1), date(2026, 12, 1)}),
        (datetime(2026, 12, 1, tzinfo=UTC), {date(2026, 12, 1)}, {date(2026, 12, 1), date(2027, 1, 1)}),
        (datetime(2049, 12, 31, tzinfo=UTC), {date(2049, 12, 1)}, {date(2049, 12, 1)}),
        (datetime(2009, 12, 31, tzinfo=UTC), set(), {date(2010, 1, 1)}),
        (datetime(2050, 1, 1, tzinfo=UTC), set(), set()),
        (datetime.max.replace(tzinfo=UTC), set(), set()),
        (datetime.min.replace(tzinfo=UTC), set(), set()),
    ],
)
def test_months(at: datetime, own: set[date], ahead: set[date]) -> None:
    """An event needs its month and, ahead, the next one, within the years that have partitions."""
    assert months_of([at], ahead=False) == own
    assert months_of([at], ahead=True) == ahead


@settings(max_examples=50, deadline=None)
@given(st.lists(st.datetimes(timezones=st.just(UTC)), max_size=20))
def test_ahead_covers_own(times: list[datetime]) -> None:
    """Whatever the times, what is made ahead includes what is needed now, all first days."""
    own, ahead = months_of(times, ahead=False), months_of(times, ahead=True)
    assert own <= ahead
    assert len(ahead) <= 2 * len(times)
    assert all(month.day == 1 and 2010 <= month.year <= 2049 for month in ahead)
