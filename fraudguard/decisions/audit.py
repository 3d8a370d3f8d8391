"""The audit trail: who did what, append-only. Written in the same transaction as the deed."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions.tables import AUDIT


async def append(
    connection: AsyncConnection, at: datetime, actor: str, action: str, subject: str, detail: Mapping[str, str]
) -> None:
    """action: a word such as `case.dispose`; subject: the id it was done to; detail: never conversation text."""
    await connection.execute(
        insert(AUDIT).values(at=at, actor=actor, action=action, subject=subject, detail=dict(detail))
    )
