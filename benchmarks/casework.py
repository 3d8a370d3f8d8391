"""`python -m benchmarks.casework`: the queue, cases and decisions of a bank after a quarter, in milliseconds a request.

Fills an embedded PostgreSQL (benchmarks/casework_data.py: 100,000 unclosed cases, 5,000,000 decisions by default, some
18 GB for as long as it runs, or in --directory, which is kept and used again), starts `fraudguard api`, signs in, and
asks over HTTP, one request at a time. Each row's questions take turns with all other rows'. Every answer is compared
with what was put in; one wrong answer voids the run. --plans FILE: every statement behind each row's first question,
as the application sends it, with EXPLAIN (ANALYZE, BUFFERS). --writes: what the indexes cost a worker's batch.
"""

import argparse
import asyncio
import logging
import os
import platform
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final
from zoneinfo import ZoneInfo

import asyncpg
import httpx
import numpy as np
from pydantic import SecretStr
from sqlalchemy import Engine, event

from benchmarks.casework_data import PASSWORD, Size, fill
from benchmarks.casework_rows import ME, Explorer, Files, Queue, Row
from benchmarks.casework_writes import BATCH, writes
from fraudguard import local
from fraudguard.api.app import create_app
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.migrate import upgrade
from fraudguard.embedded.postgres import EmbeddedPostgres, temporary_directory
from fraudguard.embedded.supervisor import free_port

BOUND_MS: Final = 200.0
NOBODY: Final = "127.0.0.1:1"  # no Kafka: nothing here needs one
WARM: Final = 2  # rounds that are not counted
_heard: ContextVar[list[tuple[str, Any]] | None] = ContextVar("heard", default=None)


async def rows_of(url: str, settings: Settings, count: int) -> list[Row]:
    """What to ask; raises SystemExit where the tables are not what was put in."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET jit = off; SET work_mem = '256MB'")
        put, stored = await connection.fetchrow(
            """SELECT (SELECT (count(*), sum(alerts))::text FROM filled.cases),
                      (SELECT (count(*), sum(alerts))::text FROM cases)"""
        )
        if put != stored:
            raise SystemExit(f"void: {stored} cases and alerts are there, {put} were put in")
        now, chance = datetime.now(UTC), random.Random(7)
        queue = Queue(await connection.fetch("SELECT * FROM cases", timeout=120), now)
        files = Files(connection, queue, chance, count)
        explorer = Explorer(connection, now, ZoneInfo(settings.time_zone))
        return [*queue.rows(), *await files.rows(), *await explorer.rows()]
    finally:
        await connection.close()


@contextmanager
def api(settings: Settings, log: Path) -> Iterator[httpx.Client]:
    """`fraudguard api` as a process, and a client that signed in."""
    settings = settings.model_copy(update={"api_port": free_port()})
    child = local.start("api", settings, log)
    try:
        url = f"http://127.0.0.1:{settings.api_port}"
        local.await_answer(f"{url}/health/live", child, log)
        with httpx.Client(base_url=url, timeout=60) as client:
            client.post("/v1/session", json={"name": ME, "password": PASSWORD}).raise_for_status()
            yield client
    finally:
        local.stop(child)


def measure(client: httpx.Client, rows: Sequence[Row], requests: int) -> tuple[dict[str, list[float]], set[str]]:
    """Milliseconds of each row's requests, and the rows of which an answer was wrong."""
    took: dict[str, list[float]] = {row.name: [] for row in rows}
    wrong: set[str] = set()
    for number in range(WARM + requests):
        for row in rows:
            question = row.questions[number % len(row.questions)]
            headers = {"HX-Request": "true"} if question.fragment else {}
            began = time.perf_counter()
            answer = client.get(question.path, headers=headers)
            spent = (time.perf_counter() - began) * 1000
            if number >= WARM:
                took[row.name].append(spent)
            try:
                right = question.right(answer)
            except (KeyError, ValueError):
                right = False
            if not right and row.name not in wrong:
                wrong.add(row.name)
                print(f"wrong: {row.name}: {answer.status_code} {question.path}", flush=True)
    return took, wrong


async def plans(settings: Settings, url: str, rows: Sequence[Row]) -> str:
    """The statements behind each row's first question, with what PostgreSQL did for them."""
    written = []
    app = create_app(settings, SystemClock())
    transport = httpx.ASGITransport(app)
    logging.disable(logging.WARNING)  # it looks for a Kafka that nobody needs here
    event.listen(Engine, "before_cursor_execute", _hear)
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
        ):
            (await client.post("/v1/session", json={"name": ME, "password": PASSWORD})).raise_for_status()
            for row in rows:
                question = row.questions[0]
                heard: list[tuple[str, Any]] = []
                token = _heard.set(heard)
                await client.get(question.path, headers={"HX-Request": "true"} if question.fragment else {})
                _heard.reset(token)
                written.append(f"\n== {row.name}\n   {question.path}")
                written += [await _explained(connection, *one) for one in heard]
    finally:
        event.remove(Engine, "before_cursor_execute", _hear)
        logging.disable(logging.NOTSET)
        await connection.close()
    return "\n".join(written)


def _hear(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
    if (heard := _heard.get()) is not None:
        heard.append((statement, parameters))


async def _explained(connection: asyncpg.Connection, statement: str, parameters: Any) -> str:
    if not statement.lstrip().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
        return f"-- {statement}"  # a setting of the transaction, which has no plan
    transaction = connection.transaction()  # what a statement wrote is taken back
    await transaction.start()
    try:
        lines = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", *parameters)
    finally:
        await transaction.rollback()
    return f"-- {' '.join(statement.split())}\n" + "\n".join(f"   {line[0]}" for line in lines)


def report(took: dict[str, list[float]], wrong: set[str]) -> None:
    """A table, the slow rows marked."""
    print("\n| request | median, ms | p95, ms | |\n|---|---|---|---|")
    for name, spent in took.items():
        middle, high = median(spent), float(np.percentile(spent, 95))
        remark = "wrong answer" if name in wrong else "above 200" if middle > BOUND_MS else ""
        print(f"| {name} | {middle:.0f} | {high:.0f} | {remark} |")


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=5_000_000)
    parser.add_argument("--cases", type=int, default=100_000, help="unclosed ones")
    parser.add_argument("--requests", type=int, default=30, help="a row")
    parser.add_argument("--directory", type=Path, help="where the data stays, or is already")
    parser.add_argument("--plans", type=Path, help="write the query plans to this file")
    parser.add_argument("--writes", type=int, default=0, help="batches to write under each set of indexes")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    options = parser.parse_args()
    with temporary_directory() as scratch:
        directory = options.directory or scratch
        new = not (directory / "postgres").exists()
        with EmbeddedPostgres(directory / "postgres") as postgres:
            upgrade(postgres.url)
            settings = Settings(
                database_url=SecretStr(postgres.url), kafka_bootstrap=NOBODY, rate_caller_min=0, rate_sign_in_min=0
            )
            if new:
                size = Size(options.decisions, options.cases)
                asyncio.run(fill(settings, size, lambda line: print(line, flush=True)))
            rows = asyncio.run(rows_of(postgres.url, settings, options.requests))
            rows = [row for row in rows if options.only in row.name]
            with api(settings, directory / "api.log") as client:
                took, wrong = measure(client, rows, options.requests)
            print(f"{platform.platform()}, {os.cpu_count()} CPUs")
            report(took, wrong)
            if options.plans:
                options.plans.write_text(asyncio.run(plans(settings, postgres.url, rows)))
            wrote = asyncio.run(writes(postgres.url, options.writes)) if options.writes else {}
    for name, spent in wrote.items():
        print(f"{BATCH} decisions written with {name}: {spent:.1f} ms")
    if wrong:
        raise SystemExit(f"void: {len(wrong)} rows had a wrong answer")


if __name__ == "__main__":
    main()
