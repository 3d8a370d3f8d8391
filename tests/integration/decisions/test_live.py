"""The live queue: from a change in PostgreSQL to a client of a real server, through NOTIFY and server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from api_support import CLOCK, until
from support import settings_for

from fraudguard.api.app import Server, create_app
from fraudguard.decisions import feed
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.decisions.cases import CHANNEL
from fraudguard.decisions.feed import CaseChange, Subscription
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.domain import DecisionRecord, Role
from fraudguard.errors import Conflict

Make = Callable[..., DecisionRecord]
NOWHERE = "127.0.0.1:1"  # no Kafka: the queue does not need it


class Stream:
    """The events of one client, read as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        """The next event's kind and data, within ten seconds; heartbeats are passed over."""
        kind = ""
        async with asyncio.timeout(10):
            async for line in self._lines:
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    return kind, json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended")


@asynccontextmanager
async def serving(database_url: str) -> AsyncIterator[str]:
    """The address of a real server on a port of its own; it stops at the end, within a minute."""
    app = create_app(settings_for(NOWHERE, database_url, model="off"), CLOCK)
    running = Server(app, port=0, timeout_graceful_shutdown=60)
    task = asyncio.create_task(running.serve())

    async def started() -> bool:
        return running.started

    await until(started, "the server listens")
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    await task


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[str]:
    """The address of one."""
    async with serving(database_url) as address:
        yield address


@asynccontextmanager
async def listening(server: str, key: str) -> AsyncIterator[Stream]:
    """A client of the live queue that has been told to read the list."""
    async with (
        httpx.AsyncClient(base_url=server, timeout=30, headers={"X-API-Key": key}) as http,
        http.stream("GET", "/v1/cases/live") as response,
    ):
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        stream = Stream(response)
        assert await stream.next() == ("refetch", {})
        yield stream


async def opened(repository: Repository, make: Make, account: str = "a-1") -> str:
    """The id of the case that an alert opened."""
    record = make(account)
    await repository.commit(Changes(records=[record], alerts=[record]))
    (case,) = (await repository.cases.list_cases(CaseFilter(account_id=account))).items
    return case.case_id


@pytest.fixture
async def key(repository: Repository) -> str:
    """An analyst's."""
    return await repository.keys.create(Role.ANALYST, "test", "test", CLOCK.now())


async def test_a_change_is_heard_by_every_client(server: str, key: str, repository: Repository, make: Make) -> None:
    """A new alert and a claim, each with the version it made; two clients hear the same."""
    async with listening(server, key) as one, listening(server, key) as two:
        case_id = await opened(repository, make)
        for stream in (one, two):
            assert await stream.next() == ("case", {"case_id": case_id, "version": 1, "state": "open"})
        await repository.cases.claim(case_id, 1, "ana", CLOCK.now())
        heard = {"case_id": case_id, "version": 2, "state": "investigating"}
        for stream in (one, two):
            assert await stream.next() == ("case", heard)


async def test_a_deed_that_fails_is_not_heard(server: str, key: str, repository: Repository, make: Make) -> None:
    """What is rolled back was never told: the next thing heard is the next thing done."""
    async with listening(server, key) as stream:
        case_id = await opened(repository, make)
        assert (await stream.next())[1]["version"] == 1
        with pytest.raises(Conflict):
            await repository.cases.claim(case_id, 7, "ana", CLOCK.now())
        await repository.cases.note(case_id, 1, "called", "ana", CLOCK.now())
        assert (await stream.next())[1]["version"] == 2


async def test_a_lost_connection_comes_back_and_says_so(
    server: str, key: str, repository: Repository, make: Make, database_url: str
) -> None:
    """PostgreSQL ends the listening connection: the client is told to read the list again, then hears as before."""
    async with listening(server, key) as stream:
        admin = await asyncpg.connect(database_url)
        ended = await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        await admin.close()
        assert ended == 1
        assert await stream.next() == ("refetch", {})
        case_id = await opened(repository, make)
        assert (await stream.next())[1]["case_id"] == case_id


async def test_who_has_no_key_hears_nothing(server: str, repository: Repository) -> None:
    """401 without a key, 403 for a service, 409 where enough listen; each an answer, not a broken stream."""
    service = await repository.keys.create(Role.SERVICE, "test", "test", CLOCK.now())
    async with httpx.AsyncClient(base_url=server, timeout=30) as http:
        assert (await http.get("/v1/cases/live")).status_code == 401
        assert (await http.get("/v1/cases/live", headers={"X-API-Key": service})).status_code == 403


async def test_one_too_many_is_refused(server: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """409; when one leaves, there is room again."""
    monkeypatch.setattr(feed, "LISTENERS_MAX", 1)
    async with httpx.AsyncClient(base_url=server, timeout=30, headers={"X-API-Key": key}) as http:
        async with listening(server, key):
            assert (await http.get("/v1/cases/live")).status_code == 409

        async def room() -> bool:
            async with http.stream("GET", "/v1/cases/live") as response:
                return response.status_code == 200

        await until(room, "the other has left")


async def test_a_process_has_one_listening_connection(server: str, key: str, database_url: str) -> None:
    """However many clients it serves."""
    async with listening(server, key), listening(server, key), listening(server, key):
        admin = await asyncpg.connect(database_url)
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = $1"
        assert await admin.fetchval(count, f'LISTEN "{CHANNEL}"') == 1
        await admin.close()


async def test_a_server_that_stops_sends_its_listeners_away(database_url: str, key: str) -> None:
    """At once: an open stream holds nothing up."""
    async with serving(database_url) as server:
        client = listening(server, key)
        stream = await client.__aenter__()
        began = time.monotonic()
    assert time.monotonic() - began < 30
    with pytest.raises(AssertionError, match="the stream ended"):
        await stream.next()
    await client.__aexit__(None, None, None)


async def test_a_slow_listener_is_told_to_read_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the newest change of each case, of too many cases none."""
    monkeypatch.setattr(feed, "WAITING_MAX", 2)
    slow = Subscription()
    assert await slow.hear(1) == (True, [])
    assert await slow.hear(0.01) == (False, [])
    changes = [CaseChange("c-1", 1, "open"), CaseChange("c-2", 1, "open"), CaseChange("c-1", 2, "closed")]
    slow.tell(changes[:2])
    slow.tell(changes[2:])
    assert await slow.hear(1) == (False, [changes[2], changes[1]])
    slow.tell([CaseChange(f"c-{n}", 1, "open") for n in range(3)])
    slow.tell(changes[:1])
    assert await slow.hear(1) == (True, changes[:1])
