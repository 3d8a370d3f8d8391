"""Counting of a backtest against a naive recount; conversations; saved files; the page and picture that people get."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import files_of, ready, rule, window

from fraudguard.backtest import EXAMPLES_MAX, Backtest, Conversations, Evaluation, Past, Run, Side, read_file
from fraudguard.backtest_report import draw, render
from fraudguard.domain import STOPPED, Hit, Outcome, Scalar
from fraudguard.errors import BadInput

GOLDEN = Path(__file__).parent / "golden" / "backtest.md"
START = datetime(2026, 10, 20, 12, tzinfo=UTC)
OLD = ready(
    files_of([
        rule("large", "amount_base > 1_000", "{amount_base: 1001}"),
        rule("night", "hour < 6", "{hour: 3}", outcome="step_up"),
        rule("trial", 'memo = "x"', "{memo: x}", outcome="block", state="shadow"),
    ])
)  # fmt: skip
NEW = ready(
    files_of([
        rule("large", "amount_base > 500", "{amount_base: 501}", version=2),
        rule("night", "hour < 6", "{hour: 3}", outcome="step_up"),
        rule("trial", 'memo = "x"', "{memo: x}", outcome="block", version=2),
        rule("listed", "counterparty_id in [\"c-9\"] and direction = \"debit\"",
             "{counterparty_id: c-9, direction: debit}"),
    ])
)  # fmt: skip


def past(n: int, **inputs: Scalar) -> Past:
    """A payment as the old pack decided it; `verdict` and `account_id` are among the inputs if told."""
    verdict, day = inputs.pop("verdict", None), inputs.pop("day", 0)
    account = str(inputs.pop("account", f"a-{n % 7}"))
    known: dict[str, Scalar] = {
        "amount_base": 20.0, "hour": 12, "memo": None, "direction": "debit", "counterparty_id": "c-1",
        "account_id": account, "event_type": "transaction", "chat": None, "risk": None, "typology": None,
        "degraded": True,
    }  # fmt: skip
    known |= inputs
    hits = tuple(OLD.rules.evaluate(known))
    decided = OLD.policy.decide("transaction", None, hits, "ENGINE_OFF", False)
    return Past(
        decision_id=f"d-{n}", account_id=account, event_type="transaction",
        event_time=START + timedelta(days=float(day or 0), minutes=n), inputs=known, score=None,
        degraded_reason="ENGINE_OFF", late=False, outcome=decided.outcome, hits=hits, rules_version=OLD.rules.version,
        policy_version=OLD.policy.version, verdict=verdict,  # type: ignore[arg-type]  # by the strategies below
    )  # fmt: skip


pasts = st.lists(
    st.builds(
        dict,
        amount_base=st.sampled_from((None, 20.0, 700.0, 5_000.0)),
        hour=st.sampled_from((3, 12)),
        memo=st.sampled_from((None, "x")),
        direction=st.sampled_from(("debit", "credit")),
        counterparty_id=st.sampled_from((None, "c-1", "c-9")),
        verdict=st.sampled_from(("fraud", "legitimate", None)),
        day=st.integers(0, 5),
    ),
    max_size=40,
).map(lambda rows: [past(n, **row) for n, row in enumerate(rows)])


def counted(rows: Sequence[Past], *, known: bool = True) -> Backtest:
    """The new pack over decisions of the old one; known: the old one's hits may be taken over."""
    run = Run(NEW, {OLD.rules.version: OLD.rules} if known else {})
    for row in rows:
        run.take(row)
    return run.backtest


def side(rows: Sequence[Past]) -> Side:
    """A recount."""

    def of(verdict: str | None) -> list[Past]:
        return [row for row in rows if row.verdict == verdict]

    def money(rows: Sequence[Past]) -> float:
        return sum(float(row.inputs["amount_base"] or 0) for row in rows if row.inputs["direction"] == "debit")

    return Side(
        len(of("fraud")), len(of("legitimate")), len(of(None)), money(of("fraud")), money(of("legitimate"))
    )  # fmt: skip


def new_rules(row: Past) -> list[str]:
    """What the new pack hits, written out."""
    given = row.inputs
    amount = given["amount_base"]
    return [
        id
        for id, hit in (
            ("trial", given["memo"] == "x"),
            ("large", isinstance(amount, float) and amount > 500),
            ("listed", given["counterparty_id"] == "c-9" and given["direction"] == "debit"),
            ("night", given["hour"] == 3),
        )
        if hit
    ]


def new_outcome(row: Past) -> Outcome:
    """What the new pack decides, written out."""
    outcomes = {"trial": Outcome.BLOCK, "large": Outcome.REVIEW, "listed": Outcome.REVIEW, "night": Outcome.STEP_UP}
    return max((outcomes[id] for id in new_rules(row)), key=lambda outcome: outcome.severity, default=Outcome.APPROVE)


@settings(max_examples=60, deadline=None)
@given(rows=pasts)
def test_every_count_is_that_of_a_recount(rows: list[Past]) -> None:
    """Totals, what is stopped, alerts, changes, and of each rule hits, days, overlap and what it hits alone."""
    found = counted(rows)
    assert found.total == side(rows)
    assert found.stopped_before == side([row for row in rows if row.outcome in STOPPED])
    assert found.stopped_after == side([row for row in rows if new_outcome(row) in STOPPED])
    assert found.alerts_before == found.stopped_before.all
    assert found.alerts_after == found.stopped_after.all
    pairs = {(row.outcome, new_outcome(row)) for row in rows if row.outcome != new_outcome(row)}
    assert found.changes.keys() == pairs
    for pair in pairs:
        changing = [row for row in rows if (row.outcome, new_outcome(row)) == pair]
        assert found.changes[pair].side == side(changing)
        assert [example for example, _ in found.changes[pair].examples] == changing[:EXAMPLES_MAX]
    for id, tally in found.rules.items():
        hitting = [row for row in rows if id in new_rules(row)]
        assert tally.hits == side(hitting)
        assert tally.alone == side([row for row in hitting if new_rules(row) == [id]])
        assert tally.examples == (hitting[:EXAMPLES_MAX] if tally.changed else [])
        assert tally.days == {
            day: side([row for row in hitting if row.event_time.date() == day])
            for day in {row.event_time.date() for row in hitting}
        }
        for other in found.rules.keys() - {id}:
            assert tally.overlap[other] == sum(other in new_rules(row) for row in hitting)
    assert {id for id, tally in found.rules.items() if tally.changed} == {"large", "trial", "listed"}
    assert (found.first, found.last) == (
        min((row.event_time for row in rows), default=None),
        max((row.event_time for row in rows), default=None),
    )


@settings(max_examples=60, deadline=None)
@given(rows=pasts)
def test_hits_taken_over_are_those_of_a_full_evaluation(rows: list[Past]) -> None:
    """Where a condition stood in the set that decided, what is stored says what the rule says now, state included."""
    full, short = Evaluation(NEW, {}), Evaluation(NEW, {OLD.rules.version: OLD.rules})
    for row in rows:
        hits = short.hits(row)
        assert hits == full.hits(row)
        assert [hit.rule for hit in hits] == new_rules(row)
        assert short.outcome(row, hits) == short.verdict(row, hits).outcome == new_outcome(row)


def test_a_rule_over_a_window_that_changed_is_evaluated_anew() -> None:
    """Its condition is the same text, but what it names counts otherwise now: the stored hit says nothing."""
    busy = rule("busy", "payments_2h > 3", "{payments_2h: 4}")
    before = ready(files_of([busy], [window("payments_2h", "account", "count", "2h")]))
    after = ready(files_of([busy], [window("payments_2h", "account", "count", "1h")]))
    stored = replace(
        past(1, payments_2h=2),
        hits=(Hit("busy", 1, Outcome.REVIEW, "BUSY", "live"),),
        rules_version=before.rules.version,
    )
    assert Evaluation(after, {before.rules.version: before.rules}).hits(stored) == []
    assert len(Evaluation(before, {before.rules.version: before.rules}).hits(stored)) == 1
    assert Run(after, {before.rules.version: before.rules}).backtest.rules["busy"].changed


def test_an_input_that_was_not_stored_is_told_once_a_decision() -> None:
    """Of rules that are new or changed only; a value that is missing was stored as missing."""
    rows = [past(n, amount_base=None) for n in range(3)]
    lacking = {name: value for name, value in rows[0].inputs.items() if name not in {"counterparty_id", "hour"}}
    rows[0] = replace(rows[0], inputs=lacking)
    assert counted(rows).missing == {"counterparty_id": 1}


def body(sequence: int, kind: str, line: str, start: int = 1, account: str = "a-1") -> dict[str, object]:
    """The parts of a stored body that a conversation is made from."""
    decision = {"account_id": account, "event_type": kind, "sequence": sequence}
    return {"decision": decision, "line": line, "timeline_start": start}


def test_a_conversation_is_what_the_timeline_held() -> None:
    """Messages of the last day, none that the timeline had dropped, none of another account or from the future."""
    talk = Conversations()
    noon = START
    assert talk.chat(body(1, "transaction", "[pay out]"), noon) is None
    assert talk.chat(body(2, "message", "customer: one: two"), noon) == "one: two"
    assert talk.chat(body(3, "message", "sms counterparty: three"), noon + timedelta(hours=2)) == "one: two\nthree"
    assert talk.chat(body(4, "transaction", "[pay out]"), noon + timedelta(hours=1)) == "one: two"  # out of order
    assert talk.chat(body(5, "transaction", "[pay out]"), noon + timedelta(days=1)) == "three"
    assert talk.chat(body(6, "transaction", "[pay out]", start=4), noon + timedelta(hours=3)) is None
    assert talk.chat(body(1, "transaction", "[pay out]", account="a-2"), noon) is None


@pytest.mark.parametrize("line", ["", "no json", '{"body": {}}', '{"body": 7, "chat": null, "verdict": null}'])
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    """Whatever is wrong in it, with the command that writes a good one."""
    path = tmp_path / "saved"
    path.write_text('{"in_force": {}}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"saved:2: not a saved decision.*--save"):
        list(read_file(path, frozenset()))


def example() -> Backtest:
    """Sixty decisions over three days with everything that a page shows."""
    truth = ("fraud", "legitimate", None, "legitimate")
    rows = [
        past(
            n, amount_base=(20.0, 700.0, 5_000.0)[n % 3], hour=3 if n % 10 == 0 else 12,
            memo="x" if n % 11 == 0 else None, counterparty_id="c-9" if n % 4 == 0 else "c-1", verdict=truth[n % 4],
            day=n // 20,
        )
        for n in range(60)
    ]  # fmt: skip
    lacking = {name: value for name, value in rows[1].inputs.items() if name != "counterparty_id"}
    return counted([rows[0], replace(rows[1], inputs=lacking), *rows[2:]])


def test_the_page_is_as_recorded() -> None:
    """What a risk manager reads, whole; FRAUDGUARD_RECORD=1 writes it anew, to be reviewed."""
    page = render(example(), "CNY")
    if os.environ.get("FRAUDGUARD_RECORD"):
        GOLDEN.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8")


def test_a_span_without_decisions_says_so() -> None:
    """No table of zeros."""
    assert "No decision" in render(counted([]), "CNY")


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    """A PNG with more than one colour in it."""
    from matplotlib.image import imread

    path = tmp_path / "backtest.png"
    draw(example(), path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    picture = imread(path)
    assert len({tuple(pixel) for pixel in picture[::3, ::3, :3].reshape(-1, 3).tolist()}) > 20
