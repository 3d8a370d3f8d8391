"""Lists of decisions for people: filters and keyset pages, newest event first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Select, Text, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions.connection import PLAN_BY_VALUE, current_tenant
from fraudguard.decisions.pages import Page, check_limit, decode_cursor, encode_cursor
from fraudguard.decisions.records import load_record
from fraudguard.decisions.tables import DECISIONS
from fraudguard.domain import DecisionRecord, Outcome, Typology

RISKY = 0.5  # as the partial index ix_decisions_risk has it


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """What a listed decision must be; None asks nothing. Times are the event's: from inclusive, to exclusive.

    tenant: for the house's people; a tenant's see their own whatever it says.
    """

    account_id: str | None = None
    outcome: Outcome | None = None
    event_type: Literal["transaction", "message"] | None = None
    typology: Typology | None = None
    risk_min: float | None = None
    event_time_from: datetime | None = None
    event_time_to: datetime | None = None
    reason: str | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A decision's row as it lies there. body: the text that records.load_record reads."""

    event_time: datetime
    decision_id: str
    body: str


# The messages of each decision's timeline in the day before its event: what its rules read as `chat`.
_SAID = text("""
SELECT k.decision, m.event_time, m.body ->> 'line' AS line
FROM unnest(CAST(:decisions AS text[]), CAST(:accounts AS text[]), CAST(:firsts AS bigint[]),
            CAST(:lasts AS bigint[]), CAST(:times AS timestamptz[])) AS k (decision, account, first, last, at)
JOIN event_ids e ON e.account_id = k.account AND e.sequence BETWEEN k.first AND k.last
    AND e.event_time > k.at - CAST(:span AS interval) AND e.event_time <= k.at
JOIN decisions m ON m.event_time = e.event_time AND m.decision_id = e.decision_id
WHERE m.event_type = 'message' AND m.event_time BETWEEN :oldest AND :newest
ORDER BY k.decision, e.sequence
""")


@dataclass(frozen=True, slots=True)
class Read:
    """A decision whose conversation is asked for. first: where its timeline began."""

    decision_id: str
    account_id: str
    first: int
    last: int
    event_time: datetime
    tenant: str


async def said_before(
    connection: AsyncConnection, reads: Sequence[Read], span: timedelta
) -> dict[str, list[tuple[datetime, str]]]:
    """The lines of messages, each with its event time, by decision; decisions without one are missing."""
    if not reads:
        return {}
    times = [one.event_time for one in reads]
    rows = await connection.execute(
        _SAID,
        {
            "decisions": [one.decision_id for one in reads],
            "accounts": [one.account_id for one in reads],
            "firsts": [one.first for one in reads],
            "lasts": [one.last for one in reads],
            "times": times,
            "tenants": [one.tenant for one in reads],
            "span": span,
            "oldest": min(times) - span,
            "newest": max(times),
        },
    )
    found: dict[str, list[tuple[datetime, str]]] = {}
    for row in rows:
        found.setdefault(row.decision, []).append((row.event_time, row.line))
    return found


async def list_decisions(
    connection: AsyncConnection, wanted: DecisionFilter, limit: int, cursor: str | None
) -> Page[DecisionRecord]:
    """One page, without sealed texts. Raises BadInput for a bad limit or cursor."""
    rows = await list_bodies(connection, wanted, check_limit(limit) + 1, cursor)
    shown = rows[:limit]
    more = encode_cursor(shown[-1].event_time, shown[-1].decision_id) if len(rows) > limit else None
    return Page(tuple(load_record(row.body, None) for row in shown), more)


async def list_bodies(
    connection: AsyncConnection, wanted: DecisionFilter, rows: int, cursor: str | None
) -> list[StoredBody]:
    """The newest `rows` at most, after the cursor's place. Raises BadInput for a bad cursor."""
    await connection.execute(PLAN_BY_VALUE)
    return [StoredBody(*row) for row in await connection.execute(listing(wanted, rows, cursor))]


def listing(wanted: DecisionFilter, rows: int, cursor: str | None) -> Select[Any]:
    """The query of one page. Raises BadInput."""
    d = DECISIONS.c
    query = select(d.event_time, d.decision_id, d.body.cast(Text).label("body"))
    for column, value in (
        (d.account_id, wanted.account_id),
        (d.outcome, wanted.outcome),
        (d.event_type, wanted.event_type),
        (d.typology, wanted.typology),
    ):
        if value is not None:
            query = query.where(column == str(value))
    if (tenant := current_tenant() or wanted.tenant) is not None:
        query = query.where(d.tenant == tenant)
    if tenant:
        query = query.where(text("tenant <> ''"))  # lets PostgreSQL use the partial index
    if wanted.risk_min is not None:
        query = query.where(d.risk >= wanted.risk_min)
        if wanted.risk_min >= RISKY:
            query = query.where(text(f"risk >= {RISKY}"))  # a parameter would not let PostgreSQL use the partial index
    if wanted.event_time_from is not None:
        query = query.where(d.event_time >= wanted.event_time_from)
    if wanted.event_time_to is not None:
        query = query.where(d.event_time < wanted.event_time_to)
    if wanted.reason is not None:
        # The second condition lets PostgreSQL use the partial index.
        query = query.where(d.reasons.contains([wanted.reason]), text("reasons <> '{}'"))
    if cursor is not None:
        event_time, decision_id = decode_cursor(cursor, datetime, str)
        # The first condition, implied by the second, is the one that prunes partitions.
        query = query.where(
            d.event_time <= event_time, tuple_(d.event_time, d.decision_id) < tuple_(event_time, decision_id)
        )
    return query.order_by(d.event_time.desc(), d.decision_id.desc()).limit(rows)
