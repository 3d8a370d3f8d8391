"""Months become partitions on demand, whoever comes first, and no event is without a place."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.domain import DecisionRecord
from fraudguard.errors import StateConflict

Make = Callable[..., DecisionRecord]


def changes(*records: DecisionRecord) -> Changes:
    """A batch of new accounts."""
    return Changes(records=records, states={r.event.account_id: StoredState(0, b"s") for r in records})


async def partitions(engine: AsyncEngine) -> dict[str, int]:
    """Rows by partition."""
    async with engine.connect() as connection:
        names = await connection.scalars(text("SELECT relid::text FROM pg_partition_tree('decisions') WHERE isleaf"))
        return {name: await connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in names.all()}


async def test_months_are_made_with_the_next_one(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """An event's month and the one after it exist once the event is stored; months go by UTC."""
    last_second = datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    await repository.commit(changes(make(at=last_second)))
    assert await partitions(engine) == {"decisions_2026_12": 1, "decisions_2027_01": 0, "decisions_other": 0}


async def test_absurd_years_go_to_the_default_partition(
    repository: Repository, engine: AsyncEngine, make: Make
) -> None:
    """Years that no month is made for share one partition, to the microsecond at both ends."""
    inside = [datetime(2010, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
    outside = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2009, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    records = [make(f"a-{n}", at=at) for n, at in enumerate(inside + outside)]
    await repository.commit(changes(*records))
    assert await partitions(engine) == {
        "decisions_2010_01": 1,
        "decisions_2010_02": 0,
        "decisions_2049_12": 1,
        "decisions_other": 4,
    }
    assert await repository.earlier([r.event.event_id for r in records]) == {r.event.event_id: r for r in records}


async def test_workers_race_for_new_months(database_url: str, engine: AsyncEngine, make: Make) -> None:
    """Eight workers that all need the same new months at once all succeed."""
    engines = [open_engine(database_url, pool_size=1) for _ in range(8)]
    try:
        batches = [
            changes(*(make(f"a-{n}-{month}", at=datetime(2027, month, 1, tzinfo=UTC)) for month in range(1, 7)))
            for n in range(8)
        ]
        await asyncio.gather(*(Repository(own).commit(batch) for own, batch in zip(engines, batches, strict=True)))
    finally:
        for own in engines:
            await own.dispose()
    assert await partitions(engine) == {f"decisions_2027_0{month}": 8 * (month < 7) for month in range(1, 8)} | {
        "decisions_other": 0
    }


async def test_a_dropped_month_comes_back(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """A worker that remembers a partition which retention dropped conflicts once, then makes it again."""
    await repository.commit(changes(make("a-1")))
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE decisions_2026_11"))
    batch = changes(make("a-2"))
    with pytest.raises(StateConflict):
        await repository.commit(batch)
    await repository.commit(batch)
    assert (await partitions(engine))["decisions_2026_11"] == 1


@pytest.mark.parametrize("month", ["2026-11-02", "2009-12-01", "2050-01-01"])
async def test_only_first_days_of_known_years_become_partitions(engine: AsyncEngine, month: str) -> None:
    """The SQL function refuses what would overlap another partition."""
    with pytest.raises(DBAPIError, match="not the first of a month"):
        async with engine.begin() as connection:
            await connection.execute(
                text("SELECT decisions_ensure_month(cast(cast(:m AS text) AS date))"), {"m": month}
            )


async def test_lookups_read_one_partition(repository: Repository, engine: AsyncEngine, make: Make) -> None:
    """A decision is fetched from the partition of its own month alone."""
    for month in range(1, 7):
        await repository.commit(changes(make(f"a-{month}", at=datetime(2027, month, 1, tzinfo=UTC))))
    async with engine.connect() as connection:
        plan = await connection.scalars(
            text("EXPLAIN SELECT body FROM decisions WHERE event_time = '2027-03-01Z' AND decision_id = 'x'")
        )
        lines = "\n".join(plan.all())
    assert "decisions_2027_03" in lines
    assert "decisions_2027_04" not in lines
