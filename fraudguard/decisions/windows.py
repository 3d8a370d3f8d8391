"""Counters of declared windows over entities shared by accounts: read, added to, forgotten, pruned.

Knows their rows and opens no connection. What a window counts, and how far it looks back, is the features room's.
"""

from collections.abc import Collection, Sequence
from typing import Any

from asyncpg import BitString
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions.connection import Open, any_of, in_parts
from fraudguard.decisions.tables import WINDOW_COUNTS
from fraudguard.domain import WindowCount
from fraudguard.tenants import unscoped

MEMBERS_BITS = 1_024
ROWS_A_STATEMENT_MAX = 10_000  # a back-fill adds more than one statement's time allows

# As text: an int is read faster from it than from a numeric.
_READ = text("""
SELECT c.window_key, c.entity_id, c.bucket, c.count, CAST(c.total AS text), CAST(c.peak AS text), c.members
FROM unnest(CAST(:windows AS text[]), CAST(:entities AS text[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))
     AS k (window_key, entity_id, first, last)
JOIN window_counts c
    ON c.window_key = k.window_key AND c.entity_id = k.entity_id AND c.bucket BETWEEN k.first AND k.last
""")

# greatest() and coalesce() skip nulls: no peak, no members.
_ADD = text("""
INSERT INTO window_counts AS c (window_key, entity_id, bucket, count, total, peak, members, tenant)
SELECT * FROM unnest(CAST(:windows AS text[]), CAST(:entities AS text[]), CAST(:buckets AS bigint[]),
                     CAST(:counts AS bigint[]), CAST(:totals AS numeric[]), CAST(:peaks AS numeric[]),
                     CAST(:members AS bit(1024)[]), CAST(:tenants AS text[]))
ON CONFLICT (window_key, entity_id, bucket) DO UPDATE
SET count = c.count + excluded.count, total = c.total + excluded.total, peak = greatest(c.peak, excluded.peak),
    members = coalesce(c.members | excluded.members, c.members, excluded.members)
""")

# A row that a batch is adding to is left for the next time: waiting for it could be a deadlock.
_PRUNE = text("""
DELETE FROM window_counts WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM window_counts WHERE window_key = :window AND bucket < :bucket LIMIT :rows FOR UPDATE SKIP LOCKED))
""")


async def read(connection: AsyncConnection, keys: Collection[tuple[str, str, int, int]]) -> list[WindowCount]:
    """The stored rows of (window key, entity id, first bucket, last bucket), each once, in no order."""
    ranges = _merged(keys)
    if not ranges:
        return []
    windows, entities, firsts, lasts = zip(*ranges, strict=True)
    rows = await connection.execute(
        _READ, {"windows": list(windows), "entities": list(entities), "firsts": list(firsts), "lasts": list(lasts)}
    )
    return [_count(row) for row in rows]


def _merged(keys: Collection[tuple[str, str, int, int]]) -> list[tuple[str, str, int, int]]:
    """The same buckets in ranges that do not overlap, sorted."""
    merged: list[tuple[str, str, int, int]] = []
    for window, entity, first, last in sorted(keys):
        if merged and merged[-1][:2] == (window, entity) and first <= merged[-1][3] + 1:
            merged[-1] = (window, entity, merged[-1][2], max(last, merged[-1][3]))
        else:
            merged.append((window, entity, first, last))
    return merged


async def add(connection: AsyncConnection, increments: Sequence[WindowCount]) -> None:
    """Add the increments: commutative, so unguarded; sorted by key, so that two batches cannot deadlock."""
    summed: dict[tuple[str, str, int], WindowCount] = {}
    for one in increments:
        key = (one.window, one.entity_id, one.bucket)
        summed[key] = _plus(summed[key], one) if key in summed else one
    rows = [summed[key] for key in sorted(summed)]
    for start in range(0, len(rows), ROWS_A_STATEMENT_MAX):
        part = rows[start : start + ROWS_A_STATEMENT_MAX]
        await connection.execute(
            _ADD,
            {
                "windows": [row.window for row in part],
                "entities": [row.entity_id for row in part],
                "buckets": [row.bucket for row in part],
                "counts": [row.count for row in part],
                "totals": [row.total for row in part],
                "peaks": [row.peak for row in part],
                "members": [BitString.from_int(row.members, MEMBERS_BITS) if row.members else None for row in part],
                "tenants": [unscoped(row.entity_id)[0] for row in part],
            },
        )


def _plus(one: WindowCount, two: WindowCount) -> WindowCount:
    peaks = [peak for peak in (one.peak, two.peak) if peak is not None]
    return WindowCount(
        one.window,
        one.entity_id,
        one.bucket,
        one.count + two.count,
        one.total + two.total,
        max(peaks, default=None),
        one.members | two.members,
    )


async def forget(connection: AsyncConnection, windows: Collection[str]) -> None:
    """Delete everything that these window keys have counted."""
    if windows:
        await connection.execute(WINDOW_COUNTS.delete().where(WINDOW_COUNTS.c.window_key == any_of(windows)))


async def prune(open_: Open, window: str, bucket: int) -> int:
    """Delete a window's rows before this bucket, a bounded part a transaction; how many."""
    return await in_parts(open_, _PRUNE, {"window": window, "bucket": bucket})


def _count(row: Row[Any]) -> WindowCount:
    window, entity_id, bucket, count, total, peak, members = tuple(row)
    return WindowCount(
        window,
        entity_id,
        bucket,
        count,
        int(total),
        None if peak is None else int(peak),
        0 if members is None else members.to_int(),
    )
