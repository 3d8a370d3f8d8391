"""Labels that wait to be published: written with the disposition they come from, sent by whoever serves the API.

At least once: a label keeps its event id, so sending it twice is harmless. Knows no Kafka.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Text, any_, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions.connection import transaction
from fraudguard.decisions.tables import OUTBOX
from fraudguard.domain import Label


@dataclass(frozen=True, slots=True)
class Pending:
    """A label not known to be published; `id` is its place in the outbox."""

    id: int
    label: Label


async def put(connection: AsyncConnection, labels: Collection[Label], at: datetime) -> None:
    """Queue labels in the caller's transaction."""
    if labels:
        rows = [{"body": label.model_dump(mode="json"), "created_at": at} for label in labels]
        await connection.execute(insert(OUTBOX), rows)


class Outbox:
    """Both methods raise StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def pending(self, limit: int) -> list[Pending]:
        """At most `limit` labels, oldest first."""
        query = select(OUTBOX.c.id, OUTBOX.c.body.cast(Text).label("body"))
        query = query.where(OUTBOX.c.published_at.is_(None)).order_by(OUTBOX.c.id).limit(limit)
        async with transaction(self._engine) as connection:
            return [Pending(row.id, Label.model_validate_json(row.body)) for row in await connection.execute(query)]

    async def mark_published(self, ids: Collection[int], at: datetime) -> None:
        """Say that Kafka has acknowledged these."""
        chosen = any_(literal(list(ids), ARRAY(BigInteger)))
        async with transaction(self._engine) as connection:
            await connection.execute(
                update(OUTBOX).where(OUTBOX.c.id == chosen, OUTBOX.c.published_at.is_(None)).values(published_at=at)
            )
