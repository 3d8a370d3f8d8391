"""What a person reads around a case: inbox sizes, the account's own decisions in order, its days. Reads only."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Row, text

from fraudguard.decisions.case_types import Case, Inbox, case_of
from fraudguard.decisions.connection import Open, current_tenant
from fraudguard.decisions.records import load_record
from fraudguard.domain import DecisionRecord
from fraudguard.tenants import scoped

MISSED_MAX = 100

_SIZES = text("""
SELECT inbox, count(*) FILTER (WHERE awake) AS awake, count(*) FILTER (WHERE awake AND free) AS waiting,
       count(*) FILTER (WHERE awake AND escalated_at IS NOT NULL) AS escalated,
       count(*) FILTER (WHERE NOT awake) AS snoozed
FROM (SELECT inbox, escalated_at, coalesce(snoozed_until <= :at, true) AS awake,
             assigned_to IS NULL AND coalesce(claimed_until <= :at, true) AS free
      FROM cases WHERE state <> 'closed') c
GROUP BY inbox ORDER BY inbox
""")

_MINE = text("""
SELECT inbox, count(*) FILTER (WHERE awake) AS mine, count(*) FILTER (WHERE NOT awake) AS mine_snoozed
FROM (SELECT inbox, coalesce(snoozed_until <= :at, true) AS awake FROM cases
      WHERE state <> 'closed' AND ((claimed_by = :person AND claimed_until > :at) OR assigned_to = :person)) c
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
       count(DISTINCT coalesce(b.event ->> 'counterparty_id', b.event ->> 'merchant_id')) AS payees,
       coalesce(sum(CAST(b.features ->> 'amount_base' AS double precision)), 0) AS total
FROM decisions d, json_to_record(d.body) AS b (event json, features json)
WHERE d.account_id = :account AND d.tenant = :tenant AND d.event_time >= :since AND d.event_type = 'transaction'
  AND b.event ->> 'direction' = 'debit'
GROUP BY 1
""")

# The newest alerts of each entity alone: what everybody pays is looked at no longer than what nobody does.
_SHARING = text("""
SELECT k.kind, k.entity_id, e.account_id, count(*) AS alerts, max(e.event_time) AS newest
FROM unnest(CAST(:kinds AS text[]), CAST(:entities AS text[])) AS k (kind, entity_id)
CROSS JOIN LATERAL (
    SELECT a.account_id, a.event_time FROM alert_entities a
    WHERE a.kind = k.kind AND a.entity_id = k.entity_id AND a.tenant = :tenant
    ORDER BY a.event_time DESC LIMIT :looked) e
WHERE e.account_id <> :account
GROUP BY k.kind, k.entity_id, e.account_id
ORDER BY newest DESC, e.account_id
LIMIT :most
""")

_ENTITIES_OF = text("""
SELECT DISTINCT e.kind, e.entity_id
FROM (SELECT decision_id FROM alerts WHERE case_id = :case ORDER BY sequence DESC LIMIT :looked) a
JOIN alert_entities e ON e.decision_id = a.decision_id
""")

_NEWEST_CASES = text("""
SELECT c.* FROM unnest(CAST(:accounts AS text[])) AS k (account_id)
CROSS JOIN LATERAL (
    SELECT * FROM cases WHERE account_id = k.account_id AND tenant = :tenant
    ORDER BY opened_at DESC, case_id LIMIT 1) c
""")

_LOADS = text("""
SELECT who, count(*) AS cases FROM (
    SELECT CASE WHEN claimed_until > :at THEN claimed_by ELSE assigned_to END AS who FROM cases
    WHERE state <> 'closed' AND (claimed_by IS NOT NULL OR assigned_to IS NOT NULL)) c
WHERE who IS NOT NULL GROUP BY who
""")

_REVIEWS = text("SELECT count(*) FROM cases WHERE review = 'waiting'")

SHARING_LOOKED: Final = 200  # alerts of one entity
SHARING_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Sharing:
    """Another account whose alerted payments had the entity too: how many of the looked at, the newest when."""

    kind: str
    entity_id: str
    account_id: str
    alerts: int
    newest: datetime


@dataclass(frozen=True, slots=True)
class Day:
    """Outgoing transactions of one local day; payees: different ones; total in the base currency."""

    day: date
    payments: int
    payees: int
    total: float


class CaseFile:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_
        self._counting = asyncio.Lock()
        self._next_count: dict[str, asyncio.Task[Sequence[Row[Any]]]] = {}

    async def inboxes(self, person: str, at: datetime) -> Sequence[Inbox]:
        """Every inbox that has an unclosed case, by name. person: whose cases count as mine."""
        sizes = await self._sizes(at)
        async with self._open() as connection:
            own = {row.inbox: row for row in await connection.execute(_MINE, {"person": person, "at": at})}
        return [
            Inbox(
                name=row.inbox,
                awake=row.awake,
                waiting=row.waiting,
                mine=own[row.inbox].mine if row.inbox in own else 0,
                escalated=row.escalated,
                snoozed=row.snoozed,
                mine_snoozed=own[row.inbox].mine_snoozed if row.inbox in own else 0,
            )
            for row in sizes
        ]

    async def _sizes(self, at: datetime) -> Sequence[Row[Any]]:
        """What is the same for everybody: one count at a time, for all of a tenant who asked before it began.

        A change in a large queue makes every open one ask at once, and a count goes over all unclosed cases.
        """
        tenant = current_tenant()
        next_one = self._next_count.get(tenant)
        if next_one is None:
            next_one = self._next_count[tenant] = asyncio.create_task(self._count(tenant, at))
        return await asyncio.shield(next_one)  # whoever leaves does not take it from the others

    async def _count(self, tenant: str, at: datetime) -> Sequence[Row[Any]]:
        async with self._counting:
            del self._next_count[tenant]  # who asks from here on may have changed what is being counted
            async with self._open() as connection:
                return (await connection.execute(_SIZES, {"at": at})).all()

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
            return [Day(row.day, row.payments, row.payees, row.total) for row in rows]

    async def sharing(self, account_id: str, tenant: str, keys: Collection[tuple[str, str]]) -> Sequence[Sharing]:
        """The tenant's other accounts with alerted payments of these (kind, id) entities, the newest first, SHARING_MAX
        at most.
        """
        if not keys:
            return []
        kinds, entities = zip(*sorted(set(keys)), strict=True)
        asked = {"kinds": list(kinds), "entities": list(entities), "account": account_id, "tenant": tenant}
        async with self._open() as connection:
            rows = await connection.execute(_SHARING, asked | {"looked": SHARING_LOOKED, "most": SHARING_MAX})
            return [Sharing(*row) for row in rows]

    async def entities_of(self, case_id: str) -> list[tuple[str, str]]:
        """(kind, id) of what the case's newest SHARING_LOOKED alerts have that other accounts may share."""
        async with self._open() as connection:
            rows = await connection.execute(_ENTITIES_OF, {"case": case_id, "looked": SHARING_LOOKED})
            return [(row.kind, row.entity_id) for row in rows]

    async def newest_cases(self, account_ids: Collection[str], tenant: str) -> dict[str, Case]:
        """By account, its case that was opened last; accounts without one are missing."""
        async with self._open() as connection:
            rows = await connection.execute(_NEWEST_CASES, {"accounts": sorted(set(account_ids)), "tenant": tenant})
            return {row.account_id: case_of(row) for row in rows}

    async def loads(self, at: datetime) -> dict[str, int]:
        """How many unclosed cases each person has, claimed or else assigned; those without one are missing."""
        async with self._open() as connection:
            return {row.who: row.cases for row in await connection.execute(_LOADS, {"at": at})}

    async def waiting_reviews(self) -> int:
        """Closed cases that a second person should look at."""
        async with self._open() as connection:
            return await connection.scalar(_REVIEWS) or 0
