"""What a person reads around a case: inbox sizes, the account's own decisions in order, its days. Reads only."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text

from fraudguard.decisions.connection import Open, current_tenant
from fraudguard.decisions.records import load_record
from fraudguard.domain import DecisionRecord
from fraudguard.tenants import scoped

MISSED_MAX = 100

_SIZES = text("""
SELECT inbox, count(*) FILTER (WHERE NOT sleeps) AS awake, count(*) FILTER (WHERE sleeps) AS asleep
FROM (SELECT inbox, coalesce(snoozed_until > :at, false) AS sleeps FROM cases WHERE state <> 'closed') c
GROUP BY inbox
""")

_MINE = text("""
SELECT inbox, count(*) AS mine FROM cases
WHERE state <> 'closed' AND ((claimed_by = :person AND claimed_until > :at) OR assigned_to = :person)
GROUP BY inbox
""")

_NEWEST = text("SELECT max(sequence) FROM event_ids WHERE account_id = :account AND tenant = :tenant")

_LINES = text("""
SELECT CAST(d.body AS text) AS body
FROM event_ids e JOIN decisions d ON d.event_time = e.event_time AND d.decision_id = e.decision_id
WHERE e.account_id = :account AND e.tenant = :tenant AND e.sequence BETWEEN :first AND :last
ORDER BY e.sequence
""")

_MISSED = text("""
SELECT DISTINCT e.event_id, e.event_time
FROM labels l JOIN event_ids e ON e.event_id = l.target_event_id AND e.tenant = l.tenant
WHERE l.account_id = ANY (CAST(:accounts AS text[])) AND l.tenant = :tenant AND l.verdict = 'fraud'
  AND e.account_id = ANY (CAST(:accounts AS text[]))
  AND NOT EXISTS (SELECT FROM alerts a WHERE a.decision_id = e.decision_id)
ORDER BY e.event_time DESC, e.event_id LIMIT :limit
""")

_DAYS = text("""
SELECT CAST(timezone(:zone, d.event_time) AS date) AS day, count(*) AS payments,
       coalesce(sum(CAST(b.features ->> 'amount_base' AS double precision)), 0) AS total
FROM decisions d, json_to_record(d.body) AS b (event json, features json)
WHERE d.account_id = :account AND d.tenant = :tenant AND d.event_time >= :since AND d.event_type = 'transaction'
  AND b.event ->> 'direction' = 'debit'
GROUP BY 1
""")


@dataclass(frozen=True, slots=True)
class InboxSize:
    """Unclosed cases of one inbox: awake, asleep (snoozed), and those of one person."""

    inbox: str
    awake: int
    asleep: int
    mine: int


@dataclass(frozen=True, slots=True)
class Day:
    """Outgoing transactions of one local day; total in the base currency."""

    day: date
    payments: int
    total: float


class CaseFile:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_
        self._counting = asyncio.Lock()
        self._next_count: dict[str, asyncio.Task[list[tuple[str, int, int]]]] = {}

    async def inboxes(self, person: str, at: datetime) -> Sequence[InboxSize]:
        """Every inbox that has an unclosed case, in no order. person: whose cases count as `mine`."""
        sizes = await self._sizes(at)
        async with self._open() as connection:
            own = {row.inbox: row.mine for row in await connection.execute(_MINE, {"person": person, "at": at})}
        return [InboxSize(inbox, awake, asleep, own.get(inbox, 0)) for inbox, awake, asleep in sizes]

    async def _sizes(self, at: datetime) -> list[tuple[str, int, int]]:
        """(inbox, awake, asleep): one count at a time, for everybody of a tenant who asked before it began.

        A change in a large queue makes every open one ask at once, and a count goes over all unclosed cases.
        """
        tenant = current_tenant()
        next_one = self._next_count.get(tenant)
        if next_one is None:
            next_one = self._next_count[tenant] = asyncio.create_task(self._count(tenant, at))
        return await asyncio.shield(next_one)  # whoever leaves does not take it from the others

    async def _count(self, tenant: str, at: datetime) -> list[tuple[str, int, int]]:
        async with self._counting:
            del self._next_count[tenant]  # who asks from here on may have changed what is being counted
            async with self._open() as connection:
                return [(row.inbox, row.awake, row.asleep) for row in await connection.execute(_SIZES, {"at": at})]

    async def newest_sequence(self, account_id: str, tenant: str) -> int:
        """Of the account's decisions; 0 where it has none."""
        async with self._open() as connection:
            return await connection.scalar(_NEWEST, {"account": account_id, "tenant": tenant}) or 0

    async def lines(self, account_id: str, tenant: str, first: int, last: int) -> Sequence[DecisionRecord]:
        """The account's decisions from sequence `first` to `last`, both included, without sealed texts."""
        async with self._open() as connection:
            wanted = {"account": account_id, "tenant": tenant, "first": first, "last": last}
            rows = await connection.execute(_LINES, wanted)
            return [load_record(row.body, None) for row in rows]

    async def missed(self, accounts: Collection[str], tenant: str) -> Sequence[str]:
        """Keys (tenants.event_key) of these accounts' events that never alerted and that somebody called fraud, the
        newest MISSED_MAX first.
        """
        async with self._open() as connection:
            wanted = {"accounts": list(accounts), "tenant": tenant, "limit": MISSED_MAX}
            rows = await connection.execute(_MISSED, wanted)
            return [scoped(tenant, row.event_id) for row in rows]

    async def days(self, account_id: str, tenant: str, since: datetime, zone: str) -> Sequence[Day]:
        """The account's local days with an outgoing transaction, in no order."""
        async with self._open() as connection:
            wanted = {"account": account_id, "tenant": tenant, "since": since, "zone": zone}
            rows = await connection.execute(_DAYS, wanted)
            return [Day(row.day, row.payments, row.total) for row in rows]
