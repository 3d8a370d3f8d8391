"""The audit trail: who did what, append-only. Written in the same transaction as the deed.

Each row's hash covers the row and the hash before it, so whoever changes, removes or slips in a row breaks the chain
from there on (`verify`). The chain's end is one row that a deed locks until it commits: append last, after every other
lock is taken. Only people's deeds are audited, never a decision.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions import units
from fraudguard.decisions.connection import transaction, working_for
from fraudguard.decisions.tables import AUDIT, AUDIT_CHAIN
from fraudguard.tenants import HOUSE

ROWS_A_FETCH = 1_000
START = "0" * 64  # what stands before the first row

# Of a deed: JSON values by name.
Detail = Mapping[str, str | int | Mapping[str, str | None] | None]

# Waits for the deed before this one; what it returns is the hash that deed left.
_LOCK = text("UPDATE audit_chain SET rows = rows + :count RETURNING hash")
_APPEND = text("""
WITH moved AS (UPDATE audit_chain SET hash = :last)
INSERT INTO audit (at, actor, action, subject, detail, prev_hash, hash, tenant)
SELECT at, :actor, :action, subject, CAST(detail AS jsonb), prev_hash, hash, :tenant
FROM unnest(CAST(:times AS timestamptz[]), CAST(:subjects AS text[]), CAST(:details AS text[]),
            CAST(:befores AS text[]), CAST(:hashes AS text[]))
     WITH ORDINALITY AS d (at, subject, detail, prev_hash, hash, place)
ORDER BY place
""")


@dataclass(frozen=True, slots=True)
class Deed:
    """A row of the trail. tenant: whose people may read it, besides the house's."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: Detail
    tenant: str = HOUSE


@dataclass(frozen=True, slots=True)
class Broken:
    """The first row that does not follow from those before it. id: None where rows at the end are missing."""

    id: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a walk along the chain found. rows and hash: how far it held, and the hash there."""

    rows: int
    hash: str
    broken: Broken | None


def digest(deed: Deed, before: str) -> str:
    """SHA-256, in hex, of the deed and the hash before it as JSON: sorted keys, no spaces, UTF-8, UTC microseconds.

    The tenant is left out for the house's, so that rows from before there were tenants hold.
    """
    fields = {
        "at": deed.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": deed.actor,
        "action": deed.action,
        "subject": deed.subject,
        "detail": dict(deed.detail),
        "prev_hash": before,
    }
    if deed.tenant:
        fields["tenant"] = deed.tenant
    return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def append(
    connection: AsyncConnection,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    detail: Detail,
    tenant: str = HOUSE,
) -> None:
    """action: a word such as `case.dispose`; subject: the id it was done to; detail: never conversation text.

    tenant: whose the subject is.
    """
    await append_many(connection, actor, action, [(at, subject, detail)], tenant)


async def append_many(
    connection: AsyncConnection,
    actor: str,
    action: str,
    deeds: Sequence[tuple[datetime, str, Detail]],
    tenant: str = HOUSE,
) -> None:
    """The same action by the same person to many subjects, one row each as (at, subject, detail)."""
    if not deeds:
        return
    units.deed_in(connection)
    async with working_for(connection, HOUSE):
        hashes = [str(await connection.scalar(_LOCK, {"count": len(deeds)}))]
        for at, subject, detail in deeds:
            hashes.append(digest(Deed(at, actor, action, subject, detail, tenant), hashes[-1]))
        await connection.execute(
            _APPEND,
            {
                "actor": actor,
                "action": action,
                "tenant": tenant,
                "times": [at for at, _, _ in deeds],
                "subjects": [subject for _, subject, _ in deeds],
                "details": [orjson.dumps(dict(detail)).decode() for _, _, detail in deeds],
                "befores": hashes[:-1],
                "hashes": hashes[1:],
                "last": hashes[-1],
            },
        )


async def history(connection: AsyncConnection, subject: str, limit: int) -> list[Deed]:
    """The newest deeds done to a subject, oldest first."""
    query = select(AUDIT).where(AUDIT.c.subject == subject).order_by(AUDIT.c.id.desc()).limit(limit)
    rows = (await connection.execute(query)).all()
    return [_deed(row) for row in reversed(rows)]


def _deed(row: Row[Any]) -> Deed:
    return Deed(row.at, row.actor, row.action, row.subject, row.detail, row.tenant)


async def verify(engine: AsyncEngine, anchor: str | None = None) -> Verified:
    """Walk the whole trail, ROWS_A_FETCH rows at a time; deeds that are done meanwhile are left out.

    anchor: a hash that an earlier walk ended with and somebody kept elsewhere; it must be on the way. That is what
    finds a trail whose end, or all of which, was written anew.
    """
    async with transaction(engine) as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        end = (await connection.execute(select(AUDIT_CHAIN))).one()
        rows, last, anchored = 0, START, anchor in (None, START)
        async for row in _rows(connection):
            if row.prev_hash != last:
                return Verified(rows, last, Broken(row.id, "does not follow the row before it"))
            last = digest(_deed(row), row.prev_hash)
            if row.hash != last:
                return Verified(rows, row.prev_hash, Broken(row.id, "is not what was written"))
            rows, anchored = rows + 1, anchored or last == anchor
    if (rows, last) != (end.rows, end.hash):
        return Verified(rows, last, Broken(None, f"{end.rows} rows were written, {rows} are there"))
    if not anchored:
        return Verified(rows, last, Broken(None, f"no row has the hash {anchor}"))
    return Verified(rows, last, None)


async def _rows(connection: AsyncConnection) -> AsyncIterator[Row[Any]]:
    query = select(AUDIT).order_by(AUDIT.c.id)
    async with connection.stream(query, execution_options={"yield_per": ROWS_A_FETCH}) as found:
        async for part in found.partitions(ROWS_A_FETCH):
            for row in part:
                yield row
