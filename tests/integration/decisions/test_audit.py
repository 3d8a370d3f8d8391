"""The audit trail is a chain: what was changed, removed or slipped in is found, and where."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.connection import transaction
from fraudguard.decisions.repository import Repository
from fraudguard.domain import Role

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


@pytest.fixture
async def vandal(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody with all rights on the database, whom no trigger stops."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET session_replication_role = replica")
    yield connection
    await connection.close()


async def write(engine: AsyncEngine, count: int, actor: str = "ana") -> None:
    """Audited deeds, each in its own transaction, with awkward words."""
    for n in range(count):
        async with transaction(engine) as connection:
            detail: audit.Detail = {
                "why": 'said "急用钱"\n\t\x7f 😀',
                "n": n,
                "before": {"b": None, "a": "x"},
                "": None,
            }
            await audit.append(connection, NOW + timedelta(microseconds=n), actor, "test.do", f"s-{n}", detail)


async def test_an_untouched_trail_is_whole(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, with rows of every kind, and longer than one fetch; its end can be looked for later."""
    monkeypatch.setattr(audit, "ROWS_A_FETCH", 7)
    assert await audit.verify(engine) == audit.Verified(0, audit.START, None)
    await write(engine, 10)
    first = await audit.verify(engine)
    assert (first.rows, first.broken) == (10, None)
    async with transaction(engine) as connection:
        await audit.append_many(connection, "bo", "test.many", [(NOW, f"m-{n}", {"n": n}) for n in range(20)])
        await audit.append_many(connection, "bo", "test.none", [])
    again = await audit.verify(engine, first.hash)
    assert (again.rows, again.broken) == (30, None)


async def test_deeds_at_once_make_one_chain(engine: AsyncEngine) -> None:
    """Writers wait for each other; a deed that fails leaves no gap."""

    async def fail() -> None:
        with suppress(ZeroDivisionError):
            async with transaction(engine) as connection:
                await audit.append(connection, NOW, "bo", "test.fail", "x", {})
                raise ZeroDivisionError

    await asyncio.gather(*(write(engine, 10, f"p-{n}") for n in range(4)), *(fail() for _ in range(5)))
    assert (await audit.verify(engine)).rows == 40
    assert (await audit.verify(engine)).broken is None


async def test_every_people_s_deed_is_in_the_chain(repository: Repository, engine: AsyncEngine) -> None:
    """Keys, too."""
    await repository.keys.create(Role.ADMIN, "root", "cli:root", NOW)
    assert (await audit.verify(engine)).rows == 1


@pytest.mark.parametrize(
    ("harm", "row", "what"),
    [
        ("UPDATE audit SET actor = 'bo' WHERE id = 4", 4, "not what was written"),
        ("UPDATE audit SET at = at + interval '1 microsecond' WHERE id = 1", 1, "not what was written"),
        ("UPDATE audit SET action = 'test.did' WHERE id = 6", 6, "not what was written"),
        ("UPDATE audit SET subject = 's-9' WHERE id = 2", 2, "not what was written"),
        ("UPDATE audit SET detail = jsonb_set(detail, '{n}', '7') WHERE id = 5", 5, "not what was written"),
        ("UPDATE audit SET detail = detail - '' WHERE id = 3", 3, "not what was written"),
        ("DELETE FROM audit WHERE id = 1", 2, "does not follow"),
        ("DELETE FROM audit WHERE id = 3", 4, "does not follow"),
        ("DELETE FROM audit WHERE id >= 5", None, "6 rows were written, 4 are there"),
        ("DELETE FROM audit", None, "6 rows were written, 0 are there"),
    ],
)
async def test_tampering_is_found(
    engine: AsyncEngine, vandal: asyncpg.Connection, harm: str, row: int | None, what: str
) -> None:
    """Any column of any row, a row that is gone, the end that is gone: the first row that does not fit is named."""
    await write(engine, 6)
    await vandal.execute(harm)
    found = (await audit.verify(engine)).broken
    assert found is not None
    assert found.id == row
    assert what in found.what


async def test_a_row_slipped_in_or_rewritten_with_its_hash_breaks_the_next(
    engine: AsyncEngine, vandal: asyncpg.Connection
) -> None:
    """Who knows how the hash is made must write everything after it anew; then a hash kept elsewhere tells."""
    await write(engine, 6)
    whole = await audit.verify(engine)
    rows = await vandal.fetch("SELECT * FROM audit ORDER BY id")
    last = rows[2]["prev_hash"]
    for row in rows[2:]:
        deed = audit.Deed(row["at"], "bo", row["action"], row["subject"], json.loads(row["detail"]))
        digest = audit.digest(deed, last)
        change = "UPDATE audit SET actor = 'bo', prev_hash = $1, hash = $2 WHERE id = $3"
        await vandal.execute(change, f"-{row['id']}", f"-{row['id']}", row["id"])  # prev_hash is unique
        await vandal.execute(change, last, digest, row["id"])
        broken = (await audit.verify(engine)).broken
        assert broken is not None
        assert broken.id == (None if row is rows[-1] else row["id"] + 1)
        last = digest
    await vandal.execute("UPDATE audit_chain SET hash = $1", last)
    assert (await audit.verify(engine)).broken is None
    forged = (await audit.verify(engine, whole.hash)).broken
    assert forged is not None
    assert "no row has the hash" in forged.what
