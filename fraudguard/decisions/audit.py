"""The audit trail: who did what, append-only. Written in the same transaction as the deed."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions.tables import AUDIT

# Of a deed: JSON values by name.
Detail = Mapping[str, str | int | Mapping[str, str | None] | None]

_MANY = text("""
INSERT INTO audit (at, actor, action, subject, detail)
SELECT at, :actor, :action, subject, CAST(detail AS jsonb)
FROM unnest(CAST(:times AS timestamptz[]), CAST(:subjects AS text[]), CAST(:details AS text[]))
     AS d (at, subject, detail)
""")


async def append(
    connection: AsyncConnection, at: datetime, actor: str, action: str, subject: str, detail: Detail
) -> None:
    """action: a word such as `case.dispose`; subject: the id it was done to; detail: never conversation text."""
    await connection.execute(
        insert(AUDIT).values(at=at, actor=actor, action=action, subject=subject, detail=dict(detail))
    )


async def append_many(
    connection: AsyncConnection, actor: str, action: str, deeds: Sequence[tuple[datetime, str, Detail]]
) -> None:
    """The same action by the same person to many subjects, one row each as (at, subject, detail)."""
    await connection.execute(
        _MANY,
        {
            "actor": actor,
            "action": action,
            "times": [at for at, _, _ in deeds],
            "subjects": [subject for _, subject, _ in deeds],
            "details": [orjson.dumps(dict(detail)).decode() for _, _, detail in deeds],
        },
    )
