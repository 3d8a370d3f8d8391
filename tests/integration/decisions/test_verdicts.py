"""What cases are found to be: alone, alert by alert, merged, taken back, and looked at by a second person."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.casebook import UNDO, Case, CaseBook, CaseFilter, Disposition
from fraudguard.decisions.labelled import LabelledDecision
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.decisions.verdicts import sampled
from fraudguard.domain import DecisionRecord, Label, Outcome, Typology
from fraudguard.errors import BadInput, Conflict

Make = Callable[..., DecisionRecord]
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
LATER = NOW + UNDO
FRAUD, SUSPICIOUS, FALSE = Disposition.CONFIRMED_FRAUD, Disposition.SUSPICIOUS, Disposition.FALSE_POSITIVE


async def alert(repository: Repository, *records: DecisionRecord) -> Case:
    """The case that these alerts of one account are in."""
    await repository.commit(Changes(records=records, alerts=records))
    account = records[0].event.account_id
    (case,) = (await repository.cases.list_cases(CaseFilter(account_id=account, state="open"))).items
    return case


async def verdicts(repository: Repository) -> dict[str, str]:
    """What the labels in the outbox say, by the event they are about."""
    return {label.target_event_id: label.verdict for label in await repository.outbox.waiting(100)}


async def found(repository: Repository) -> dict[str, Disposition | None]:
    """What is handed to training of each alert, by event."""
    known: dict[str, Disposition | None] = {}
    async for one in repository.labelled_decisions(NOW - timedelta(days=9), NOW + timedelta(days=9)):
        assert isinstance(one, LabelledDecision)
        assert one.case is not None
        assert (one.case.at is None) == (one.case.disposition is None)
        known[one.event.event_id] = one.case.disposition
    return known


async def test_an_alert_that_was_judged_by_itself_keeps_that(repository: Repository, make: Make) -> None:
    """The last word on it holds when its case is closed with another verdict, in labels and in training alike."""
    records = [make(event_id=f"e-{n}") for n in (1, 2, 3)]
    case, cases = await alert(repository, *records), repository.cases
    ids = [record.decision.decision_id for record in records]
    await cases.dispose_alerts(case.case_id, 1, ids[:2], FRAUD, "not sure yet", "ana", NOW)
    await cases.dispose_alerts(case.case_id, 2, ids[:1], FALSE, "his landlord", "ana", NOW)
    await cases.dispose_alerts(case.case_id, 3, ids[1:2], SUSPICIOUS, "cannot tell", "ana", NOW)
    _, alerts = await cases.get_case(case.case_id)
    assert [one.disposition for one in alerts] == [FALSE, SUSPICIOUS, None]
    assert await verdicts(repository) == {}
    assert set((await found(repository)).values()) == {None}
    await cases.dispose(case.case_id, 4, FRAUD, "told by phone", "ana", NOW)
    assert await verdicts(repository) == {"e-1": "legitimate", "e-3": "fraud"}
    assert await found(repository) == {"e-1": FALSE, "e-2": SUSPICIOUS, "e-3": FRAUD}
    assert (await cases.history(case.case_id))[1].detail["alerts"] == {ids[0]: "false_positive"}


async def test_only_alerts_of_the_case_can_be_judged_with_it(repository: Repository, make: Make) -> None:
    """Another case's alert, none and too many are refused."""
    case, far = await alert(repository, make()), make("a-2")
    await alert(repository, far)
    for wrong in ([far.decision.decision_id], ["none"], [], [str(n) for n in range(1_001)]):
        with pytest.raises(BadInput, match="decision_ids"):
            await repository.cases.dispose_alerts(case.case_id, 1, wrong, FRAUD, "x", "ana", NOW)


async def test_a_disposition_can_be_taken_back_before_its_labels_leave(repository: Repository, make: Make) -> None:
    """For ten seconds, by whoever gave it: the case is as before, its labels never were, another verdict may come."""
    record = make(event_id="e-1")
    case, cases = await alert(repository, record), repository.cases
    await cases.claim(case.case_id, 1, "ana", NOW)
    await cases.dispose(case.case_id, 2, FRAUD, "a slip of the key", "ana", NOW)
    with pytest.raises(Conflict, match="closed by ana"):
        await cases.reopen(case.case_id, 3, "bo", NOW)
    back = await cases.reopen(case.case_id, 3, "ana", LATER - timedelta(microseconds=1))
    assert (back.state, back.claimed_by, back.disposition, back.closed_at) == ("investigating", "ana", None, None)
    assert await repository.outbox.take(10, LATER + timedelta(days=1)) == []
    assert await found(repository) == {"e-1": None}
    await cases.dispose(case.case_id, 4, FALSE, "the right key", "ana", NOW)
    assert await verdicts(repository) == {"e-1": "legitimate"}
    assert await found(repository) == {"e-1": FALSE}
    with pytest.raises(Conflict, match="more than 10 s ago"):
        await cases.reopen(case.case_id, 5, "ana", LATER)
    assert [deed.action for deed in await cases.history(case.case_id)] == [
        "case.claim",
        "case.dispose",
        "case.reopen",
        "case.dispose",
    ]


async def test_what_a_publisher_has_taken_cannot_be_taken_back(repository: Repository, make: Make) -> None:
    """Even where its clock is ahead: the label may have left, so the case stays closed."""
    case = await alert(repository, make())
    await repository.cases.dispose(case.case_id, 1, FRAUD, "told", "ana", NOW)
    (taken,) = await repository.outbox.take(10, LATER)
    with pytest.raises(Conflict, match="closed more than"):
        await repository.cases.reopen(case.case_id, 2, "ana", NOW)
    assert (await repository.cases.get_case(case.case_id))[0].state == "closed"
    await repository.outbox.mark_published([taken.id], LATER)
    with pytest.raises(Conflict, match="closed more than"):
        await repository.cases.reopen(case.case_id, 2, "ana", NOW)


async def test_an_account_never_has_two_open_cases(repository: Repository, make: Make) -> None:
    """A new alert after the closing opened another case: the old one stays closed."""
    case = await alert(repository, make())
    await repository.cases.dispose(case.case_id, 1, SUSPICIOUS, "told", "ana", NOW)
    newer = await alert(repository, make())
    with pytest.raises(Conflict, match=newer.case_id):
        await repository.cases.reopen(case.case_id, 2, "ana", NOW)


async def test_merged_cases_are_judged_together(repository: Repository, make: Make) -> None:
    """Money, risk and alerts count in the one that stays; its verdict, its undoing and its labels are of all."""
    mine = await alert(repository, make("a-1", event_id="e-1", risk=0.7, amount_base=100.0, outcome=Outcome.REVIEW))
    worse = make("a-2", event_id="e-2", risk=0.9, amount_base=50.0, outcome=Outcome.BLOCK, typology=Typology.MULE)
    other, third = await alert(repository, worse), await alert(repository, make("a-3", event_id="e-3", risk=0.1))
    cases = repository.cases
    await cases.merge(other.case_id, 1, third.case_id, 1, "one ring", "lee", NOW)
    whole = await cases.merge(mine.case_id, 1, other.case_id, 2, "the same ring", "lee", NOW)
    assert whole.expected_loss == pytest.approx(mine.expected_loss + other.expected_loss + third.expected_loss)
    assert (whole.money_held, whole.alerts, whole.outcome) == (50_150.0, 3, Outcome.BLOCK)
    assert (whole.top_risk, whole.typology, whole.top_line) == (0.9, Typology.MULE, worse.line)
    assert whole.due_at == other.due_at
    gone, _ = await cases.get_case(other.case_id)
    assert (gone.state, gone.merged_into, gone.disposition, gone.closed_by) == ("closed", mine.case_id, None, "lee")
    assert (await cases.get_case(third.case_id))[0].merged_into == mine.case_id
    assert set((await cases.folder(mine.case_id)).merged) == {other.case_id, third.case_id}
    _, alerts = await cases.get_case(mine.case_id)
    assert [one.event_id for one in alerts] == ["e-1", "e-2", "e-3"]
    for deed in (cases.claim, cases.reopen):
        with pytest.raises(Conflict):
            await deed(other.case_id, gone.version, "ana", NOW)

    await cases.dispose(mine.case_id, 2, FRAUD, "a ring", "ana", NOW)
    assert (await cases.get_case(other.case_id))[0].disposition is FRAUD
    labels = await repository.outbox.waiting(10)
    assert {(label.account_id, label.target_event_id, label.typology) for label in labels} == {
        ("a-1", "e-1", Typology.MULE),
        ("a-2", "e-2", Typology.MULE),
        ("a-3", "e-3", Typology.MULE),
    }
    assert set((await found(repository)).values()) == {FRAUD}
    await cases.reopen(mine.case_id, 3, "ana", NOW)
    assert (await cases.get_case(other.case_id))[0].disposition is None
    assert await repository.outbox.waiting(10) == []
    assert set((await found(repository)).values()) == {None}
    again = await alert(repository, make("a-2"))
    assert again.case_id != other.case_id


async def test_both_merged_cases_must_be_as_they_were_seen_and_free(repository: Repository, make: Make) -> None:
    """Somebody's claim on either, or a change of either, stops it."""
    one, two = await alert(repository, make()), await alert(repository, make("a-2"))
    cases = repository.cases
    await cases.claim(two.case_id, 1, "bo", NOW)
    with pytest.raises(Conflict, match=f"case {two.case_id} is version 2, not 1"):
        await cases.merge(one.case_id, 1, two.case_id, 1, "ring", "lee", NOW)
    with pytest.raises(Conflict, match="claimed by bo"):
        await cases.merge(one.case_id, 1, two.case_id, 2, "ring", "lee", NOW)
    with pytest.raises(BadInput, match="itself"):
        await cases.merge(one.case_id, 1, one.case_id, 1, "ring", "lee", NOW)
    assert (await cases.get_case(one.case_id))[0] == one


@pytest.fixture
def reviewed(engine: AsyncEngine) -> CaseBook:
    """A case book of which every disposed case is looked at again."""
    return CaseBook(engine, review_percent=100)


async def test_a_second_person_confirms(repository: Repository, reviewed: CaseBook, make: Make) -> None:
    """Not whoever closed it, not while it can be reopened, and once; no further label comes of it."""
    case = await alert(repository, make())
    closed = await reviewed.dispose(case.case_id, 1, FRAUD, "told", "ana", NOW)
    assert closed.review == "waiting"
    assert [c.case_id for c in (await reviewed.list_cases(CaseFilter(review="waiting"))).items] == [case.case_id]
    with pytest.raises(Conflict, match="another person"):
        await reviewed.review(case.case_id, 2, FRAUD, "me again", "ana", LATER)
    with pytest.raises(Conflict, match="still be reopened"):
        await reviewed.review(case.case_id, 2, FRAUD, "quick", "lee", NOW)
    done = await reviewed.review(case.case_id, 2, FRAUD, "right", "lee", LATER)
    assert (done.review, done.reviewed_by, done.disposition, done.reason) == ("agreed", "lee", FRAUD, "told")
    assert len(await repository.outbox.waiting(10)) == 1
    with pytest.raises(Conflict, match="waits for no review"):
        await reviewed.review(case.case_id, 3, FALSE, "hm", "bo", LATER)


async def test_a_second_person_disagrees(repository: Repository, reviewed: CaseBook, make: Make) -> None:
    """The second verdict holds, and its labels come after the first ones under ids of their own."""
    case = await alert(repository, make(event_id="e-1"))
    await reviewed.dispose(case.case_id, 1, FRAUD, "told", "ana", NOW)
    done = await reviewed.review(case.case_id, 2, FALSE, "the recording says otherwise", "lee", LATER)
    assert (done.review, done.disposition, done.closed_by) == ("disagreed", FALSE, "ana")
    first, second = await repository.outbox.waiting(10)
    assert isinstance(first, Label)
    assert (first.verdict, second.verdict, second.event_time) == ("fraud", "legitimate", LATER)
    assert first.event_id != second.event_id
    await repository.commit(Changes(labels=[first, second]))
    assert await found(repository) == {"e-1": FALSE}
    async for one in repository.labelled_decisions(NOW - timedelta(days=9), NOW + timedelta(days=9)):
        assert one.labels == ()
    with pytest.raises(Conflict, match="closed more than"):
        await reviewed.reopen(case.case_id, 3, "ana", NOW)


def test_the_sample_is_the_same_every_time_and_as_large_as_asked() -> None:
    """By the id alone; nothing at 0, everything at 100."""
    ids = [f"case-{n}" for n in range(20_000)]
    chosen = {case_id for case_id in ids if sampled(case_id, 5)}
    assert chosen == {case_id for case_id in ids if sampled(case_id, 5)}
    assert 0.045 < len(chosen) / len(ids) < 0.055
    assert chosen <= {case_id for case_id in ids if sampled(case_id, 6)}
    assert not any(sampled(case_id, 0) for case_id in ids)
    assert all(sampled(case_id, 100) for case_id in ids)
