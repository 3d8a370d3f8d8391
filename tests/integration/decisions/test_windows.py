"""Counters of declared windows: what is added in any order, by anybody at once, is what is read."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import connection as connecting
from fraudguard.decisions import windows
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.domain import EntityCount, WindowCount

Key = tuple[str, str, int]
EVERYTHING = [(window, entity, 0, 100) for window in ("k-1", "k-2") for entity in ("c-1", "c-2")]


def naive(increments: Iterable[WindowCount]) -> dict[Key, tuple[int, int, int | None, int]]:
    """What adding one after another should give."""
    totals: dict[Key, tuple[int, int, int | None, int]] = defaultdict(lambda: (0, 0, None, 0))
    for one in increments:
        key = (one.window, one.entity_id, one.bucket)
        count, total, peak, members = totals[key]
        if one.peak is not None:
            peak = one.peak if peak is None else max(peak, one.peak)
        totals[key] = (count + one.count, total + one.total, peak, members | one.members)
    return dict(totals)


def stored(counts: Iterable[WindowCount]) -> dict[Key, tuple[int, int, int | None, int]]:
    """Rows by key; a key that came twice is an error."""
    rows = [((c.window, c.entity_id, c.bucket), (c.count, c.total, c.peak, c.members)) for c in counts]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def some(numbers: random.Random, size: int) -> list[WindowCount]:
    """Increments of few keys; some without a value, some without a member, some of 20 digits."""
    return [
        WindowCount(
            numbers.choice(["k-1", "k-2"]),
            numbers.choice(["c-1", "c-2"]),
            numbers.randrange(4),
            numbers.randrange(3),
            numbers.choice([0, 5, -7, 10**20 + 1]),
            numbers.choice([None, -3, 0, 10**20 + 1]),
            numbers.choice([0, 1, 1 << numbers.randrange(1_024), (1 << 1_024) - 1]),
        )
        for _ in range(size)
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_increments_commute(repository: Repository, other: Repository, seed: int) -> None:
    """Increments split at random over concurrent batches of two workers give what one after another gives."""
    numbers = random.Random(seed)
    increments = some(numbers, 120)
    batches: list[list[WindowCount]] = [[] for _ in range(8)]
    for one in increments:
        numbers.choice(batches).append(one)
    await asyncio.gather(
        *(
            store.commit(Changes(window_counts=batch, counts=[EntityCount("ip", "203.0.113.5", 20_000, 1, 0)]))
            for batch, store in zip(batches, [repository, other] * 4, strict=True)
        )
    )
    assert stored(await repository.window_counts(EVERYTHING)) == naive(increments)
    assert [count.transactions for count in await repository.entity_counts({("ip", "203.0.113.5")}, 0)] == [8]


async def test_only_the_buckets_asked_for(repository: Repository) -> None:
    """Both ends are in, each bucket comes once however often it is asked for, and no other window's or entity's."""
    await repository.commit(
        Changes(
            window_counts=[
                WindowCount(window, entity, bucket, 1, 0, None, 0)
                for window in ("k-1", "k-2")
                for entity in ("c-1", "c-2")
                for bucket in range(-2, 30)
            ]
        )
    )
    asked = [
        ("k-1", "c-1", -1, 3),
        ("k-1", "c-1", 2, 5),
        ("k-1", "c-1", 20, 20),
        ("k-2", "c-1", 5, 4),
        ("k-2", "c-2", 29, 99),
    ]
    found = sorted(stored(await repository.window_counts(asked)))
    assert found == [*(("k-1", "c-1", bucket) for bucket in (*range(-1, 6), 20)), ("k-2", "c-2", 29)]
    assert await repository.window_counts([]) == []
    assert await repository.window_counts([("k-3", "c-1", 0, 9)]) == []


async def test_no_members_take_no_room(repository: Repository, engine: AsyncEngine) -> None:
    """A window without distinct values stores no bitmap."""
    await repository.commit(Changes(window_counts=[WindowCount("k-1", "c-1", 0, 1, 5, 5, 0)]))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM window_counts WHERE members IS NULL")) == 1


async def test_old_buckets_are_pruned_in_parts(
    repository: Repository, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is older than each window's own bucket goes, in as many transactions as it takes; a locked row stays."""
    monkeypatch.setattr(windows, "ROWS_A_STATEMENT_MAX", 4)
    monkeypatch.setattr(connecting, "ROWS_A_PART_MAX", 4)
    counts = [WindowCount(window, "c-1", bucket, 1, 0, None, 0) for window in ("k-1", "k-2") for bucket in range(20)]
    await repository.commit(Changes(window_counts=counts))
    async with engine.begin() as connection:
        await connection.execute(text("SELECT * FROM window_counts WHERE bucket = 0 FOR UPDATE"))
        assert await repository.prune_window_counts({"k-1": 11, "k-2": 1, "k-3": 9}) == 10
    assert await repository.prune_window_counts({"k-1": 11}) == 1
    left = sorted(stored(await repository.window_counts(EVERYTHING)))
    assert left == [*(("k-1", "c-1", bucket) for bucket in range(11, 20)), *(("k-2", "c-1", b) for b in range(20))]
