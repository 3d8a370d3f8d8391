"""How money, risks, times and days are written, and what the timeline makes of decisions."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from fraudguard.api.console import shown
from fraudguard.api.console.charts import HEIGHT, spark
from fraudguard.api.console.signing import HOME, inside
from fraudguard.api.console.words import Words

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)  # a Saturday, 18:00 in Shanghai
SHANGHAI = ZoneInfo("Asia/Shanghai")
WORDS = Words("en")


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (50_000.0, "CNY 50,000"),
        (Decimal("50000.00"), "CNY 50,000"),
        (Decimal("38.39"), "CNY 38.39"),
        (0.0, "CNY 0"),
        (1_757.91, "CNY 1,758"),
        (None, ""),
    ],
)
def test_money_keeps_its_currency_and_small_amounts_their_hundredths(
    amount: float | Decimal | None, written: str
) -> None:
    """Thousands are grouped."""
    assert shown.money(amount, "CNY") == written


def test_a_risk_is_never_rounded_up_to_certainty() -> None:
    """0.996 is not 1; none has a sign of its own."""
    assert [shown.risk(value) for value in (0.0, 0.345, 0.996, 1.0, None)] == ["0.00", "0.34", "0.99", "1.00", "–"]


@pytest.mark.parametrize(
    ("back", "written"),
    [
        (timedelta(), "18:00:00"),
        (timedelta(days=1, hours=3), "Fri 15:00"),
        (timedelta(days=6), "Sun 18:00"),
        (timedelta(days=7), "2026-11-14"),
        (timedelta(days=-1), "2026-11-22"),
    ],
)
def test_a_time_is_as_short_as_its_day_allows(back: timedelta, written: str) -> None:
    """In the house's zone; the whole of it is in the tooltip."""
    assert shown.time(NOW - back, NOW, SHANGHAI, WORDS) == written


def test_an_age_has_its_largest_unit() -> None:
    """Down to seconds; the future is no age."""
    spans = [timedelta(seconds=s) for s in (-5, 59, 60, 3_600, 200_000)]
    assert [shown.age(span, WORDS) for span in spans] == ["0 s", "59 s", "1 min", "1 h", "2 d"]


def test_a_long_id_loses_its_middle() -> None:
    """A short one stays whole."""
    assert shown.short("a-1042") == "a-1042"
    assert shown.short("0123456789abcdef") == "0123456…abcdef"


def test_days_become_bars_and_the_middle_half_a_band() -> None:
    """The case's day is marked and is no part of what is usual; too few days give no band."""
    last = date(2026, 11, 21)
    values = {last: 1_000.0} | {last - timedelta(days=back): 100.0 * back for back in (1, 2, 3, 4)}
    drawn = spark(values, NOW, "Asia/Shanghai", 30)
    assert len(drawn.bars) == 30
    assert (drawn.bars[-1].last, drawn.bars[-1].height, drawn.bars[0].height) == (True, HEIGHT, 0.0)
    assert (drawn.low, drawn.high) == (125.0, 375.0)
    assert drawn.y(1_000.0) == 0.0
    few = spark({last: 5.0, last - timedelta(days=1): 5.0}, NOW, "Asia/Shanghai", 30)
    assert (few.low, few.high) == (None, None)
    assert spark({}, NOW, "Asia/Shanghai", 30).y(0.0) == HEIGHT


@pytest.mark.parametrize(
    ("asked", "to"),
    [
        ("/console/cases/c-1?closed=c-0", "/console/cases/c-1?closed=c-0"),
        ("https://elsewhere.example/console/", HOME),
        ("//elsewhere.example/console/", HOME),
        ("/console//elsewhere.example", HOME),
        ("/console/\\elsewhere.example", HOME),
        ("/console/sign-in?next=/console/queue", HOME),
        ("/v1/cases", HOME),
        ("", HOME),
    ],
)
def test_nobody_is_sent_out_of_the_console_after_signing_in(asked: str, to: str) -> None:
    """Whatever a link says where to go."""
    assert inside(asked) == to
