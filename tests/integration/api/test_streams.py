"""Open streams end with what let their caller in: a session, an account, a key."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from api_support import deciding
from people_support import Site, listening, sign_in
from pydantic import HttpUrl
from support import settings_for

from fraudguard.accounts import new_password
from fraudguard.api import examples
from fraudguard.assembly import Parts
from fraudguard.config import Settings
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port

LIVE = "/v1/cases/live"
IDLE_S = 60
END_S = 30.0  # of patience: a stream's own end is ten minutes away

Deed = Callable[[Site, httpx.AsyncClient], Awaitable[object]]


async def _expire(site: Site, _: httpx.AsyncClient) -> None:
    site.clock.pass_by(seconds=IDLE_S)


DEEDS: dict[str, Deed] = {
    "signing out": lambda _, browser: browser.delete("/v1/session"),
    "a new password": lambda site, _: site.repository.people.set_password(
        "wang.wei", new_password()[1], "root", site.clock.now()
    ),
    "a minute without a request": _expire,
    "the account's end": lambda site, _: site.repository.people.disable("wang.wei", "root", site.clock.now()),
}


@asynccontextmanager
async def hearing(client: httpx.AsyncClient, path: str, **options: object) -> AsyncIterator["asyncio.Task[None]"]:
    """A stream that has begun; the task ends when the stream does."""
    async with client.stream("GET", path, timeout=None, **options) as response:  # type: ignore[arg-type]  # httpx's own
        assert response.status_code == httpx.codes.OK
        lines = response.aiter_lines()
        await anext(lines)

        async def read() -> None:
            async for _ in lines:
                pass

        task = asyncio.create_task(read())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    """An API on a fresh database."""
    settings = settings_for(f"127.0.0.1:{free_port()}", database_url, session_idle_s=IDLE_S)
    async with listening(settings) as site:
        yield site


async def test_a_stream_ends_with_its_session(site: Site) -> None:
    """Whatever ends the session ends the stream within seconds; another person's goes on."""
    await site.person("li.na")
    key = await site.key(Role.VIEWER)
    async with site.browser() as other, hearing(other, LIVE, headers=key) as untouched:
        for what, deed in DEEDS.items():
            hashed = new_password()
            if what == "signing out":
                await site.repository.people.create("wang.wei", Role.ANALYST, hashed[1], "test", site.clock.now())
            else:
                await site.repository.people.set_password("wang.wei", hashed[1], "test", site.clock.now())
            async with site.browser() as browser:
                assert (await sign_in(browser, "wang.wei", hashed[0])).status_code == 201
                async with hearing(browser, LIVE) as stream:
                    await deed(site, browser)
                    async with asyncio.timeout(END_S):
                        await stream
        assert not untouched.done()


async def test_a_stream_ends_with_its_key(site: Site) -> None:
    """Revoking it is enough."""
    key = await site.key(Role.ANALYST)
    key_id = key["X-API-Key"].split("_")[1]
    async with site.browser() as browser, hearing(browser, LIVE, headers=key) as stream:
        await site.repository.keys.revoke(key_id, "root", site.clock.now())
        async with asyncio.timeout(END_S):
            await stream


async def test_a_listening_person_runs_out_like_any_other(site: Site) -> None:
    """Watching whether a session is good is no use of it."""
    password = await site.person("wang.wei")
    async with site.browser() as browser:
        await sign_in(browser, "wang.wei", password)
        token, sessions, now = browser.cookies["fraudguard_session"], site.repository.sessions, site.clock.now()
    idle, longest, second = timedelta(seconds=IDLE_S), timedelta(hours=12), timedelta(seconds=1)
    assert await sessions.alive([token], now + idle - second, idle, longest) == {token}
    assert await sessions.alive([token], now + idle, idle, longest) == set()
    assert await sessions.find(token, now + idle, idle, longest) is None


async def test_a_narrative_ends_with_its_session(settings: Settings, parts: Parts) -> None:
    """Though the model that tells it says nothing more."""
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    url = HttpUrl(f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1")
    told = settings.model_copy(update={"narrative_url": url, "narrative_model": "silent"})
    async with silent, deciding(settings, parts), listening(told) as site, site.browser() as browser:
        service = await site.key(Role.SERVICE)
        (await browser.post("/v1/screen", json=examples.TRANSACTION, headers=service)).raise_for_status()
        await sign_in(browser, "wang.wei", await site.person("wang.wei"))
        (case,) = (await browser.get("/v1/cases")).json()["items"]
        async with hearing(browser, f"/v1/cases/{case['case_id']}/narrative") as stream:
            await browser.delete("/v1/session")
            async with asyncio.timeout(10):  # the model would be given longer
                await asyncio.wait([stream])
