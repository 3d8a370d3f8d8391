"""Lists of decisions for people: filters and keyset pages, newest event first."""

from dataclasses import dataclass
from datetime import datetime
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


async def list_decisions(
    connection: AsyncConnection, wanted: DecisionFilter, limit: int, cursor: str | None
) -> Page[DecisionRecord]:
    """One page, without sealed texts. Raises BadInput for a bad limit or cursor."""
    await connection.execute(PLAN_BY_VALUE)
    rows = (await connection.execute(listing(wanted, check_limit(limit) + 1, cursor))).all()
    shown = rows[:limit]
    more = encode_cursor(shown[-1].event_time, shown[-1].decision_id) if len(rows) > limit else None
    return Page(tuple(load_record(row.body, None) for row in shown), more)


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
