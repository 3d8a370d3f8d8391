"""Explanations of a fixed record: what people read (golden), that every told change does what it says, simulation.

FRAUDGUARD_RECORD=1 writes the golden texts under golden/ anew; review the difference.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fraudguard.decisions.policy import Policy
from fraudguard.domain import Decision, DecisionRecord, Line, Outcome, Score, Timeline, Transaction, Typology
from fraudguard.errors import BadInput
from fraudguard.explain import Explainer, Explanation, render
from fraudguard.features.registry import FEATURES
from fraudguard.inputs import rule_inputs
from fraudguard.pipeline import wire_hits
from fraudguard.rules.registry import RuleSet

GOLDEN = Path(__file__).parent / "golden"
RULE = """\
id: {id}
version: {version}
owner: fraud-operations
description: A rule of the test.
state: {state}
event: {event}
when: |
  {when}
outcome: {outcome}
reason: {reason}
severity: medium
cases:
  - given: {{{hit}}}
    expect: hit
  - given: {{transfers_1d: 0}}
    expect: no_hit
"""
RULES = (
    ("urgent-burst", 3, "live", "transaction", 'transfers_1d > 10 and chat mentions ["别告诉", "急用钱"]', "block",
     "URGENT_BURST", "transfers_1d: 11, chat: 急用钱"),
    ("new-payee", 1, "live", "transaction",
     'is_new_counterparty and (amount_base > 3 * amount_usual or kind == "cash")', "step_up",
     "NEW_PAYEE", "is_new_counterparty: true, kind: cash"),
    ("own-account", 2, "live", "transaction", "attributes.own_account", "approve", "OWN_ACCOUNT",
     "attributes.own_account: true"),
    ("large-and-risky", 1, "live", "transaction", "amount_base >= 50_000 and risk > 0.5 and out_count_1d > 1", "block",
     "LARGE_RISKY", "amount_base: 50000, risk: 0.6, out_count_1d: 2"),
    ("watched", 1, "shadow", "transaction", "transfers_1d > 1 and amount_base > 1", "block", "WATCHED",
     "transfers_1d: 2, amount_base: 2"),
    ("chat-only", 1, "live", "message", 'transfers_1d > 1 and chat mentions ["急用钱"]', "block", "CHAT",
     "transfers_1d: 2, chat: 急用钱"),
)  # fmt: skip
NAMES = ("id", "version", "state", "event", "when", "outcome", "reason", "hit")
POLICY = """\
version: 1
model:
  transaction: {step_up: 0.3, review: 0.6, block: 0.9, by_typology: {scam: {review: 0.5}}}
  message: {review: 0.6}
degraded:
  ENGINE_UNAVAILABLE: {transaction: review, message: approve}
  OVERLOAD: {transaction: step_up, message: approve}
  ENGINE_OFF: {transaction: approve, message: approve}
severity: {step_up: low, review: medium, block: high}
allow:
  takes_back: {transaction: step_up, message: review}
cases:
  transaction: [review, block]
  message: [block]
"""
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TIMELINE = Timeline(
    "a-1",
    7,
    (
        Line("message", NOON, "12:00 counterparty: 妈，我在医院，现在急-用-钱，别告诉爸爸"),
        Line("transaction", NOON, "12:00 debit 49000"),
    ),
)
FEATURES_STORED = {
    "event_type": "transaction", "direction": "debit", "kind": "transfer", "amount_base": 49_000.0,
    "amount_usual": 1_500.0, "transfers_1d": 14, "out_count_1d": 14, "is_new_counterparty": True, "late": False,
    "attributes.own_account": True,
}  # fmt: skip
SCORE = Score(0.55, Typology.SCAM, "starter@0.3.0+int8")


@pytest.fixture(scope="module")
def rules() -> Iterator[RuleSet]:
    """The rules of the test, through the gate and into the rules core."""
    text = "---\n".join(RULE.format(**dict(zip(NAMES, rule, strict=True))) for rule in RULES)
    made = RuleSet.from_sources({"rules.yaml": text}, FEATURES)
    yield made
    made.close()


def stored(rules: RuleSet, score: Score | None, reason: str | None = None, **features: object) -> DecisionRecord:
    """The record that the pipeline would have stored."""
    policy = Policy.from_source(POLICY)
    inputs = {**FEATURES_STORED, **features}
    hits = tuple(rules.evaluate(rule_inputs(inputs, TIMELINE, score)))  # type: ignore[arg-type]  # scalars
    verdict = policy.decide("transaction", score, hits, reason, False)
    event = Transaction(
        type="transaction", version=1, event_id="t-1", account_id="a-1", event_time=NOON, direction="debit",
        kind="transfer", channel="app", amount=Decimal("49000.00"), currency="CNY",
    )  # fmt: skip
    decision = Decision(
        decision_id="d-1", event_id="t-1", event_type="transaction", account_id="a-1", sequence=8,
        outcome=verdict.outcome, risk=score.risk if score else None, typology=score.typology if score else None,
        reasons=verdict.reasons, hits=wire_hits(hits), degraded=score is None, model="starter@0.3.0+int8",
        rules_version=rules.version, decided_at=NOON, latency_ms=1.0, severity=verdict.severity,
    )  # fmt: skip
    return DecisionRecord(
        decision, event, NOON, False, TIMELINE.lines[-1].text, 7, TIMELINE.hash, inputs, score, hits, policy.version
    )  # type: ignore[arg-type]  # scalars


def explainer(rules: RuleSet, record: DecisionRecord) -> Explainer:
    """Of the record, under its rules and policy."""
    return Explainer(record, TIMELINE, rules, Policy.from_source(POLICY))


@pytest.fixture
def explained(rules: RuleSet) -> Explanation:
    """The scored record's explanation."""
    return explainer(rules, stored(rules, SCORE)).explain()


def test_golden_block(rules: RuleSet) -> None:
    """A payment blocked by a rule, an ask taken back, a near miss and a simulation, as a person reads it."""
    text = render(explainer(rules, stored(rules, SCORE)).explain({"transfers_1d": "10", "risk": "0.2"}))
    _golden("explain_block.txt", text)


def test_golden_degraded(rules: RuleSet) -> None:
    """A degraded payment: the floor asks and no allow rule takes it back."""
    record = stored(rules, None, "ENGINE_UNAVAILABLE", transfers_1d=4)
    _golden("explain_degraded.txt", render(explainer(rules, record).explain()))


def test_golden_nothing(rules: RuleSet) -> None:
    """A payment that nothing objects to says so, and at which risk the model would have."""
    features = {"is_new_counterparty": False, "transfers_1d": 1, "attributes.own_account": None, "amount_base": 10.0}
    record = stored(rules, replace(SCORE, risk=0.01), **features)
    _golden("explain_nothing.txt", render(explainer(rules, record).explain()))


def _golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("FRAUDGUARD_RECORD"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_told_change_does_what_it_says(rules: RuleSet) -> None:
    """Simulating each change gives the outcome told, and the rule hits no more, or now."""
    this = explainer(rules, stored(rules, SCORE))
    explained = this.explain()
    ends = [(asked.ask.rule, turn) for asked in explained.asked for turn in asked.ends]
    needs = [(near.rule, turn) for near in explained.near_misses for turn in near.needs]
    assert {rule for rule, _ in ends} == {"urgent-burst", "new-payee", "own-account"}
    assert needs
    for rule, turn in ends + needs:
        then = this.simulate({turn.change.name: turn.change.to})
        assert then.outcome is turn.outcome, turn
        assert (rule in then.rules) is ((rule, turn) in needs)


def test_without_each_ask(explained: Explanation) -> None:
    """Taking the block away leaves the model's review; taking the allow rule away changes nothing here."""
    assert {asked.ask.reason: asked.without for asked in explained.asked} == {
        "URGENT_BURST": Outcome.REVIEW,
        "MODEL_RISK_REVIEW": Outcome.BLOCK,
        "OWN_ACCOUNT": Outcome.BLOCK,
        "NEW_PAYEE": Outcome.BLOCK,
    }
    assert [asked.ask.reason for asked in explained.asked if asked.ask.taken_back] == ["NEW_PAYEE"]


def test_bands_of_risk(rules: RuleSet) -> None:
    """What the model asks for at each risk, under the thresholds of its typology, and the outcome with it."""
    record = stored(rules, SCORE, transfers_1d=4)
    bands = explainer(rules, record).explain().bands
    assert [(band.low, band.high, band.asks.value, band.outcome.value) for band in bands] == [
        (0.0, 0.3, "approve", "approve"),
        (0.3, 0.5, "step_up", "approve"),  # taken back by own-account
        (0.5, 0.9, "review", "review"),
        (0.9, 1.0, "block", "block"),
    ]


def test_near_misses(explained: Explanation) -> None:
    """Of live rules for such events, those that one part kept from hitting; neither shadow rules nor other events'."""
    (near,) = explained.near_misses
    assert (near.rule, near.part.text, near.part.values) == (
        "large-and-risky", "amount_base >= 50_000", (("amount_base", 49_000.0),),
    )  # fmt: skip
    assert [(turn.change.text, turn.outcome) for turn in near.needs] == [("amount_base at least 50_000", Outcome.BLOCK)]


def test_a_stored_decision_that_does_not_agree_is_said(rules: RuleSet) -> None:
    """Where the stored outcome is another one, the explanation says so."""
    record = stored(rules, SCORE)
    other = replace(record, decision=record.decision.model_copy(update={"outcome": Outcome.APPROVE}))
    explained = explainer(rules, other).explain()
    assert not explained.agrees
    assert "DIFFERS    stored was approve" in render(explained)


@pytest.mark.parametrize(
    ("changed", "outcome", "reasons"),
    [
        ({"transfers_1d": 10}, "review", ("MODEL_RISK_REVIEW", "OWN_ACCOUNT")),
        ({"transfers_1d": "1_0"}, "review", ("MODEL_RISK_REVIEW", "OWN_ACCOUNT")),
        ({"chat": "null"}, "review", ("MODEL_RISK_REVIEW", "OWN_ACCOUNT")),
        ({"chat": None, "risk": 0.4}, "approve", ("OWN_ACCOUNT",)),
        ({"chat": None, "risk": 0.4, "attributes.own_account": "false"}, "step_up",
         ("MODEL_RISK_STEP_UP", "NEW_PAYEE")),
        ({"chat": None, "risk": "0.58", "typology": "mule"}, "approve", ("OWN_ACCOUNT",)),
        ({"chat": None, "risk": None}, "review", ("ENGINE_UNAVAILABLE", "OWN_ACCOUNT")),
        ({"amount_base": "50000"}, "block", ("LARGE_RISKY", "URGENT_BURST", "MODEL_RISK_REVIEW", "OWN_ACCOUNT")),
        ({"late": "true"}, "block", ("URGENT_BURST", "MODEL_RISK_REVIEW", "OWN_ACCOUNT", "LATE_EVENT")),
    ],
)  # fmt: skip
def test_simulation(rules: RuleSet, changed: dict[str, float | str | None], outcome: str, reasons: object) -> None:
    """The decision that would have come out with these inputs."""
    then = explainer(rules, stored(rules, SCORE)).simulate(changed)
    assert (then.outcome, then.reasons) == (outcome, reasons)
    assert [name for name, _, _ in then.changed] == list(changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"transfer_1d": "1"}, "transfer_1d: unknown field (did you mean transfers_1d?)"),
        ({"nothing_like_it": "1"}, "nothing_like_it: unknown field (see `fraudguard features`)"),
        ({"transfers_1d": "many"}, "transfers_1d: must be a number (null stands for missing)"),
        ({"transfers_1d": True}, "transfers_1d: must be a number (null stands for missing)"),
        ({"is_new_counterparty": "yes"}, "is_new_counterparty: must be true or false (null stands for missing)"),
        ({"chat": 3}, "chat: must be a text (null stands for missing)"),
        ({"risk": 1.5}, "risk: must be a probability (from 0 to 1, or null for no score)"),
        ({"typology": "scamm"}, "typology: unknown typology (did you mean scam?)"),
        ({"degraded": True}, "degraded: cannot be changed (set risk to null)"),
        ({"event_type": "message"}, "event_type: cannot be changed (explain an event of that type)"),
    ],
)
def test_a_change_that_cannot_be_is_refused(rules: RuleSet, changed: dict[str, float | str], message: str) -> None:
    """The name, what is wrong, and the way out."""
    with pytest.raises(BadInput) as caught:
        explainer(rules, stored(rules, SCORE)).simulate(changed)
    assert str(caught.value) == message


def test_a_risk_for_a_degraded_decision_needs_its_typology(rules: RuleSet) -> None:
    """Thresholds depend on it, so it is not guessed."""
    this = explainer(rules, stored(rules, None, "OVERLOAD", transfers_1d=4))
    with pytest.raises(BadInput, match="typology: is missing"):
        this.simulate({"risk": 0.95})
    assert this.simulate({"risk": 0.95, "typology": "scam"}).reasons[0] == "MODEL_RISK_BLOCK"


def test_it_serialises(explained: Explanation) -> None:
    """To JSON and back through pydantic, as an API answers."""
    adapter = TypeAdapter(Explanation)
    assert adapter.validate_json(adapter.dump_json(explained)) == explained
