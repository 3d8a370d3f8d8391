"""The whole service on this machine: embedded Kafka and PostgreSQL, workers and the API as child processes.

For the demo, the benchmarks and the tests. Every child ends with its parent, even if that is killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from pydantic import SecretStr

from fraudguard.config import Settings
from fraudguard.decisions.migrate import upgrade
from fraudguard.embedded import launch
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.errors import ServiceFailed
from fraudguard.events.topics import ensure_topics

STOP_S = 20.0


@contextmanager
def services(settings: Settings, directory: Path) -> Iterator[tuple[Settings, EmbeddedKafka, EmbeddedPostgres]]:
    """Kafka with its topics and PostgreSQL with its schema, keeping their data in `directory`; settings that name them.

    Raises ServiceFailed.
    """
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        kafka = stack.enter_context(EmbeddedKafka(directory / "kafka"))
        upgrade(postgres.url)
        addresses = {"kafka_bootstrap": kafka.bootstrap, "database_url": SecretStr(postgres.url)}
        settings = settings.model_copy(update=addresses)
        ensure_topics(settings)
        yield settings, kafka, postgres


def start(command: str, settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """`fraudguard COMMAND` under these settings, writing to `log`; Ctrl-C in the terminal does not reach it."""
    parent = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGTERM)), "-", "-"]
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  our own interpreter and module
            [*parent, sys.executable, "-m", "fraudguard", command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | settings.environment(),
            start_new_session=True,
        )


def await_answer(url: str, child: subprocess.Popen[bytes], log: Path, within_s: float = 60.0) -> None:
    """Until it answers with success. Raises ServiceFailed, with the log's end, when the child ends or time is up."""
    deadline = time.monotonic() + within_s
    while not answers(url):
        if child.poll() is not None or time.monotonic() > deadline:
            raise ServiceFailed(f"{url} does not answer: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether it answers with success now."""
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def stop(child: subprocess.Popen[bytes]) -> int:
    """Ask it to stop; kill it if it has not after STOP_S. Its exit code."""
    child.terminate()
    try:
        return child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
