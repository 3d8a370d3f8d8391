"""What tests of people share: the API behind a real socket, without Kafka, on a clock that they move; accounts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import uvicorn

from fraudguard.accounts import new_password
from fraudguard.api.app import create_app
from fraudguard.config import Settings
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port


@dataclass
class TestClock:
    """A clock that stands still until it is told to go on."""

    __test__ = False
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0

    def now(self) -> datetime:
        """Wall-clock time."""
        return self.at

    def monotonic(self) -> float:
        """The stopwatch."""
        return self.seconds

    def pass_by(self, **units: float) -> None:
        """Let time pass, in timedelta's units."""
        passed = timedelta(**units)
        self.at += passed
        self.seconds += passed.total_seconds()


@dataclass(frozen=True)
class Site:
    """A listening API. url: its address; repository: on its database."""

    url: str
    repository: Repository
    clock: TestClock

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client that keeps cookies."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            yield client

    async def person(self, name: str, role: Role = Role.ANALYST) -> str:
        """A new account's password."""
        password, hashed = new_password()
        await self.repository.people.create(name, role, hashed, "test", self.clock.now())
        return password

    async def key(self, role: Role) -> dict[str, str]:
        """Headers with a new key of this role."""
        return {"X-API-Key": await self.repository.keys.create(role, f"test {role}", "test", self.clock.now())}


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[Site]:
    """The API served by uvicorn on a port of its own."""
    clock, port = TestClock(), settings.api_port if "api_port" in settings.model_fields_set else free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(settings, clock), port=port, log_config=None, lifespan="on"))
    url = f"http://127.0.0.1:{port}"
    async with connect(settings.database_url.get_secret_value()) as repository:
        serving = asyncio.create_task(server.serve())
        try:
            await _answers(url, serving)
            yield Site(url, repository, clock)
        finally:
            server.should_exit = True
            await serving


async def _answers(url: str, serving: "asyncio.Task[None]") -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(30):
        while not serving.done():
            with suppress(httpx.TransportError):
                await client.get(f"{url}/health/live")
                return
            await asyncio.sleep(0.01)  # what is waited for is a socket


async def sign_in(browser: httpx.AsyncClient, name: str, password: str, code: str | None = None) -> httpx.Response:
    """As a page does; the browser keeps the cookie and, from then on, sends the CSRF token."""
    proof = {"name": name, "password": password} | ({"code": code} if code else {})
    response = await browser.post("/v1/session", json=proof)
    if response.status_code == httpx.codes.CREATED:
        browser.headers["X-CSRF-Token"] = response.json()["csrf_token"]
    return response
