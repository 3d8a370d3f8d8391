"""What is missing shows in readiness, is answered with 503, and heals by itself."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from api_support import CLOCK, Api, serving, until
from support import ROOT, settings_for

from fraudguard.api import examples
from fraudguard.api.app import create_app
from fraudguard.config import Settings
from fraudguard.decisions import outbox
from fraudguard.decisions.casebook import UNDO
from fraudguard.decisions.connection import open_engine, transaction
from fraudguard.decisions.repository import connect
from fraudguard.domain import Label, Role
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.events.topics import ensure_topics


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The application, ready or not."""
    app = create_app(settings, CLOCK)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        yield http


async def test_without_kafka_it_lives_is_not_ready_and_still_reads(database_url: str) -> None:
    """503 names Kafka and the listener; screening is refused at once; the store answers as ever."""
    settings = settings_for(f"127.0.0.1:{closed_port()}", database_url)
    async with connect(database_url) as repository, client(settings) as http:
        key = {"X-API-Key": await repository.keys.create(Role.ADMIN, "test", "test", CLOCK.now())}
        assert (await http.get("/health/live")).status_code == 200
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["path"]) == (503, "kafka, listener")
        for route in ("/v1/screen", "/v1/events"):
            response = await http.post(route, json=examples.TRANSACTION, headers=key)
            assert (response.status_code, response.json()["code"]) == (503, "broker_unavailable")
            assert response.headers["retry-after"]
        assert (await http.get("/v1/decisions", headers=key)).status_code == 200


async def queue_label(database_url: str) -> None:
    """Leave a label in the outbox, as a disposition does."""
    engine = open_engine(database_url)
    async with transaction(engine) as connection:
        await outbox.put(connection, [Label.model_validate(examples.LABEL)], CLOCK.now())
    await engine.dispose()


async def test_it_connects_to_a_kafka_that_starts_later(database_url: str, services_dir: Path, port: int) -> None:
    """Started first, the API becomes ready by itself, takes events, and sends the labels that had to wait."""
    settings = settings_for(f"127.0.0.1:{port}", database_url)
    async with connect(database_url) as repository, client(settings) as http:
        key = {"X-API-Key": await repository.keys.create(Role.SERVICE, "test", "test", CLOCK.now())}
        assert (await http.get("/health/ready")).json()["path"] == "kafka, listener"
        await queue_label(database_url)
        late = EmbeddedKafka(services_dir / "late-kafka", port=port)
        await asyncio.to_thread(late.start)
        try:

            async def without_topics() -> bool:
                return "fraudguard topics" in (await http.get("/health/ready")).json()["detail"]

            await until(without_topics, "Kafka is connected")
            await asyncio.to_thread(ensure_topics, settings)

            async def ready() -> bool:
                return (await http.get("/health/ready")).status_code == 200

            await until(ready, "the API is ready")
            assert (await http.post("/v1/events", json=examples.TRANSACTION, headers=key)).status_code == 202

            async def published() -> bool:
                return not await repository.outbox.waiting(1)

            await until(published, "the label is published")
        finally:
            await asyncio.to_thread(late.stop)


async def test_without_postgres_it_lives_and_is_not_ready(kafka: EmbeddedKafka) -> None:
    """No key can be checked, so nothing is served; no address gets out."""
    port = closed_port()
    settings = settings_for(kafka.bootstrap, f"postgresql://fraudguard@127.0.0.1:{port}/fraudguard")
    ensure_topics(settings)
    async with client(settings) as http:

        async def only_postgres_is_missing() -> bool:
            return (await http.get("/health/ready")).json()["path"] == "postgres"

        await until(only_postgres_is_missing, "Kafka is connected")
        response = await http.get("/v1/decisions", headers={"X-API-Key": "fg_1_x"})
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert str(port) not in response.text
        assert (await http.get("/health/live")).status_code == 200


async def test_an_old_schema_and_missing_topics_are_told_with_their_fix(
    kafka: EmbeddedKafka, postgres: EmbeddedPostgres
) -> None:
    """Readiness says which command mends it."""
    settings = settings_for(kafka.bootstrap, postgres.url_of("postgres"))
    async with client(settings) as http:
        response = await http.get("/health/ready")
    assert response.status_code == 503
    assert "fraudguard migrate" in response.json()["detail"]


async def test_screening_and_labels_survive_the_death_of_kafka(api: Api, kafka: EmbeddedKafka) -> None:
    """kill -9 of the broker: while it is away 503 and a full outbox, afterwards decisions and labels again."""
    for event in (examples.MESSAGE, examples.TRANSACTION):
        assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)).status_code == 200
    dead = kafka.pid
    assert dead is not None
    os.kill(dead, signal.SIGKILL)
    case_id = examples.CASE_ID
    verdict = {"disposition": "confirmed_fraud", "reason": "called"}
    path, seen = f"/v1/cases/{case_id}/dispose", await api.seen(case_id)
    assert (await api.send(Role.ANALYST, "POST", path, json=verdict, headers=seen)).status_code == 200
    api.clock.by = UNDO
    assert len(await api.repository.outbox.waiting(10)) == 2
    event = examples.TRANSACTION | {"event_id": "t-2"}
    response = await api.send(Role.SERVICE, "POST", "/v1/screen", params={"deadline_ms": 300}, json=event)
    assert response.status_code in (503, 504)

    async def decides_again() -> bool:
        response = await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)
        return response.status_code == 200

    await until(decides_again, "screening works again", 60)

    async def published() -> bool:
        return not await api.repository.outbox.waiting(10) and len(await api.repository.labels(["m-1", "t-1"])) == 2

    await until(published, "the labels arrive", 60)


async def test_the_store_comes_back_after_the_death_of_postgres(settings: Settings, postgres: EmbeddedPostgres) -> None:
    """kill -9 of the server: nothing but 503 while it is away, then the same answers as before."""
    async with serving(settings) as api:
        event = examples.TRANSACTION
        dead = postgres.pid
        assert dead is not None
        os.kill(dead, signal.SIGKILL)

        async def answers() -> bool:
            response = await api.send(Role.SERVICE, "GET", "/v1/events/t-1/decision")
            assert response.status_code in (404, 503), response.text
            return response.status_code == 404

        await until(answers, "the store answers again", 60)
        assert (await api.send(Role.SERVICE, "POST", "/v1/events", json=event)).status_code == 202


@pytest.fixture
def port() -> int:
    """A free port."""
    return closed_port()


def test_the_command_serves_within_seconds_and_stops_in_order(settings: Settings, port: int, tmp_path: Path) -> None:
    """`fraudguard api` on a socket: loopback only, ready fast, exit code 0 after SIGTERM, silent about keys."""
    environment = os.environ | {
        "FRAUDGUARD_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "FRAUDGUARD_DATABASE_URL": settings.database_url.get_secret_value(),
        "FRAUDGUARD_API_PORT": str(port),
    }
    began = time.monotonic()
    with (tmp_path / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fraudguard", "api"], env=environment, stdout=log, stderr=log, cwd=ROOT
        )
    try:
        status = 0
        while status != 200:
            assert process.poll() is None, (tmp_path / "api.log").read_text()
            assert time.monotonic() - began < 20
            try:
                status = httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code
            except httpx.TransportError:
                status = 0
        response = httpx.get(f"http://127.0.0.1:{port}/v1/decisions", headers={"X-API-Key": "fg_1_hush"})
        assert response.status_code == 401
        assert "server" not in response.headers
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
    text = (tmp_path / "api.log").read_text()
    assert code == 0, text
    assert "hush" not in text
    assert "Traceback" not in text
