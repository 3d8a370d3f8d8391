"""What goes wrong with PostgreSQL reaches the house as its own errors, so that a worker stops or tries again."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.connection import open_engine, transaction
from fraudguard.decisions.migrate import upgrade
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.embedded.supervisor import free_port
from fraudguard.errors import BadSettings, FraudguardError, StoreUnavailable


async def failure(url: str, statement: str = "SELECT 1", **timeouts: float) -> FraudguardError:
    """The error of a statement that must fail."""
    engine = open_engine(url, **timeouts)  # type: ignore[arg-type] - only timeouts are passed
    try:
        with pytest.raises(FraudguardError) as caught:
            async with transaction(engine) as connection:
                await connection.execute(text(statement))
    finally:
        await engine.dispose()
    return caught.value


async def test_nobody_listens() -> None:
    """A refused connection is StoreUnavailable."""
    url = f"postgresql://fraudguard@127.0.0.1:{free_port()}/fraudguard"
    assert isinstance(await failure(url), StoreUnavailable)


async def test_a_listener_that_says_nothing() -> None:
    """A server that accepts and then keeps silent is given up within the connect timeout."""
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        error = await failure(f"postgresql://fraudguard@127.0.0.1:{port}/fraudguard", connect_timeout_s=0.3)
    assert isinstance(error, StoreUnavailable)
    silent.close()


async def test_a_wrong_database_or_password_is_a_setting(database_url: str) -> None:
    """What only the operator can mend names the setting."""
    user, _, rest = database_url.partition("@")
    for url in (database_url + "_none", f"{user}x@{rest}"):
        error = await failure(url)
        assert isinstance(error, BadSettings)
        assert error.path == "database_url"


async def test_waits_have_a_bound(database_url: str) -> None:
    """A statement beyond its time is cancelled by the server; a pool that is in use is not waited for without end."""
    assert isinstance(await failure(database_url, "SELECT pg_sleep(60)", statement_timeout_s=0.2), StoreUnavailable)
    engine = open_engine(database_url, pool_size=1, statement_timeout_s=0.2)
    async with transaction(engine):
        with pytest.raises(StoreUnavailable):
            async with transaction(engine):
                pass
    await engine.dispose()


async def test_a_bug_stays_a_bug(database_url: str) -> None:
    """A statement that can never work is not disguised as something to try again."""
    engine = open_engine(database_url)
    for statement in ("SELEC", "SELECT 1/0"):
        with pytest.raises(Exception, match=r"syntax|division") as caught:
            async with transaction(engine) as connection:
                await connection.execute(text(statement))
        assert not isinstance(caught.value, FraudguardError)
    await engine.dispose()


async def test_errors_do_not_quote_what_people_wrote(database_url: str) -> None:
    """A parameter's text stays out of the error, hence out of the log."""
    engine = open_engine(database_url)
    with pytest.raises(Exception, match="division") as caught:
        async with transaction(engine) as connection:
            await connection.execute(text("SELECT 1/0, cast(:text AS text)"), {"text": "my card is 6222"})
    assert "6222" not in str(caught.value)
    await engine.dispose()


async def test_a_killed_server(services_dir: Path) -> None:
    """kill -9 of the server in mid-statement is StoreUnavailable; once it is back the same pool works again."""
    with EmbeddedPostgres(services_dir / "killed") as server:
        await asyncio.to_thread(upgrade, server.url)
        engine = open_engine(server.url)
        repository = Repository(engine)
        await repository.commit(Changes(states={"a": StoredState(0, b"1")}))

        async def sleep() -> None:
            async with transaction(engine) as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))

        sleeping = asyncio.create_task(sleep())
        await eventually(engine, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(StoreUnavailable):
            await sleeping
        await eventually(engine, "SELECT 1")
        assert await repository.states(["a"]) == {"a": StoredState(1, b"1")}
        await repository.commit(Changes(states={"a": StoredState(1, b"2")}))
        await engine.dispose()


async def eventually(engine: AsyncEngine, query: str) -> None:
    """Ask until there is a row; StoreUnavailable meanwhile is expected, half a minute is the bound."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                async with transaction(engine) as connection:
                    if (await connection.execute(text(query))).first():
                        return
            await asyncio.sleep(0.02)
