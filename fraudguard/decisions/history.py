"""What was decided before, streamed: to count new windows over it and to judge it anew in a backtest.

Bounded memory: PostgreSQL holds a cursor and sends ROWS_A_FETCH rows at a time. Knows rows, opens no connection.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.domain import Screenable
from fraudguard.tenants import scoped, unscoped

ROWS_A_FETCH = 1_000

_EVENT: TypeAdapter[Screenable] = TypeAdapter(Annotated[Screenable, Field(discriminator="type")])

# PostgreSQL takes the few wanted parts out of the body: half the CPU time here that the whole body takes.
_HISTORY = """
SELECT d.decided_at, d.tenant, b.decision ->> 'rules_version' AS rules_version, b.late, CAST(b.event AS text) AS event
FROM decisions d, json_to_record(d.body) AS b (event json, late boolean, decision json)
WHERE d.event_time >= :since
"""
_SINCE = text(_HISTORY)
_SINCE_DECIDED = text(_HISTORY + " AND d.decided_at >= :decided_since")

_OF_ACCOUNTS = text("""
SELECT d.account_id, d.tenant, b.late, CAST(b.event AS text) AS event
FROM decisions d JOIN unnest(CAST(:accounts AS text[]), CAST(:tenants AS text[])) AS k (account_id, tenant)
         ON k.account_id = d.account_id AND k.tenant = d.tenant,
     json_to_record(d.body) AS b (event json, late boolean)
WHERE d.event_time >= :since
ORDER BY d.account_id, d.tenant, d.sequence
""")

# The index by account and time gives the accounts in order; within one, PostgreSQL sorts a few rows at a time. Left to
# itself it sorts everything before the first row, which a statement's time does not allow for a million decisions.
NO_SORT_OF_ALL = text("SET LOCAL enable_sort = off")
_DECISIONS = text("""
SELECT account_id, sequence, event_time, decision_id, CAST(body AS text) AS body
FROM decisions WHERE event_time >= :first AND event_time < :before
ORDER BY account_id, tenant, sequence
""")


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An event as it was decided; late: beyond the lateness bound then. tenant: whose it is stored as."""

    event: Screenable
    decided_at: datetime
    rules_version: str
    late: bool
    tenant: str


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision's row; body: the text that records.load_record reads."""

    account_id: str
    sequence: int
    event_time: datetime
    decision_id: str
    body: str


async def past_events(
    connection: AsyncConnection, since: datetime, decided_since: datetime | None
) -> AsyncIterator[PastEvent]:
    """Events of `since` or later, month by month, in no order within one."""
    query, times = (_SINCE, {"since": since})
    if decided_since is not None:
        query, times = (_SINCE_DECIDED, {"since": since, "decided_since": decided_since})
    async for row in stream(connection, query, times):
        yield PastEvent(_EVENT.validate_json(row.event), row.decided_at, row.rules_version, row.late, row.tenant)


async def past_of_accounts(
    connection: AsyncConnection, accounts: Collection[str], since: datetime
) -> dict[str, list[tuple[Screenable, bool]]]:
    """(event, late) by account's key, in sequence; accounts without any are missing."""
    found: dict[str, list[tuple[Screenable, bool]]] = {}
    keys = [unscoped(account) for account in accounts]
    values = {"accounts": [id for _, id in keys], "tenants": [tenant for tenant, _ in keys], "since": since}
    for row in await connection.execute(_OF_ACCOUNTS, values):
        key = scoped(row.tenant, row.account_id)
        found.setdefault(key, []).append((_EVENT.validate_json(row.event), row.late))
    return found


async def decisions_between(
    connection: AsyncConnection, first: datetime, before: datetime
) -> AsyncIterator[StoredDecision]:
    """Rows with an event time from `first` to before `before`, by account of a tenant, in sequence."""
    await connection.execute(NO_SORT_OF_ALL)
    async for row in stream(connection, _DECISIONS, {"first": first, "before": before}):
        account_id, sequence, event_time, decision_id, body = tuple[Any, ...](row)  # names cost three times as much
        yield StoredDecision(account_id, sequence, event_time, decision_id, body)


async def stream(
    connection: AsyncConnection, query: TextClause, times: Mapping[str, datetime]
) -> AsyncIterator[Row[Any]]:
    """The rows of a query, ROWS_A_FETCH at a time."""
    async with connection.stream(query, times, execution_options={"yield_per": ROWS_A_FETCH}) as rows:
        async for part in rows.partitions(ROWS_A_FETCH):
            for row in part:
                yield row
