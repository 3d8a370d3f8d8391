"""The promotion gate: which measures it looks at, from which side, and how much worse is too much."""

from datetime import UTC, datetime, timedelta

import pytest
from sealed import metrics_of

from fraudguard.comparison import Comparison, render
from fraudguard.decisions.models import Model, Shadowed
from fraudguard.domain import Outcome
from fraudguard.measures import Metrics
from fraudguard.promotion import objections

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
MODEL = Model("d" * 64, "m", "2", "", "t", "/models/2")


def measured(version: str = "2.0.0", digest: str = "d" * 64, **measures: float) -> Metrics:
    """Of the fixed set, equal but for these."""
    names = {"recall": "recall_at_1%_fpr"}
    return Metrics.model_validate(metrics_of(version, {names.get(n, n): v for n, v in measures.items()}, digest))


def test_as_good_or_better_passes() -> None:
    """Also by any amount."""
    assert objections(measured(), measured(), 0.0) == []
    better = measured(average_precision=1.0, recall=1.0, calibration_error=0.0)
    assert objections(measured(), better, 0.0) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            {"average_precision": 0.61},
            {"average_precision": 0.58},
            "average precision: 0.5800, the champion's is 0.6100",
        ),
        ({"recall": 0.5}, {"recall": 0.48}, "recall at 1 % FPR: 0.4800, the champion's is 0.5000"),
        (
            {"calibration_error": 0.01},
            {"calibration_error": 0.05},
            "1 - calibration error: 0.9500, the champion's is 0.9900",
        ),
    ],
)
def test_each_measure_that_is_worse_is_named(old: dict[str, float], new: dict[str, float], said: str) -> None:
    """With both values, by how much, and the margin."""
    (objection,) = objections(measured(**old), measured(**new), 0.01)
    assert objection.startswith(said)
    assert objection.endswith("more than 0.01")
    assert objections(measured(**old), measured(**new), 0.05) == []


def test_all_that_is_worse_is_named_at_once() -> None:
    """Nobody mends one and meets the next."""
    bad = measured(average_precision=0.1, recall=0.1, calibration_error=0.9)
    assert len(objections(measured(), bad, 0.01)) == 3


def test_the_margin_itself_passes() -> None:
    """0.80 - 0.79 is more than 0.01 in binary; nobody would understand that refusal."""
    assert 0.80 - 0.79 > 0.01
    assert objections(measured(average_precision=0.80), measured(average_precision=0.79), 0.01) == []
    assert objections(measured(average_precision=0.80), measured(average_precision=0.7899), 0.01) != []


def test_other_events_cannot_be_compared() -> None:
    """However good the numbers are."""
    (objection,) = objections(measured("1.0.0"), measured(digest="e" * 64, average_precision=1.0), 1.0)
    assert "different events: starter@1.0.0+int8 on fixed (dddddddddddd), starter@2.0.0+int8 on fixed (eee" in objection


def row(day: float, live: tuple[float, str], shadow: tuple[float, str], verdict: str | None = None) -> Shadowed:
    """A decision `day` days after noon."""
    at = NOON + timedelta(days=day)
    return Shadowed(at, "m@1+int8", live[0], Outcome(live[1]), shadow[0], Outcome(shadow[1]), verdict)  # type: ignore[arg-type]


def test_a_comparison_judges_only_what_is_settled() -> None:
    """Younger than the label delay a decision counts, but nobody knows yet who was right."""
    found, settled = Comparison(), NOON + timedelta(days=2)
    rows = [
        row(0, (0.9, "block"), (0.8, "review"), "fraud"),
        row(1, (0.7, "review"), (0.1, "approve")),
        row(1, (0.2, "approve"), (0.6, "review"), "fraud"),
        row(1, (0.1, "approve"), (0.1, "approve"), "legitimate"),
        row(3, (0.1, "approve"), (0.9, "block"), "fraud"),
    ]
    for one in rows:
        found.add(one, settled)
    assert (found.decisions, len(found.truth), found.frauds) == (5, 4, 2)
    assert (found.champion.alerts, found.challenger.alerts) == (2, 2)
    assert (found.champion.precision, found.challenger.precision) == (0.5, 1.0)
    assert found.average_precision(found.champion) == pytest.approx((1 + 2 / 3) / 2)
    assert found.average_precision(found.challenger) == 1.0
    page = render(MODEL, found)
    assert "m@2 beside m@1+int8 (5)" in page
    assert "outcomes that would differ: 4 (80.00%)" in page
    assert "    approve -> block: 1" in page
    assert "4 are older than the label delay, 2 of them fraud" in page


def test_a_comparison_without_frauds_or_decisions_says_so() -> None:
    """No figure is made up."""
    assert render(MODEL, Comparison()) == "m@2 has scored no decision in shadow"
    found = Comparison()
    found.add(row(0, (0.1, "approve"), (0.2, "approve")), NOON + timedelta(days=1))
    assert found.average_precision(found.champion) is None
    lines = render(MODEL, found).splitlines()
    assert [line.split()[-2:] for line in lines if line.startswith(("average", "precision"))] == [["-", "-"]] * 2
