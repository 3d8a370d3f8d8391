"""The migrations build the schema that the code believes in, from nothing, once."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from support import ROOT

from fraudguard.decisions import audit, migrate
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.decisions.connection import open_engine, transaction
from fraudguard.decisions.records import dump_record
from fraudguard.decisions.repository import Changes, Repository, StoredState, connect
from fraudguard.decisions.tables import METADATA
from fraudguard.domain import DecisionRecord, EntityCount
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.errors import BadSettings, Conflict, StoreUnavailable

NEWEST = max(path.name[:4] for path in (ROOT / "migrations/versions").glob("0*.py"))
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
        assert (await connection.scalars(text("SELECT version_num FROM alembic_version"))).all() == [NEWEST]
    await engine.dispose()


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


DECISION_OF_0001 = """
INSERT INTO event_ids VALUES (:event_id, :account_id, :sequence, :event_time, :decision_id);
INSERT INTO decisions VALUES (:event_time, :decision_id, :event_id, :account_id, :sequence, :event_type, :outcome,
                              :risk, :typology, '{}', :degraded, :decided_at, CAST(:body AS json), NULL)
"""


async def _write_as_0001(connection: AsyncConnection, record: DecisionRecord) -> None:
    """What a worker of the first revision stored."""
    values = record.decision.model_dump() | {"event_time": record.event.event_time, "body": dump_record(record)}
    for statement in map(text, DECISION_OF_0001.split(";")):
        await connection.execute(statement, {name: values[name] for name in statement.compile().params})


async def test_a_filled_database_keeps_what_it_holds(empty_url: str, make: Callable[..., DecisionRecord]) -> None:
    """A database of the first revision with rows in it gets the newest one, keeps them, and counts by IP address."""
    engine, record = open_engine(empty_url), make()
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade_to, "0001")
        await connection.execute(text("SELECT decisions_ensure_month('2026-11-01')"))
        await connection.execute(text("INSERT INTO entity_counts VALUES ('device', 'd-1', 20000, 3, 1)"))
        await connection.execute(text("INSERT INTO account_state VALUES ('a-1', 1, 's')"))
        await _write_as_0001(connection, record)
    with pytest.raises(DBAPIError, match="entity_counts_kind_check"):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO entity_counts VALUES ('ip', '203.0.113.5', 20000, 3, 1)"))
    await asyncio.to_thread(migrate.upgrade, empty_url)

    repository, later = Repository(engine), make("a-1", sequence=99)
    assert await repository.earlier([record.event.event_id]) == {record.event.event_id: record}
    counted = EntityCount("ip", "203.0.113.5", 20_000, 3, 1)
    await repository.commit(Changes(records=[later], states={"a-1": StoredState(1, b"t")}, counts=[counted]))
    keys = {("ip", "203.0.113.5"), ("device", "d-1")}
    assert {(c.kind, c.transactions) for c in await repository.entity_counts(keys, 0)} == {("ip", 3), ("device", 3)}
    assert await repository.schema_revision() == NEWEST
    found = [past.event async for past in repository.history(record.event.event_time, record.decision.decided_at)]
    assert found == [record.event, later.event]
    with pytest.raises(DBAPIError, match="entity_counts_kind_check"):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO entity_counts VALUES ('iban', 'x', 20000, 3, 1)"))
    await engine.dispose()


CASES_OF_0003 = """
INSERT INTO cases (case_id, account_id, state, opened_at, updated_at, expected_loss, top_risk, typology, outcome,
                   alerts, disposition, reason, closed_at, closed_by)
VALUES ('c-1', 'a-1', 'closed', '2026-11-01Z', '2026-11-01Z', 7, 0.9, 'scam', 'block', 1,
        'confirmed_fraud', 'told', '2026-11-02Z', 'ana'),
       ('c-2', 'a-1', 'open', '2026-11-03Z', '2026-11-03Z', 100, NULL, NULL, 'review', 1, NULL, NULL, NULL, NULL),
       ('c-3', 'a-2', 'open', '2026-11-03Z', '2026-11-03Z', 100, 0.9, 'mule', 'block', 1, NULL, NULL, NULL, NULL);
INSERT INTO dispositions VALUES ('c-1', 'confirmed_fraud', 'told', 'ana', '2026-11-02Z');
INSERT INTO outbox (body, created_at) VALUES
    ('{"type": "label", "version": 1, "event_id": "l-1", "account_id": "a-1", "event_time": "2026-11-02T00:00:00Z",
       "target_event_id": "e-1", "source": "analyst", "verdict": "fraud"}', '2026-11-02Z');
INSERT INTO audit (at, actor, action, subject, detail) VALUES
    ('2026-11-01Z', 'cli:root', 'key.create', 'k-1', '{"owner": "风控 \\u007f\\n\\"x\\"", "role": "admin"}'),
    ('2026-11-02 01:02:03.000004Z', 'ana', 'case.dispose', 'c-1', '{"labels": "1", "before": {"b": null, "a": "x"}}')
"""


async def test_cases_and_the_trail_of_an_older_revision_go_on(empty_url: str) -> None:
    """Cases get due times, versions and inboxes; labels that waited still leave; the trail is one chain."""
    engine = open_engine(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade_to, "0003")
        for statement in CASES_OF_0003.split(";\n"):
            await connection.exec_driver_sql(statement)
    await asyncio.to_thread(migrate.upgrade, empty_url)

    repository = Repository(engine)
    queue = (await repository.cases.list_cases(CaseFilter(state="open"))).items
    assert [(case.case_id, case.inbox, case.version) for case in queue] == [("c-3", "mule", 1), ("c-2", "unscored", 1)]
    assert [case.due_at - case.opened_at for case in queue] == [timedelta(minutes=30), timedelta(hours=4)]
    closed, _ = await repository.cases.get_case("c-1")
    now = datetime(2026, 11, 22, tzinfo=UTC)
    with pytest.raises(Conflict, match="c-2"):
        await repository.cases.reopen("c-1", closed.version, "ana", now)
    assert [pending.label.event_id for pending in await repository.outbox.take(10, now)] == ["l-1"]
    await repository.cases.claim("c-3", 1, "bo", now)
    found = await audit.verify(engine)
    assert (found.rows, found.broken) == (3, None)
    await engine.dispose()


async def test_a_worker_of_the_version_before_waits_to_be_replaced(engine: AsyncEngine) -> None:
    """What it asks the database first of all in every batch is answered as if the database were down, for good."""
    with pytest.raises(StoreUnavailable, match="start one of the new version"):
        async with transaction(engine) as connection:
            await connection.execute(text("SELECT rules_activation()"))


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
