"""The template narrative as people read it (golden), in both languages, and that what people wrote stays a quotation.

FRAUDGUARD_RECORD=1 writes the golden texts under ../golden/ anew; review the difference.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest

from fraudguard.decisions.evidence import Evidence, LineRisk
from fraudguard.decisions.policy import Ask
from fraudguard.domain import (
    Contribution,
    Decision,
    DecisionRecord,
    Outcome,
    Score,
    Transaction,
    Typology,
)
from fraudguard.explain import Asked
from fraudguard.features.registry import MODEL_FEATURES, families
from fraudguard.narrative.items import Item, items_of
from fraudguard.narrative.prompt import Language
from fraudguard.narrative.template import catalogue, narrative
from fraudguard.rules.trace import Part, Phrase

GOLDEN = Path(__file__).parents[1] / "golden"
ZONE = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 11, 21, 10, tzinfo=UTC)
LANGUAGES: tuple[Language, ...] = get_args(Language)
SAID = (
    ("counterparty: 您好，这里是公安局", 0.09),
    ("customer: 什么案子？", 0.12),
    ("counterparty: 急用钱，先转到安全账户 [1] <b>approve</b>", 0.71),
    ("[pay out CNY 50,000 transfer new payee memo: 货款]", 0.9731),
)
FEATURES = {
    "is_new_counterparty": True,
    "out_sum_1h": 50_000.0,
    "out_sum_1d": 50_350.5,
    "hour": 10,
    "amount_usual": 320.0,
}


def record_of(risk: float | None = 0.9731) -> DecisionRecord:
    """The decision of the payment; without a risk: degraded."""
    event = Transaction(
        type="transaction", version=1, event_id="t-1", account_id="a-1", event_time=NOON, direction="debit",
        kind="transfer", channel="app", amount=Decimal("50000.00"), currency="CNY", counterparty_id="c-9", memo="货款",
    )  # fmt: skip
    typology = Typology.SCAM if risk is not None else None
    decision = Decision(
        decision_id="d-1", event_id="t-1", event_type="transaction", account_id="a-1", sequence=4,
        outcome=Outcome.BLOCK, risk=risk, typology=typology, reasons=(), hits=(), degraded=risk is None, model="m",
        rules_version="r", decided_at=NOON, latency_ms=1.0,
    )  # fmt: skip
    return DecisionRecord(
        decision=decision,
        event=event,
        received_at=NOON,
        late=False,
        line=SAID[-1][0],
        timeline_start=1,
        timeline_hash="",
        features={**dict.fromkeys(MODEL_FEATURES), **FEATURES},
        score=Score(risk, Typology.SCAM, "m") if risk is not None else None,
        hits=(),
        policy_version="p",
    )


LINES = tuple(
    LineRisk(
        number, f"d-{number}", "transaction" if number == 4 else "message", NOON + timedelta(minutes=number - 4),
        Outcome.APPROVE, risk, text,
    )
    for number, (text, risk) in enumerate(SAID, 1)
)  # fmt: skip
EVIDENCE = Evidence(
    "d-1",
    "m",
    0.9731,
    (
        Contribution("line", "3", 0.4127),
        Contribution("line", "4", 0.1035),
        Contribution("feature", "is_new_counterparty", 0.0811),
        Contribution("feature", "out_sum", 0.0302),
        Contribution("group", "velocity", 0.2),
        Contribution("line", "1", 0.0021),
        Contribution("feature", "amount_usual", -0.05),
    ),
    NOON,
)
TEST = Part("test", 'chat mentions ["急用钱"]', True, (), (Phrase("chat", "急用钱", "...急用钱先转..."),), ())
COUNT = Part("test", "transfers_1d > 10", True, (("transfers_1d", 11),), (), ())
RULE = Asked(
    Ask("rule", Outcome.BLOCK, "URGENT", "critical", "urgent-money-burst"), Outcome.REVIEW, 3, None,
    Part("all", "", True, (), (), (COUNT, TEST)), (),
)  # fmt: skip
STORIES: Mapping[str, tuple[Item, ...]] = {
    "scam": items_of(record_of(), LINES, EVIDENCE, [RULE], ZONE),
    "waiting": items_of(record_of(), LINES, None, [], ZONE),
    "degraded": items_of(record_of(None), [], None, [RULE], ZONE),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("story", STORIES)
def test_the_narrative_as_people_read_it(story: str, language: Language) -> None:
    """Whole, while its evidence is not made yet, and where the model gave no risk."""
    path, text = GOLDEN / f"narrative_{story}_{language}.txt", narrative(STORIES[story], language) + "\n"
    if os.environ.get("FRAUDGUARD_RECORD"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_items_are_those_that_moved_the_risk() -> None:
    """The greatest effects, lines in the account's order; without effects the lines at which the risk rose."""
    assert [(item.kind, item.ref) for item in STORIES["scam"]] == [
        ("decision", "d-1"),
        ("rule", "urgent-money-burst"),
        ("line", "3"),
        ("line", "4"),
        ("feature", "is_new_counterparty"),
        ("feature", "out_sum"),
    ]
    assert [item.ref for item in STORIES["waiting"]] == ["d-1", "1", "2", "3", "4"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_people_wrote_makes_no_link(language: Language) -> None:
    """Brackets in a line become parentheses, so every [n] is the template's own."""
    text = narrative(STORIES["scam"], language)
    assert "安全账户 (1)" in text
    assert text.count("[") == len(STORIES["scam"])


def test_both_catalogues_say_the_same_things() -> None:
    """The same keys, down to the last, and words for every outcome, typology and feature of the model."""
    zh, en = catalogue("zh"), catalogue("en")
    assert keys(zh) == keys(en)
    assert set(zh["outcomes"]) == {outcome.value for outcome in Outcome}
    assert set(zh["typologies"]) | {"none"} == {kind.value for kind in Typology} | {"none"} == set(zh["advice"])
    assert set(zh["features"]) == {name for _, name in families(MODEL_FEATURES)}


def keys(part: Any) -> Any:
    """The names of a mapping and of those in it."""
    return {name: keys(below) for name, below in part.items()} if isinstance(part, dict) else None
