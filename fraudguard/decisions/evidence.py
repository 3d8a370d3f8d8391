"""Evidence as stored: what moved a decision's risk, made once; and wishes for it, which a worker with time serves.

Knows rows and the channel that wakes workers; makes no evidence.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import select, text

from fraudguard.decisions.connection import Open
from fraudguard.decisions.tables import EVIDENCE, EVIDENCE_WISHES
from fraudguard.domain import Contribution, Outcome

CHANNEL: Final = "fraudguard_evidence"
WISHES_MAX: Final = 1_000  # that wait; more than a worker serves while anybody still looks
CLAIM: Final = timedelta(seconds=30)  # after it, a wish whose worker is gone is another's
RETRY: Final = timedelta(seconds=60)  # before a wish that failed may be made again
WISH_KEPT: Final = timedelta(days=1)

Wish = Literal["waits", "failed", "too_many"]

_PUT = text("""
INSERT INTO evidence (decision_id, model, risk, body, made_at, tenant)
VALUES (:decision, :model, :risk, CAST(:body AS json), :at,
        coalesce((SELECT tenant FROM event_ids WHERE decision_id = :decision), '')) ON CONFLICT DO NOTHING
""")
_DONE = text("DELETE FROM evidence_wishes WHERE decision_id = :decision")

_WISH = text("""
INSERT INTO evidence_wishes AS w (decision_id, asked_at, tenant)
SELECT :decision, :at, coalesce((SELECT tenant FROM event_ids WHERE decision_id = :decision), '')
WHERE (SELECT count(*) FROM (SELECT 1 FROM evidence_wishes WHERE failed IS NULL LIMIT :most) AS waiting) < :most
ON CONFLICT (decision_id) DO UPDATE SET asked_at = excluded.asked_at, failed = NULL, failed_at = NULL,
                                        claimed_until = NULL
WHERE w.failed_at < :retried_before
""")
_NOTIFY = text("SELECT pg_notify(:channel, '')")

_CLAIM = text("""
UPDATE evidence_wishes SET claimed_until = :until
WHERE decision_id = (
    SELECT decision_id FROM evidence_wishes
    WHERE failed IS NULL AND (claimed_until IS NULL OR claimed_until < :now)
    ORDER BY asked_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING decision_id
""")
_FAIL = text("UPDATE evidence_wishes SET failed = :reason, failed_at = :at WHERE decision_id = :decision")

_PRUNE = text("DELETE FROM evidence_wishes WHERE asked_at < :before")

_RISKS = text("""
SELECT d.sequence, d.decision_id, d.event_type, d.event_time, d.outcome, d.risk, d.body ->> 'line' AS line
FROM event_ids e JOIN decisions d ON d.event_time = e.event_time AND d.decision_id = e.decision_id
WHERE e.account_id = :account AND e.tenant = :tenant AND e.sequence BETWEEN :first AND :last
ORDER BY e.sequence
""")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What moved a decision's risk. model, risk: what gave the risk of everything, which the effects are of."""

    decision_id: str
    model: str
    risk: float
    contributions: tuple[Contribution, ...]
    made_at: datetime


@dataclass(frozen=True, slots=True)
class LineRisk:
    """A line of an account's timeline, masked, with what was decided at it. risk: None where the model gave none."""

    sequence: int
    decision_id: str
    event_type: Literal["transaction", "message"]
    event_time: datetime
    outcome: Outcome
    risk: float | None
    line: str


class EvidenceBook:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, open_: Open) -> None:
        self._open = open_

    async def of(self, decision_id: str) -> Evidence | None:
        """What was made of this decision."""
        async with self._open() as connection:
            row = (
                await connection.execute(select(EVIDENCE).where(EVIDENCE.c.decision_id == decision_id))
            ).one_or_none()
        if row is None:
            return None
        made = tuple(Contribution(*parts) for parts in row.body)
        return Evidence(row.decision_id, row.model, row.risk, made, row.made_at)

    async def put(self, evidence: Evidence) -> None:
        """Store it, unless the decision has some; nobody waits for it any more."""
        body = json.dumps([(c.kind, c.name, c.effect) for c in evidence.contributions])
        values = {
            "decision": evidence.decision_id,
            "model": evidence.model,
            "risk": evidence.risk,
            "body": body,
            "at": evidence.made_at,
        }
        async with self._open() as connection:
            await connection.execute(_PUT, values)
            await connection.execute(_DONE, {"decision": evidence.decision_id})

    async def wish(self, decision_id: str, at: datetime) -> Wish:
        """Ask workers for a decision's evidence; what became of that.

        One that failed is asked for again after RETRY.
        """
        values = {"decision": decision_id, "at": at, "most": WISHES_MAX, "retried_before": at - RETRY}
        async with self._open() as connection:
            asked = await connection.execute(_WISH, values)
            if asked.rowcount:
                await connection.execute(_NOTIFY, {"channel": CHANNEL})
                return "waits"
            there = select(EVIDENCE_WISHES.c.failed).where(EVIDENCE_WISHES.c.decision_id == decision_id)
            row = (await connection.execute(there)).one_or_none()
        if row is None:
            return "too_many"
        return "failed" if row.failed is not None else "waits"

    async def claim(self, now: datetime) -> str | None:
        """The decision of the oldest wish that no other worker serves, from now on this one's for CLAIM."""
        async with self._open() as connection:
            found: str | None = await connection.scalar(_CLAIM, {"now": now, "until": now + CLAIM})
            return found

    async def fail(self, decision_id: str, reason: str, at: datetime) -> None:
        """A wish that could not be served, and why."""
        async with self._open() as connection:
            await connection.execute(_FAIL, {"decision": decision_id, "reason": reason, "at": at})

    async def forget(self, decision_id: str) -> None:
        """A wish that needs no serving."""
        async with self._open() as connection:
            await connection.execute(_DONE, {"decision": decision_id})

    async def prune(self, now: datetime) -> None:
        """Forget wishes of WISH_KEPT ago, served by nobody: whoever still looks wishes again."""
        async with self._open() as connection:
            await connection.execute(_PRUNE, {"before": now - WISH_KEPT})

    async def risks(self, account_id: str, tenant: str, first: int, last: int) -> tuple[LineRisk, ...]:
        """The account's lines with these sequence numbers, both ends in, and the risk after each."""
        async with self._open() as connection:
            wanted = {"account": account_id, "tenant": tenant, "first": first, "last": last}
            rows = await connection.execute(_RISKS, wanted)
            return tuple(
                LineRisk(r.sequence, r.decision_id, r.event_type, r.event_time, Outcome(r.outcome), r.risk, r.line)
                for r in rows
            )
