"""Weeks of counts into precision, calibration, drift and a challenger's worth; Wilson's interval against its source."""

from dataclasses import replace
from datetime import date
from zoneinfo import ZoneInfo

import pytest

from fraudguard.decisions.judged import JudgedAlerts, Scored
from fraudguard.quality import Share, _beside, _bins, _typologies, _weeks
from fraudguard.stability import Level
from fraudguard.weeks import weeks_of

WEEKS = weeks_of(date(2026, 10, 5), date(2026, 10, 31), ZoneInfo("Asia/Shanghai"))
ALERT = JudgedAlerts(0, "scam", 9, "confirmed_fraud", None, 1, 0.95)
CALM = Scored(0, "transaction", 0.01, "approve", False, None, None)


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (15, 15, 0.7961, 1.0)],  # Newcombe 1998, method 3, and by hand
)
def test_the_interval_is_wilsons(part: int, whole: int, low: float, high: float) -> None:
    """To four digits, and never outside of 0 to 1."""
    share = Share(part, whole)
    assert share.value == part / whole
    assert share.low == pytest.approx(low, abs=2e-4)
    assert share.high == pytest.approx(high, abs=2e-4)


def test_nothing_has_no_share() -> None:
    """Neither a value nor an interval."""
    assert (Share(0, 0).value, Share(0, 0).low, Share(0, 0).high) == (None, None, None)


def test_the_suspicious_and_the_open_are_not_judged() -> None:
    """Precision is confirmed fraud among fraud and false positives; all of them are alerts."""
    alerts = [
        replace(ALERT, count=6),
        replace(ALERT, disposition="false_positive", count=2),
        replace(ALERT, disposition="suspicious", count=5),
        replace(ALERT, disposition=None, count=7),
    ]
    (week,) = _weeks(WEEKS, alerts, [CALM])
    assert (week.alerts, week.precision) == (20, Share(6, 8))
    (typology,) = _typologies(alerts)
    assert (typology.typology, typology.alerts, typology.precision) == ("scam", 20, Share(6, 8))


def test_calibration_sets_the_mean_risk_beside_the_share_of_fraud() -> None:
    """A bin a tenth of the risk; alerts without a risk are in none."""
    alerts = [
        JudgedAlerts(0, "scam", 9, "confirmed_fraud", None, 9, 8.6),
        JudgedAlerts(1, "mule", 9, "false_positive", None, 1, 0.9),
        JudgedAlerts(0, "scam", 5, "false_positive", None, 4, 2.2),
        JudgedAlerts(0, "scam", 5, None, None, 50, 27.0),
        JudgedAlerts(0, None, None, "confirmed_fraud", None, 3, 0.0),
    ]
    middle, high = _bins(alerts)
    assert (middle.low, middle.high, middle.frauds) == (0.5, 0.6, Share(0, 4))
    assert middle.risk == pytest.approx(0.55)
    assert (high.low, high.high, high.frauds) == (0.9, 1.0, Share(9, 10))
    assert high.risk == pytest.approx(0.95)


def test_drift_is_seen_where_the_risk_moved_and_nowhere_else() -> None:
    """Three weeks alike, the first two the reference's part; the last one's payments are all riskier."""
    rows = []
    for week in range(4):
        for place in range(400):
            risk = place / 400 * 0.2
            rows.append(replace(CALM, week=week, event_type="message", risk=risk))
            rows.append(replace(CALM, week=week, risk=min(1.0, risk + (0.5 if week == 3 else 0))))
    *reference, last = _weeks(WEEKS, [], rows)
    assert [week.reference for week in reference] == [True, True, True]
    assert all(not week.moved for week in reference)
    assert last.moved["transaction"].level is Level.LARGE
    assert last.moved["message"].level is Level.STEADY
    assert last.mean_risk["transaction"] == pytest.approx(0.6, abs=0.01)


def test_weeks_without_decisions_are_left_out_and_one_is_no_comparison() -> None:
    """One week has nothing to be compared with."""
    (only,) = _weeks(WEEKS, [], [replace(CALM, week=2, outcome="review"), replace(CALM, week=2, degraded=True)])
    assert (only.week, only.reference, dict(only.moved)) == (WEEKS[2], False, {})
    assert (only.stopped, only.degraded, only.sampled) == (Share(1, 2), Share(1, 2), 2)


def test_a_challenger_is_weighed_on_what_both_scored() -> None:
    """Frauds and false alarms that it would stop too, of judged alerts; outcomes that differ, of the sample."""
    alerts = [
        replace(ALERT, shadow="block", count=3),
        replace(ALERT, shadow="approve", count=1),
        replace(ALERT, shadow="step_up", disposition="false_positive", count=2),
        replace(ALERT, count=9),
    ]
    both = replace(CALM, shadow_risk=0.03, shadow_outcome="approve")
    beside = _beside(alerts, [CALM, both, replace(both, shadow_risk=0.81, shadow_outcome="review")])
    assert (beside.frauds, beside.false_alarms) == (Share(3, 4), Share(0, 2))
    assert (beside.sampled, dict(beside.outcomes)) == (2, {("approve", "review"): 1})
    assert beside.moved == pytest.approx(0.41)
