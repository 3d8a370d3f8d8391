"""Requests that may be sent twice: the answer that the first one got, by caller and idempotency key.

Knows bytes and times; which requests take part, and what an answer looks like, is the API's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial

from sqlalchemy import delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.connection import in_parts, transaction
from fraudguard.decisions.tables import REPEATS
from fraudguard.tenants import HOUSE

KEPT = timedelta(hours=24)
UNANSWERED = timedelta(minutes=2)  # after that its process is taken for dead; no request takes longer

_CLAIM = text("""
INSERT INTO repeats (caller, key, fingerprint, begun_at, tenant)
VALUES (:caller, :key, :fingerprint, :at, :tenant)
ON CONFLICT (caller, key) DO UPDATE
SET fingerprint = excluded.fingerprint, begun_at = excluded.begun_at, status = NULL, headers = NULL, body = NULL
WHERE repeats.begun_at <= :forgotten OR repeats.status IS NULL AND repeats.begun_at <= :dead
RETURNING true
""")

_PRUNE = text("""
DELETE FROM repeats WHERE ctid = ANY (ARRAY(SELECT ctid FROM repeats WHERE begun_at <= :before LIMIT :rows))
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to carry out a request. at: when it was given, which tells it from a later one."""

    caller: str
    key: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered with."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Refusal(Enum):
    """Why a request is neither carried out nor answered as before."""

    ANOTHER_REQUEST = auto()  # the key was used for something else
    IN_PROGRESS = auto()  # the first one is not answered yet


class Repeats:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def claim(
        self, caller: str, key: str, fingerprint: bytes, at: datetime, tenant: str = HOUSE
    ) -> Claim | Answer | Refusal:
        """Of many requests with the same key at once exactly one gets the claim."""
        async with transaction(self._engine, HOUSE) as connection:
            times = {"at": at, "forgotten": at - KEPT, "dead": at - UNANSWERED}
            claimed = await connection.scalar(
                _CLAIM, {"caller": caller, "key": key, "fingerprint": fingerprint, "tenant": tenant, **times}
            )
            if claimed:
                return Claim(caller, key, at)
            found = await connection.execute(select(REPEATS).where(REPEATS.c.caller == caller, REPEATS.c.key == key))
            row = found.one_or_none()
        if row is None or (row.status is None and row.fingerprint == fingerprint):
            return Refusal.IN_PROGRESS  # none: it has just failed, and its sender may try again
        if row.fingerprint != fingerprint:
            return Refusal.ANOTHER_REQUEST
        return Answer(row.status, row.headers, row.body)

    async def answer(self, claim: Claim, answer: Answer) -> bool:
        """Keep what the request was answered with; False where somebody else was given the claim meanwhile."""
        async with transaction(self._engine, HOUSE) as connection:
            kept = await connection.execute(
                update(REPEATS)
                .where(REPEATS.c.caller == claim.caller, REPEATS.c.key == claim.key, REPEATS.c.begun_at == claim.at)
                .values(status=answer.status, headers=dict(answer.headers), body=answer.body)
            )
            return bool(kept.rowcount)

    async def release(self, claim: Claim) -> None:
        """The request did nothing: its key may be used again."""
        async with transaction(self._engine, HOUSE) as connection:
            await connection.execute(
                delete(REPEATS).where(
                    REPEATS.c.caller == claim.caller, REPEATS.c.key == claim.key, REPEATS.c.begun_at == claim.at
                )
            )

    async def prune(self, at: datetime) -> int:
        """Forget what is older than KEPT, a bounded part a transaction; how many."""
        return await in_parts(partial(transaction, self._engine, HOUSE), _PRUNE, {"before": at - KEPT})
