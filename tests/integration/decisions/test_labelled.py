"""Decisions with what was said of them since, as training data is made of them."""

from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import history, labelled
from fraudguard.decisions.casebook import Case, CaseFilter, Disposition
from fraudguard.decisions.labelled import CaseOutcome, LabelledDecision
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.domain import DecisionRecord, Label, Typology

Make = Callable[..., DecisionRecord]
START = datetime(2026, 9, 1, tzinfo=UTC)
UNTIL = START + timedelta(days=100)


@pytest.fixture(autouse=True)
def small_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several fetches even of few rows."""
    monkeypatch.setattr(history, "ROWS_A_FETCH", 4)


def said(event_id: str, target: str, day: float, verdict: str = "fraud", source: str = "chargeback") -> Label:
    """A label of that day."""
    return Label.model_validate(
        {
            "type": "label", "version": 1, "event_id": event_id, "account_id": "a-0",
            "event_time": START + timedelta(days=day, microseconds=7), "target_event_id": target, "source": source,
            "verdict": verdict,
        }
    )  # fmt: skip


async def read(repository: Repository, until: datetime = UNTIL, since: datetime = START) -> list[LabelledDecision]:
    """All of them."""
    return [one async for one in repository.labelled_decisions(since, until)]


async def test_every_event_in_sequence_with_its_stored_features(repository: Repository, make: Make) -> None:
    """Accounts one after the other, each in sequence, whatever months its events are of, equal to what was stored."""
    records = [
        make(
            f"a-{n % 3}", sequence=n // 3 + 1, at=START + timedelta(days=(n * 7) % 80, microseconds=n), text="急用钱😭"
        )
        for n in range(30)
    ]
    await repository.commit(Changes(records=records))
    found = await read(repository)
    assert [(one.account_id, one.sequence) for one in found] == [(f"a-{a}", s) for a in range(3) for s in range(1, 11)]
    by_id = {record.event.event_id: record for record in records}
    for one in found:
        record = by_id[one.event.event_id]
        assert (one.event, one.features, one.labels, one.case) == (record.event, record.features, (), None)
    some = await read(repository, START + timedelta(days=40), START + timedelta(days=20))
    assert {one.event.event_id for one in some} == {
        r.event.event_id for r in records if timedelta(days=20) <= r.event.event_time - START <= timedelta(days=40)
    }


async def test_labels_and_dispositions_as_they_were_known(repository: Repository, make: Make) -> None:
    """Oldest label first; later ones and later dispositions are not there yet; a case that is open says nothing."""
    alert, plain, other = (make("a-0", event_id=f"e-{n}", sequence=n, at=START + timedelta(days=n)) for n in (1, 2, 3))
    labels = [said("l-2", "e-2", 30, "legitimate", "customer"), said("l-1", "e-2", 9), said("l-3", "e-2", 60)]
    await repository.commit(Changes(records=[alert, plain, other], alerts=[alert], labels=labels))
    (case,) = await _cases(repository)
    closed = START + timedelta(days=20)
    await repository.cases.dispose(case.case_id, case.version, Disposition.CONFIRMED_FRAUD, "called", "ana", closed)
    outcome = CaseOutcome(case.case_id, Typology.SCAM, Disposition.CONFIRMED_FRAUD, closed)
    for day, heard, disposed in ((8, 0, False), (15, 1, False), (40, 2, True), (99, 3, True)):
        first, second, third = await read(repository, START + timedelta(days=day))
        assert first.case == (outcome if disposed else CaseOutcome(case.case_id, Typology.SCAM, None, None))
        assert [label.event_id for label in second.labels] == ["l-1", "l-2", "l-3"][:heard]
        assert (first.labels, second.case, third.labels, third.case) == ((), None, (), None)
    assert second.labels == (labels[1], labels[0], labels[2])


async def test_what_a_disposition_sent_is_no_label_of_the_event(repository: Repository, make: Make) -> None:
    """Its labels come back through Kafka and are stored; what anybody else said of the alert is."""
    alert = make("a-0", event_id="e-1", sequence=1, at=START)
    await repository.commit(Changes(records=[alert], alerts=[alert]))
    (case,) = await _cases(repository)
    await repository.cases.dispose(
        case.case_id, case.version, Disposition.FALSE_POSITIVE, "called", "ana", START + timedelta(days=2)
    )
    sent = await repository.outbox.waiting(10)
    assert [label.verdict for label in sent] == ["legitimate"]
    own = said("l-1", "e-1", 1)
    await repository.commit(Changes(labels=[*sent, own]))
    (one,) = await read(repository)
    assert one.labels == (own,)
    assert one.case is not None
    assert one.case.disposition is Disposition.FALSE_POSITIVE


async def test_nothing_is_sorted_as_a_whole(engine: AsyncEngine, repository: Repository, make: Make) -> None:
    """PostgreSQL gives the first row without having read the last one; a stream may be left early, again and again."""
    for batch in range(4):
        records = [
            make(f"a-{n:03d}", sequence=batch * 100 + n + 1, at=START + timedelta(days=batch * 20, seconds=n))
            for n in range(100)
        ]
        labels = [said(f"l-{batch}-{n}", r.event.event_id, 90) for n, r in enumerate(records[::7])]
        await repository.commit(Changes(records=records, alerts=records[::11], labels=labels))
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE"))
        await connection.execute(history.NO_SORT_OF_ALL)
        explained = text(f"EXPLAIN {labelled._QUERY.text}")
        plan = (await connection.execute(explained, {"since": START, "until": UNTIL})).scalars().all()
    # What is sorted below is the labels of one event.
    assert plan[0].startswith("Incremental Sort"), "\n".join(plan)
    assert plan[2].strip() == "Presorted Key: d.account_id"
    for _ in range(12):
        async with aclosing(repository.labelled_decisions(START, UNTIL)) as rows:
            assert (await anext(rows)).account_id == "a-000"


async def test_newest(repository: Repository, make: Make) -> None:
    """The newest of events, labels and dispositions."""
    assert await repository.newest() is None
    alert = make("a-0", sequence=1, at=START)
    await repository.commit(Changes(records=[alert], alerts=[alert]))
    assert await repository.newest() == START
    await repository.commit(Changes(labels=[said("l-1", "e", 3)]))
    assert await repository.newest() == START + timedelta(days=3, microseconds=7)
    (case,) = await _cases(repository)
    await repository.cases.dispose(
        case.case_id, case.version, Disposition.SUSPICIOUS, "called", "ana", START + timedelta(days=5)
    )
    assert await repository.newest() == START + timedelta(days=5)


async def _cases(repository: Repository) -> list[Case]:
    return list((await repository.cases.list_cases(CaseFilter())).items)
