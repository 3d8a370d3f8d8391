"""The migrations build the schema that the code believes in, from nothing, once."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import migrate
from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.repository import connect
from fraudguard.decisions.tables import METADATA
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.errors import BadSettings

_numbers = itertools.count(1)


@pytest.fixture
async def empty_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a database without a schema."""
    name = f"empty_{next(_numbers)}"
    server = await asyncpg.connect(postgres.url)
    await server.execute(f"CREATE DATABASE {name}")
    yield postgres.url_of(name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


async def test_processes_may_migrate_at_once_and_again(empty_url: str) -> None:
    """Several upgrades of an empty database at once all succeed, and a later one changes nothing."""
    await asyncio.gather(*(asyncio.to_thread(migrate.upgrade, empty_url) for _ in range(4)))
    await asyncio.to_thread(migrate.upgrade, empty_url)
    engine = open_engine(empty_url)
    async with engine.connect() as connection:
        assert (await connection.scalars(text("SELECT version_num FROM alembic_version"))).all() == ["0002"]
    await engine.dispose()


async def test_code_and_schema_agree(engine: AsyncEngine) -> None:
    """Every table and column that queries name exists, with its type and nullability, and no other does."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                # Keys, indexes and partitions are the migrations' own business.
                "include_object": lambda item, name, kind, reflected, other: (
                    kind in ("table", "column") and name != "decisions_other"
                ),
            },
        )
        return list(compare_metadata(context, METADATA))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_an_unmigrated_database_says_what_to_do(empty_url: str) -> None:
    """Using a database without a schema names the command that makes one."""
    async with connect(empty_url) as repository:
        with pytest.raises(BadSettings, match="fraudguard migrate"):
            await repository.record("x")


def test_a_missing_folder_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """An installation without the migrations folder is refused with a fix, before anything is opened."""
    monkeypatch.setattr(migrate, "MIGRATIONS", tmp_path)
    with pytest.raises(BadSettings, match="checkout"):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/none")
