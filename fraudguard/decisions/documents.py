"""Sources kept under their content version: what a decision names, replay finds. Opens no connection."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_SAVE = text(
    "INSERT INTO documents (kind, version, body) VALUES (:kind, :version, :body) ON CONFLICT (kind, version) DO NOTHING"
)


async def save(connection: AsyncConnection, kind: str, version: str, body: str) -> None:
    """Keep a source in the caller's transaction; the same version again changes nothing."""
    await connection.execute(_SAVE, {"kind": kind, "version": version, "body": body})
