"""What the engine is asked when lines and features are left out, and what its answers mean."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from fraudguard.contributions import NEWEST_LINES, NOBODY, TELLING_LINES, contributions, questions, telling
from fraudguard.domain import (
    Contribution,
    Decision,
    DecisionRecord,
    Line,
    Outcome,
    Scalar,
    Score,
    Timeline,
    Transaction,
    Typology,
)
from fraudguard.features.registry import MODEL_FEATURES, families

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def timeline_of(lines: int, start: int = 5) -> Timeline:
    """Lines that say their sequence number."""
    return Timeline("a-1", start, tuple(Line("message", NOON, f"customer: {start + n}") for n in range(lines)))


def record_of(timeline: Timeline, **features: Scalar) -> DecisionRecord:
    """A decision on it, of tenant t-1, with these of the model's features; the others are missing."""
    event = Transaction(
        type="transaction", version=1, event_id="t-1", account_id="a-1", event_time=NOON, direction="debit",
        kind="transfer", channel="app", amount=Decimal("1.00"), currency="CNY", attributes={"tenant": "t-1"},
    )  # fmt: skip
    sequence = timeline.start + len(timeline.lines) - 1
    decision = Decision(
        decision_id="d-1", event_id="t-1", event_type="transaction", account_id="a-1", sequence=sequence,
        outcome=Outcome.REVIEW, risk=0.9, typology=Typology.SCAM, reasons=(), hits=(), degraded=False, model="m",
        rules_version="r", decided_at=NOON, latency_ms=1.0,
    )  # fmt: skip
    return DecisionRecord(
        decision=decision,
        event=event,
        received_at=NOON,
        late=False,
        line=timeline.lines[-1].text,
        timeline_start=timeline.start,
        timeline_hash=timeline.hash,
        features={**dict.fromkeys(MODEL_FEATURES), "memo": "x", **features},
        score=Score(0.9, Typology.SCAM, "m"),
        hits=(),
        policy_version="p",
    )


@given(lines=st.integers(1, 40), start=st.integers(1, 90), risks=st.dictionaries(st.integers(1, 140), st.floats(0, 1)))
def test_each_question_leaves_exactly_one_line_out(lines: int, start: int, risks: dict[int, float | None]) -> None:
    """The others stay as they are, in order; bounded; nobody's timeline in the engine's cache; never an empty one."""
    timeline = timeline_of(lines, start)
    asked = [question for question in questions(record_of(timeline), timeline, risks) if question.without]
    assert len(asked) <= NEWEST_LINES + TELLING_LINES
    assert len({question.without for question in asked}) == len(asked)
    for question in asked:
        assert question.without is not None
        kind, name = question.without
        left = question.request.timeline
        assert (kind, left.account_id, question.request.tenant) == ("line", NOBODY, "t-1")
        assert [line.text for line in left.lines] == [x.text for x in timeline.lines if x.text != f"customer: {name}"]
        assert left.lines
    if 2 <= lines <= NEWEST_LINES + TELLING_LINES:
        assert len(asked) == lines


def test_the_newest_lines_go_first_and_then_those_that_told_most() -> None:
    """Of more lines than may be asked for, the old ones at which the risk rose most."""
    timeline = timeline_of(NEWEST_LINES + TELLING_LINES + 6, start=1)
    old = TELLING_LINES + 6
    risks: dict[int, float | None] = dict.fromkeys(range(1, old + 1), 0.1)
    risks |= {3: 0.9, 4: None, 6: 0.5}
    asked = telling(timeline, risks)
    assert asked[:NEWEST_LINES] == list(range(old + NEWEST_LINES, old, -1))
    assert asked[NEWEST_LINES : NEWEST_LINES + 2] == [3, 6]
    assert len(asked) == NEWEST_LINES + TELLING_LINES


def test_windows_of_one_value_go_together_and_what_is_missing_is_not_asked() -> None:
    """A family is left out whole, a group with several families too, and the requests share one timeline."""
    timeline = timeline_of(1)
    record = record_of(timeline, transfers_1h=1, transfers_1d=4, out_sum_7d=9.5, is_new_device=True)
    asked = questions(record, timeline, {})
    assert [question.without for question in asked] == [
        None,
        ("feature", "transfers"),
        ("feature", "out_sum"),
        ("feature", "is_new_device"),
        ("group", "velocity"),
    ]
    assert asked[0].request.features == record.features
    gone = dict.fromkeys(("transfers_1h", "transfers_1d"))
    assert asked[1].request.features == {**record.features, **gone}
    assert asked[4].request.features == {**record.features, **gone, "out_sum_7d": None}
    assert all(question.request.timeline is asked[0].request.timeline for question in asked)


def test_effects_are_the_whole_less_the_rest() -> None:
    """The greatest first, whichever way it goes."""
    timeline = timeline_of(3, start=1)
    asked = questions(record_of(timeline), timeline, {})
    scores = [Score(risk, Typology.SCAM, "m") for risk in (0.75, 0.5, 0.875, 0.25)]
    assert contributions(asked, scores) == (
        Contribution("line", "1", 0.5),
        Contribution("line", "3", 0.25),
        Contribution("line", "2", -0.125),
    )


def test_every_feature_of_the_model_is_in_one_family() -> None:
    """None is forgotten and none is left out twice."""
    found = [name for names in families(MODEL_FEATURES).values() for name in names]
    assert sorted(found) == sorted(MODEL_FEATURES)
    assert families(MODEL_FEATURES)["velocity", "out_sum"] == ("out_sum_1h", "out_sum_1d", "out_sum_7d", "out_sum_30d")
