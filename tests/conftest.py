"""The real Kafka and the real PostgreSQL for every test that asks for one, started once a session."""

import asyncio
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import asyncpg
import pytest

from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.embedded.kafka import prepare as prepare_kafka
from fraudguard.embedded.postgres import EmbeddedPostgres, temporary_directory

TEMPLATE = "template_migrated"
_numbers = itertools.count(1)

# Kernels for GPUs run in Triton's interpreter, where `make test-gpu` does not say otherwise. Triton decides that while
# it is imported, and torch imports it.
if sys.platform == "linux" and "TRITON_INTERPRET" not in os.environ:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("triton.language")


@pytest.fixture(scope="session")
def services_dir() -> Iterator[Path]:
    """A temporary directory for services of one's own; other accounts may pass through (pytest's are 0700)."""
    with temporary_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres(services_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL."""
    with EmbeddedPostgres(services_dir / "postgres") as service:
        yield service


@pytest.fixture(scope="session")
def kafka(services_dir: Path) -> Iterator[EmbeddedKafka]:
    """A running Apache Kafka; `.bootstrap` is its address."""
    prepare_kafka()
    with EmbeddedKafka(services_dir / "kafka") as service:
        yield service


def _execute(postgres: EmbeddedPostgres, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(postgres.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as pool:  # a thread of its own: the test's event loop is left alone
        pool.submit(asyncio.run, run()).result(timeout=60)


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedPostgres) -> str:
    """The name of a database that was migrated once and is only ever cloned."""
    from fraudguard.decisions.migrate import upgrade

    _execute(postgres, f"CREATE DATABASE {TEMPLATE}")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(upgrade, postgres.url_of(TEMPLATE)).result(timeout=120)
    return TEMPLATE


@contextmanager
def _database(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield postgres.url_of(name)
    _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def database_of(postgres: EmbeddedPostgres) -> Callable[[str], AbstractContextManager[str]]:
    """Gives the URL of a fresh clone of a template database, for as long as it is entered."""
    return lambda template: _database(postgres, template)


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """The URL of a fresh, migrated database of this test alone."""
    with _database(postgres, migrated_template) as url:
        yield url


@pytest.fixture
def second_database_url(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Another one, for a twin run."""
    with _database(postgres, migrated_template) as url:
        yield url
