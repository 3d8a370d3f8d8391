"""`fraudguard demo` as a newcomer runs it: to its summary, to Ctrl-C, and killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from support import ROOT, wait_until

from fraudguard.stories.unfolding import LINES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def demo(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The demo in a state directory of its own, its output in `log`."""
    environment = os.environ | {"FRAUDGUARD_STATE_DIR": str(log.parent / "var"), "COLUMNS": "120"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fraudguard", "demo", *words],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def serving(log: Path) -> bool:
    """Whether the summary is out and the demo serves."""
    return "serving until Ctrl-C" in log.read_text(errors="replace")


def unfolds(log: Path, client: httpx.Client) -> bool:
    """Whether the account that the terminal names has had its payment decided, after some lines of talk."""
    named = re.search(r"a scam begins at account (\S+):", log.read_text(errors="replace"))
    if named is None:
        return False
    found = client.get("/v1/decisions", params={"account_id": named[1], "limit": 50}).json()["items"]
    live = [one for one in found if re.match("[mt]-live", one["event_id"])]
    paid = [place for place, one in enumerate(live) if one["event_type"] == "transaction"]
    return bool(paid) and len(live) - paid[-1] >= LINES[0] // 3


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Every process the demo has started, at any depth."""
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 4, "Kafka, PostgreSQL, worker and API"
    return children


def gone(children: list[psutil.Process]) -> bool:
    """Whether none of them runs any more."""
    return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_once_ends_with_the_summary(tmp_path: Path) -> None:
    """Exit code 0, every event decided by the model, and something caught."""
    log = tmp_path / "demo.log"
    with demo(log, "--once") as process:
        assert process.wait(600) == 0, log.read_text(errors="replace")
    text = log.read_text(errors="replace")
    assert re.search(r"degraded +│ +0 ", text), text
    caught = re.search(r"fraud stories caught +│ +(\d+) of (\d+)", text)
    assert caught, text
    assert int(caught[1]) > 0


def test_ctrl_c_leaves_nothing_running_and_so_does_kill_9(tmp_path: Path) -> None:
    """The second start works on what the killed one left, and a scam unfolds while it serves."""
    log = tmp_path / "killed.log"
    with demo(log) as process:
        wait_until(lambda: serving(log) or process.poll() is not None, "the demo serves", 600)
        assert process.poll() is None, log.read_text(errors="replace")
        children = family(process)
        process.kill()
        wait_until(lambda: gone(children), "everything ends with a killed demo", 30)
    log = tmp_path / "stopped.log"
    with demo(log) as process:
        wait_until(lambda: serving(log) or process.poll() is not None, "the demo serves again", 600)
        assert process.poll() is None, log.read_text(errors="replace")
        text = log.read_text(errors="replace")
        url = re.search(r"(http://127\.0\.0\.1:\d+)/docs", text)
        key = re.search(r"role analyst +(fg_\S+)", text)
        assert url
        assert key
        client = httpx.Client(base_url=url[1], headers={"X-API-Key": key[1]}, timeout=10)
        cases = client.get("/v1/cases")
        assert cases.status_code == 200
        assert cases.json()["items"]
        wait_until(lambda: unfolds(log, client), "a scam builds up, line by line, and its payment is decided", 180)
        children = family(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert gone(children)
