"""What the API's tests share: the API on the real Kafka and PostgreSQL, and a decider at work.

The decider is the pipeline behind the stream's own door, with the model off, in the test's process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiokafka
import httpx

from fraudguard.api.app import create_app
from fraudguard.assembly import Parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import Role
from fraudguard.events.topics import INPUTS
from fraudguard.stream.agents import Door, Publisher

CLOCK = SystemClock()


class Ahead(SystemClock):
    """The machine's clock, and by how much the API's is ahead of it."""

    def __init__(self) -> None:
        self.by = timedelta(0)

    def now(self) -> datetime:
        """What the API takes the time for."""
        return super().now() + self.by


@dataclass(frozen=True, slots=True)
class Consumed:
    """A consumed record as the door takes it: its time in seconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float
    headers: Any


@asynccontextmanager
async def deciding(settings: Settings, parts: Parts) -> AsyncIterator[None]:
    """Decide what is sent from now on, as a worker does, in this process."""
    async with open_pipeline(settings, parts, CLOCK) as pipeline, Publisher(settings) as publisher:
        door = Door(settings, pipeline.screen, publisher, CLOCK)
        consumer = aiokafka.AIOKafkaConsumer(*INPUTS, bootstrap_servers=settings.kafka_bootstrap, group_id=None)
        await consumer.start()
        await consumer.seek_to_end()

        async def work() -> None:
            while True:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    await door.handle(
                        [
                            Consumed(r.topic, r.partition, r.offset, r.key, r.value, r.timestamp / 1000, r.headers)
                            for r in records
                        ]
                    )

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await consumer.stop()


@dataclass(frozen=True, slots=True)
class Api:
    """A ready API: a client without a key, and a key a role."""

    http: httpx.AsyncClient
    keys: Mapping[Role, str]
    settings: Settings
    repository: Repository
    clock: Ahead

    async def send(self, role: Role, method: str, path: str, **options: Any) -> httpx.Response:
        """One request in this role."""
        headers = {"X-API-Key": self.keys[role]} | options.pop("headers", {})
        return await self.http.request(method, path, headers=headers, **options)

    async def seen(self, case_id: str) -> dict[str, str]:
        """The header that says that one saw the case as it is now."""
        return {"If-Match": (await self.send(Role.ADMIN, "GET", f"/v1/cases/{case_id}")).headers["ETag"]}


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Api]:
    """The application with its lifespan, ready, without a socket."""
    clock = Ahead()
    app = create_app(settings, clock)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        connect(settings.database_url.get_secret_value()) as repository,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", timeout=30) as http,
    ):
        keys = {role: await repository.keys.create(role, f"test {role}", "test", CLOCK.now()) for role in Role}
        await until(lambda: _is_ready(http), "the API is ready")
        yield Api(http, keys, settings, repository, clock)


async def _is_ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/health/ready")).status_code == httpx.codes.OK


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 30.0) -> None:
    """Ask again until it holds; AssertionError after timeout_s."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await condition():  # noqa: ASYNC110  what is waited for happens in other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None
