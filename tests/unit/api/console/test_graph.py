"""The picture of what links a case: who stands where, what is joined, and what is left out."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from fraudguard.api.console.graph import HEIGHT, OTHERS_MAX, ROW, WIDTH, curve, graph
from fraudguard.api.console.links import Link
from fraudguard.decisions.casebook import Case, Disposition
from fraudguard.domain import Outcome
from fraudguard.features.registry import features_in
from fraudguard.rules.questions import question_of

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CASE = Case(
    case_id="c", account_id="a", state="open", opened_at=NOW, updated_at=NOW, expected_loss=1.0, top_risk=0.9,
    typology=None, outcome=Outcome.BLOCK, alerts=1, claimed_by=None, disposition=None, reason=None, closed_at=None,
    closed_by=None, version=1, changed_by="", claimed_until=None, assigned_to=None, team=None, due_at=NOW,
    snoozed_until=None, escalated_at=None, money_held=0.0, top_line="", merged_into=None, review=None, tenant="",
    reviewed_by=None, inbox="unscored", priority=0.0, step_up_at=None,
)  # fmt: skip


def link(kind: str, entity_id: str, *others: str, frauds: int = 0) -> Link:
    """An entity of the case that these accounts share."""
    return Link(kind, entity_id, 1, 1, frauds, (), others)


def case_of(account: str) -> Case:
    """The account's newest case."""
    return replace(CASE, case_id=f"case-{account}", account_id=account)


def test_nothing_linked_draws_nothing() -> None:
    """No empty frame."""
    assert graph("a-1", [], {}) is None


def test_boxes_stand_in_three_columns_and_each_line_joins_two() -> None:
    """The account leads to every entity, an entity to the accounts that share it; boxes do not overlap or leave."""
    links = [link("counterparty", "c-9", "a-2", "a-3"), link("device", "d-1", "a-2", frauds=1)]
    fraud = replace(case_of("a-3"), state="closed", disposition=Disposition.CONFIRMED_FRAUD)
    drawn = graph("a-1", links, {"a-2": case_of("a-2"), "a-3": fraud})
    assert drawn is not None
    boxes = {box.name: box for box in drawn.boxes}
    assert [box.kind for box in drawn.boxes] == ["account", "counterparty", "device", "other", "other"]
    assert {name: box.bad for name, box in boxes.items()} == {
        "a-1": False, "c-9": False, "d-1": True, "a-2": False, "a-3": True,
    }  # fmt: skip
    assert len(drawn.lines) == 2 + 3
    for x1, y1, x2, y2 in drawn.lines:
        assert any((box.x + box.width, box.y) == (x1, y1) for box in drawn.boxes)
        assert any((box.x, box.y) == (x2, y2) for box in drawn.boxes)
    for box in drawn.boxes:
        assert HEIGHT / 2 <= box.y <= drawn.height - HEIGHT / 2
        assert box.x + box.width <= WIDTH
    assert boxes["a-2"].href == "/console/cases/case-a-2"
    assert curve(drawn.lines[0]).startswith("M92 ")


def test_the_picture_is_bounded_and_says_what_it_leaves_out() -> None:
    """Those that share the most stay; accounts without a case are not drawn."""
    many = [f"a-{n}" for n in range(2, 12)]
    links = [link("ip", "203.0.113.5", *many, "a-none"), link("device", "d-1", "a-11")]
    drawn = graph("a-1", links, {account: case_of(account) for account in many})
    assert drawn is not None
    shown = [box.name for box in drawn.boxes if box.kind == "other"]
    assert len(shown) == OTHERS_MAX
    assert "a-11" in shown
    assert drawn.hidden == len(many) - OTHERS_MAX
    assert drawn.height == OTHERS_MAX * ROW


def test_a_box_asks_a_condition_that_the_search_understands() -> None:
    """Whatever the entity is called."""
    drawn = graph("a-1", [link("counterparty", 'c "9\\')], {})
    assert drawn is not None
    (where,) = parse_qs(urlsplit(drawn.boxes[1].href).query)["where"]
    question = question_of(where, features_in("CNY"))
    assert question.holds({"counterparty_id": 'c "9\\'})
    assert not question.holds({"counterparty_id": "c-9"})
