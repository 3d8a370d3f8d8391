"""What was decided before, as back-fill and backtest read it."""

from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from fraudguard.decisions import history
from fraudguard.decisions.history import PastEvent, StoredDecision
from fraudguard.decisions.records import dump_record, load_record
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.domain import DecisionRecord, Label

Make = Callable[..., DecisionRecord]
START = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several fetches even of few rows."""
    monkeypatch.setattr(history, "ROWS_A_FETCH", 4)


async def store(repository: Repository, make: Make) -> list[DecisionRecord]:
    """30 payments and messages of 3 accounts over 3 months, in neither order of time nor of account."""
    records = [
        make(
            f"a-{n % 3}",
            sequence=n // 3 + 1,
            at=START + timedelta(days=(n * 7) % 80, microseconds=n),
            text="急用钱" if n % 5 == 0 else None,
        )
        for n in range(30)
    ]
    for n in range(0, 30, 10):
        await repository.commit(Changes(records=records[n : n + 10]))
    return records


def past(record: DecisionRecord) -> PastEvent:
    """The record as history gives it."""
    return PastEvent(record.event, record.decision.decided_at, record.decision.rules_version, record.late, "")


async def test_history_since(repository: Repository, make: Make) -> None:
    """Every event since a moment comes once, equal to what was stored; with decided_since, the newly decided ones."""
    records = await store(repository, make)
    for days in (0, 30, 79, 81):
        since = START + timedelta(days=days)
        found = [item async for item in repository.history(since)]
        wanted = [past(r) for r in records if r.event.event_time >= since]
        assert sorted(found, key=lambda p: p.event.event_id) == sorted(wanted, key=lambda p: p.event.event_id)
    decided_since = records[25].decision.decided_at
    again = [item async for item in repository.history(START + timedelta(days=10), decided_since)]
    assert {item.event.event_id for item in again} == {
        r.event.event_id for r in records[25:] if r.event.event_time >= START + timedelta(days=10)
    }


async def test_a_stream_may_be_left_early(repository: Repository, make: Make) -> None:
    """Who stops reading gives the connection back, as often as they like."""
    await store(repository, make)
    for _ in range(12):
        async with aclosing(repository.history(START)) as events:
            assert await anext(events)
        async with aclosing(repository.stored_decisions(START, START + timedelta(days=99))) as rows:
            assert await anext(rows)


async def test_an_accounts_history_is_in_sequence(repository: Repository, make: Make) -> None:
    """The accounts asked for, each in the order its events were taken, from a moment of event time on."""
    records = await store(repository, make)
    since = START + timedelta(days=20)
    found = await repository.account_history(["a-1", "a-2", "a-9"], since)
    assert found == {
        account: [(r.event, r.late) for r in records if r.event.account_id == account and r.event.event_time >= since]
        for account in ("a-1", "a-2")
    }
    assert await repository.account_history([], since) == {}


async def test_stored_decisions_by_account(repository: Repository, make: Make) -> None:
    """Rows between two event times come by account and sequence, across months, with the exact record."""
    records = await store(repository, make)
    first, before = records[3].event.event_time, records[11].event.event_time
    assert first < before
    rows = [row async for row in repository.stored_decisions(first, before)]
    wanted = sorted(
        (r for r in records if first <= r.event.event_time < before),
        key=lambda r: (r.decision.account_id, r.decision.sequence),
    )
    assert rows == [
        StoredDecision(
            r.decision.account_id, r.decision.sequence, r.event.event_time, r.decision.decision_id, dump_record(r)
        )
        for r in wanted
    ]
    assert [load_record(row.body, None) for row in rows] == wanted


async def test_labels_of_a_period(repository: Repository, make: Make) -> None:
    """Labels go by their target's event time, whenever they came, oldest first; of unknown targets there is none."""
    records = await store(repository, make)
    targets = sorted(records, key=lambda r: r.event.event_time)
    labels = [
        Label(
            type="label",
            version=1,
            event_id=f"l-{n}",
            account_id="a-1",
            event_time=START + timedelta(days=200 - n),
            target_event_id=target,
            source="chargeback",
            verdict="fraud",
        )
        for n, target in enumerate([targets[4].event.event_id, "unknown", targets[9].event.event_id] * 2)
    ]
    await repository.commit(Changes(labels=labels))
    found = await repository.labels_between(targets[4].event.event_time, targets[9].event.event_time)
    assert found == {targets[4].event.event_id: [labels[3], labels[0]]}
