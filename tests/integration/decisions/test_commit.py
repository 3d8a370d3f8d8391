"""One batch, one transaction: everything or nothing, once, against the real PostgreSQL."""

import asyncio
import random
from collections.abc import Callable

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import documents
from fraudguard.decisions.casebook import CaseFilter, Disposition
from fraudguard.decisions.connection import transaction
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.domain import DecisionRecord, EntityCount, Label, Typology
from fraudguard.errors import NotFound, StateConflict, StoreUnavailable

Make = Callable[..., DecisionRecord]
TABLES = ("event_ids", "decisions", "labels", "account_state", "entity_counts", "cases", "alerts")


def label(event_id: str, target: str, make: Make, account: str = "a-1") -> Label:
    """A chargeback."""
    return Label(
        type="label",
        version=1,
        event_id=event_id,
        account_id=account,
        event_time=make().event.event_time,
        target_event_id=target,
        source="chargeback",
        verdict="fraud",
        typology=Typology.SCAM,
    )


def changes(*records: DecisionRecord, read: int = 0, labels: tuple[Label, ...] = ()) -> Changes:
    """A batch of these records, each an alert, that read every account at this version."""
    return Changes(
        records=records,
        labels=labels,
        states={r.event.account_id: StoredState(read, f"v{read + 1}".encode()) for r in records},
        counts=[EntityCount("counterparty", "c-9", 20_778, 1, 0) for _ in records],
        alerts=records,
    )


async def counts(engine: AsyncEngine) -> dict[str, int]:
    """Rows by table."""
    async with engine.connect() as connection:
        return {t: await connection.scalar(text(f"SELECT count(*) FROM {t}")) or 0 for t in TABLES}


async def test_a_batch_is_stored_whole(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """Every part of a batch can be read back after its commit."""
    first, second = make(sealed=b"\x00sealed"), make(text="急用钱，先转到安全账户 🙏")
    fraud = label("l-1", first.event.event_id, make)
    await repository.commit(changes(first, second, labels=(fraud,)))
    ids = {first.event.event_id: first, second.event.event_id: second}
    assert await repository.earlier([*ids, "unknown"]) == ids
    assert await repository.record(first.decision.decision_id) == first
    assert await repository.record_of_event(second.event.event_id) == second
    assert await repository.states(["a-1", "a-2"]) == {"a-1": StoredState(1, b"v1")}
    assert await repository.labels([first.event.event_id, "x"]) == {first.event.event_id: [fraud]}
    assert await repository.labels_by_id(["l-1", "x"]) == {"l-1": fraud}
    assert await repository.entity_counts({("counterparty", "c-9"), ("device", "c-9")}, 20_778) == [
        EntityCount("counterparty", "c-9", 20_778, 2, 0)
    ]
    assert await repository.entity_counts({("counterparty", "c-9")}, 20_779) == []
    assert (await counts(engine))["alerts"] == 2


async def test_unknown_ids(repository: Repository) -> None:
    """What was never stored is missing or NotFound, and an empty question has an empty answer."""
    assert await repository.earlier([]) == {}
    assert await repository.states([]) == {}
    assert await repository.labels([]) == {}
    assert await repository.entity_counts([], 0) == []
    for lookup in (repository.record("x"), repository.record_of_event("x"), repository.document("rules", "x")):
        with pytest.raises(NotFound):
            await lookup


async def test_timeline_is_rebuilt_from_the_lines(repository: Repository, make: Make) -> None:
    """The timeline is the account's stored lines from its start to the decision, in sequence, across months."""
    records = [make(sequence=n, at=make().event.event_time.replace(month=n)) for n in (1, 2, 3, 4)]
    await repository.commit(changes(*records))
    timeline = await repository.timeline(records[2])
    assert (timeline.account_id, timeline.start) == ("a-1", 1)
    assert [(li.type, li.event_time, li.text) for li in timeline.lines] == [
        (r.event.type, r.event.event_time, r.line) for r in records[:3]
    ]


@pytest.mark.parametrize("read", [0, 2])
async def test_a_stale_version_writes_nothing(
    repository: Repository, engine: AsyncEngine, make: Make, read: int
) -> None:
    """A batch that read another version than the stored one leaves no trace."""
    await repository.commit(changes(make()))
    before = await counts(engine)
    late_label = label("l-1", "e-1", make, account="a-2")
    with pytest.raises(StateConflict):
        await repository.commit(changes(make(), make("a-2"), read=read, labels=(late_label,)))
    assert await counts(engine) == before
    assert await repository.states(["a-1", "a-2"]) == {"a-1": StoredState(1, b"v1")}


async def test_a_taken_event_id_writes_nothing(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """The same event id in another account, another month or a label is refused and the first write stays."""
    first = make(event_id="e-same")
    fraud = label("l-same", "e-same", make)
    await repository.commit(changes(first, labels=(fraud,)))
    before = await counts(engine)
    moved = make("a-2", event_id="e-same", at=first.event.event_time.replace(year=2031))
    for batch in (changes(moved), changes(make("a-3"), labels=(label("l-same", "other", make),))):
        with pytest.raises(StateConflict):
            await repository.commit(batch)
    assert await counts(engine) == before
    assert await repository.earlier(["e-same"]) == {"e-same": first}


async def test_a_taken_sequence_writes_nothing(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """An account's sequence number is given once, even if its state's version were wrong."""
    await repository.commit(changes(make(sequence=7)))
    before = await counts(engine)
    with pytest.raises(StateConflict):
        await repository.commit(changes(make(sequence=7), read=1))
    assert await counts(engine) == before


async def test_a_repeated_batch_changes_nothing(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """The same batch again conflicts, whichever version it claims, and no case counts an alert twice."""
    batch = changes(make(), make())
    await repository.commit(batch)
    before = await counts(engine)
    for again in (batch, changes(*batch.records, read=1)):
        with pytest.raises(StateConflict):
            await repository.commit(again)
    assert await counts(engine) == before
    page = await repository.cases.list_cases(CaseFilter())
    assert page.items[0].alerts == 2


async def test_one_of_two_workers_wins(
    repository: Repository, other: Repository, engine: AsyncEngine, make: Make
) -> None:
    """Of two workers that read the same account, in every round exactly one commits."""
    for version in range(8):
        batches = (changes(make("a-1"), make("a-2"), read=version), changes(make("a-2"), make("a-1"), read=version))
        done = await asyncio.gather(repository.commit(batches[0]), other.commit(batches[1]), return_exceptions=True)
        assert sorted(type(d).__name__ for d in done) == ["NoneType", "StateConflict"]
    assert (await counts(engine))["decisions"] == 16
    assert {s.version for s in (await repository.states(["a-1", "a-2"])).values()} == {8}


async def test_counts_of_many_workers_add_up(repository: Repository, other: Repository) -> None:
    """Concurrent increments of the same entities in any order neither deadlock nor get lost."""
    keys = [("counterparty", f"c-{n}", 20_000 + n % 3) for n in range(60)]
    shuffled = random.Random(3)

    def batch() -> Changes:
        picked = keys * 2
        shuffled.shuffle(picked)
        return Changes(counts=[EntityCount(kind, entity, day, 1, -1) for kind, entity, day in picked])

    await asyncio.gather(*(store.commit(batch()) for _ in range(10) for store in (repository, other)))
    stored = await repository.entity_counts({(kind, entity) for kind, entity, _ in keys}, 0)
    assert {(c.kind, c.entity_id, c.day, c.transactions, c.frauds) for c in stored} == {(*key, 40, -40) for key in keys}


async def test_a_killed_connection_leaves_nothing(
    repository: Repository, engine: AsyncEngine, make: Make, database_url: str
) -> None:
    """A backend that dies at the transaction's last statement surfaces as StoreUnavailable and rolls back."""
    await repository.commit(changes(make("a-0")))
    before = await counts(engine)
    blocker, killer = [await asyncpg.connect(database_url) for _ in range(2)]
    try:
        async with blocker.transaction():
            await blocker.execute("SELECT * FROM entity_counts FOR UPDATE")
            batch = changes(make("a-1"))
            commit = asyncio.create_task(repository.commit(batch))
            killed = 0
            for _ in range(500):
                killed = await killer.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO entity_counts%'"
                )
                if killed:
                    break
                await asyncio.sleep(0.01)
            assert killed == 1
            with pytest.raises(StoreUnavailable):
                await commit
    finally:
        await blocker.close()
        await killer.close()
    assert await counts(engine) == before
    await repository.commit(batch)
    assert await repository.states(["a-1"]) == {"a-1": StoredState(1, b"v1")}


@pytest.mark.parametrize("table", ["event_ids", "decisions", "labels", "documents", "alerts", "dispositions", "audit"])
async def test_history_cannot_be_changed(repository: Repository, engine: AsyncEngine, make: Make, table: str) -> None:
    """PostgreSQL itself refuses to update, delete or truncate what is written once."""
    record = make()
    await repository.commit(changes(record, labels=(label("l-1", "e-1", make),)))
    async with transaction(engine) as connection:
        await documents.save(connection, "policy", "p-1", "version: 1")
    case = (await repository.cases.list_cases(CaseFilter())).items[0]
    await repository.cases.dispose(
        case.case_id, case.version, Disposition.SUSPICIOUS, "unsure", "ana", record.decision.decided_at
    )
    async with engine.connect() as connection:
        column = await connection.scalar(
            text("SELECT attname FROM pg_attribute WHERE attrelid = cast(:t AS regclass) AND attnum = 2"), {"t": table}
        )
    for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with engine.begin() as connection:
                await connection.execute(text(statement))


async def test_documents_keep_their_first_body(repository: Repository, engine: AsyncEngine) -> None:
    """Saving a version again, whatever the body, changes nothing."""
    async with transaction(engine) as connection:
        await documents.save(connection, "rules", "abc", "一")
        await documents.save(connection, "rules", "abc", "two")
        await documents.save(connection, "policy", "abc", "three")
    assert await repository.document("rules", "abc") == "一"
    assert await repository.document("policy", "abc") == "three"
