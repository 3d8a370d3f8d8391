"""What an event says of itself: the calendar of the configured time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import NOTHING_SHARED

from fraudguard.domain import WEEKDAYS

NIGHT = (86_399_999_999 / 3.6e9, "sunday", 22, 11, True, 15)
CALENDAR = ("local_time", "weekday", "day_of_month", "month", "is_weekend", "hour")


@pytest.mark.parametrize(
    ("zone", "time", "expected"),
    [
        ("Asia/Shanghai", "2026-11-20T16:00Z", (0.0, "saturday", 21, 11, True, 16)),
        ("Asia/Shanghai", "2026-11-22T15:59:59.999999Z", NIGHT),
        ("Asia/Shanghai", "2026-12-31T16:30Z", (0.5, "friday", 1, 1, False, 16)),
        ("America/New_York", "2026-11-01T05:30Z", (1.5, "sunday", 1, 11, True, 5)),  # before clocks go back
        ("America/New_York", "2026-11-01T06:30Z", (1.5, "sunday", 1, 11, True, 6)),  # and after
        ("Asia/Kolkata", "2026-03-01T00:00Z", (5.5, "sunday", 1, 3, True, 0)),
        ("Asia/Shanghai", "9999-12-31T23:00Z", (23.0, "friday", 31, 12, False, 23)),  # there is no year 10000
        ("America/New_York", "0001-01-01T01:00Z", (1.0, "monday", 1, 1, False, 1)),  # and no year 0
    ],
)
def test_calendar_is_local(account, payment, zone, time, expected):
    """Time of day, weekday, day and month of the zone, daylight saving included; `hour` stays in UTC."""
    event = payment(event_time=datetime.fromisoformat(time))
    features = account(zone=ZoneInfo(zone)).take(event, *NOTHING_SHARED).features
    assert tuple(features[name] for name in CALENDAR) == expected


@given(time=st.datetimes(timezones=st.just(UTC)))
def test_local_time_is_below_24_and_weekdays_are_the_words(account, payment, time):
    """Of every time there is."""
    features = account().take(payment(event_time=time), *NOTHING_SHARED).features
    assert 0 <= features["local_time"] < 24
    assert features["is_weekend"] == (features["weekday"] in WEEKDAYS[5:])


def test_account_is_a_feature(account, payment, message):
    """Rules may name it, of transactions and of messages."""
    state = account()
    assert [state.take(e, *NOTHING_SHARED).features["account_id"] for e in (payment(), message(1))] == ["a-1", "a-1"]
