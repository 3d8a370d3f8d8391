"""Brings a database to the newest revision under `migrations/`. Knows Alembic; the revisions know the schema."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from fraudguard.decisions.connection import open_engine, transaction
from fraudguard.errors import BadSettings

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def upgrade(url: str) -> None:
    """Apply what is missing, all of it or nothing; several processes may call it at once. Runs its own event loop.

    Raises StoreUnavailable, BadSettings.
    """
    if not (MIGRATIONS / "env.py").is_file():
        raise BadSettings(f"no migrations at {MIGRATIONS}", hint="run from a checkout, or install with pip -e")
    asyncio.run(_upgrade(url))


def is_current(revision: str | None) -> bool:
    """Whether a database at this revision has all that this build needs: its newest one, or one from a later build."""
    script = ScriptDirectory(str(MIGRATIONS))
    older = {known.revision for known in script.walk_revisions()} - {script.get_current_head()}
    return revision is not None and revision not in older


async def _upgrade(url: str) -> None:
    engine = open_engine(url, pool_size=1, statement_timeout_s=120)
    try:
        async with transaction(engine) as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('fraudguard migrations'))"))
            await connection.run_sync(_run)
    finally:
        await engine.dispose()


def _run(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
