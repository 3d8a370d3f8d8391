"""What the tests of both embedded services share: a place, patience with a bound, and owners that can be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import wait_until

from fraudguard.embedded.postgres import temporary_directory

REPOSITORY = Path(__file__).parents[3]

OWNER = """
import signal, sys
from pathlib import Path
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.embedded.postgres import EmbeddedPostgres
service = {"kafka": EmbeddedKafka, "postgres": EmbeddedPostgres}[sys.argv[1]](Path(sys.argv[2]))
with service:
    print(service.pid, service.port, service.owner, flush=True)
    signal.sigwait([signal.SIGTERM])
"""


class OwnerProcess:
    """Another process that started a service on a directory."""

    def __init__(self, kind: str, directory: Path) -> None:
        """Return when its service answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, kind, str(directory)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        server, port, owner = self.process.stdout.readline().split()
        self.server, self.port, self.owner = psutil.Process(int(server)), int(port), owner == "True"

    def kill(self) -> None:
        """End it as a crash would: no handler of its own runs."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it in order if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _wait_for(condition: Callable[[], object], seconds: float) -> float:
    began = time.monotonic()
    wait_until(lambda: bool(condition()), "what was waited for", seconds)
    return time.monotonic() - began


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object], float], float]:
    """Wait until a condition holds, at most so many seconds; returns how long it took."""
    return _wait_for


@pytest.fixture
def owners() -> Iterator[Callable[[str, Path], OwnerProcess]]:
    """Start owners in processes of their own, ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, directory: Path) -> OwnerProcess:
            owner = OwnerProcess(kind, directory)
            stack.callback(owner.close)
            return owner

        yield start


@pytest.fixture
def room() -> Iterator[Path]:
    """A temporary directory that other accounts may pass through (pytest's own are 0700)."""
    with temporary_directory() as directory:
        yield directory


@pytest.fixture
def root() -> bool:
    """Whether the tests run as root: then PostgreSQL must run as somebody else."""
    return os.geteuid() == 0
