"""Labels that wait to be published: written with the disposition they come from, sent by whoever serves the API.

At least once: a label keeps its event id, so sending it twice is harmless. Until its time has come it may be taken
back; whoever reads it then takes it. Knows no Kafka.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, CollectionAggregate, Text, any_, delete, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions.connection import transaction
from fraudguard.decisions.tables import OUTBOX
from fraudguard.domain import Label
from fraudguard.tenants import tenant_of


@dataclass(frozen=True, slots=True)
class Pending:
    """A label that may be published; `id` is its place in the outbox."""

    id: int
    label: Label


async def put(
    connection: AsyncConnection,
    labels: Collection[Label],
    at: datetime,
    *,
    case_id: str | None = None,
    not_before: datetime | None = None,
) -> None:
    """Queue labels in the caller's transaction. case_id: whose disposition they are; not_before: when they may go."""
    if labels:
        common = {"created_at": at, "case_id": case_id, "not_before": not_before}
        rows = [common | {"body": label.model_dump(mode="json"), "tenant": tenant_of(label)} for label in labels]
        await connection.execute(insert(OUTBOX), rows)


async def take_back(connection: AsyncConnection, case_id: str) -> bool:
    """Remove a case's labels in the caller's transaction; False, and nothing is removed, if one may have left."""
    mine = select(OUTBOX.c.id, OUTBOX.c.taken_at).where(OUTBOX.c.case_id == case_id).with_for_update()
    rows = (await connection.execute(mine)).all()
    if any(row.taken_at is not None for row in rows):
        return False
    await connection.execute(delete(OUTBOX).where(OUTBOX.c.id == _any([row.id for row in rows])))
    return True


def _any(ids: Collection[int]) -> CollectionAggregate[bool]:
    return any_(literal(list(ids), ARRAY(BigInteger)))


class Outbox:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def waiting(self, limit: int) -> list[Label]:
        """At most `limit` labels that are not known to be published, oldest first."""
        query = select(OUTBOX.c.body.cast(Text)).where(OUTBOX.c.published_at.is_(None)).order_by(OUTBOX.c.id)
        async with transaction(self._engine) as connection:
            bodies = await connection.scalars(query.limit(limit))
            return [Label.model_validate_json(body) for body in bodies]

    async def take(self, limit: int, at: datetime) -> list[Pending]:
        """At most `limit` labels whose time has come, oldest first; from now on none of them can be taken back."""
        due = or_(OUTBOX.c.not_before.is_(None), OUTBOX.c.not_before <= at)
        query = select(OUTBOX.c.id, OUTBOX.c.body.cast(Text).label("body"), OUTBOX.c.taken_at)
        query = query.where(OUTBOX.c.published_at.is_(None), due).order_by(OUTBOX.c.id).limit(limit)
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(query.with_for_update())).all()
            new = [row.id for row in rows if row.taken_at is None]
            if new:
                await connection.execute(update(OUTBOX).where(OUTBOX.c.id == _any(new)).values(taken_at=at))
        return [Pending(row.id, Label.model_validate_json(row.body)) for row in rows]

    async def mark_published(self, ids: Collection[int], at: datetime) -> None:
        """Say that Kafka has acknowledged these."""
        async with transaction(self._engine) as connection:
            await connection.execute(
                update(OUTBOX).where(OUTBOX.c.id == _any(ids), OUTBOX.c.published_at.is_(None)).values(published_at=at)
            )
