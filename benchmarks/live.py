"""`python -m benchmarks.live`: from an event on Kafka to its row in an open browser, in milliseconds.

Embedded Kafka and PostgreSQL, a worker with the starter, `fraudguard api`, and Chromium with the queue open. Payments
to a listed mule, each of an account of its own, are sent one after the other; a row counts as shown when the page's own
observer sees it. Twice: while nothing else happens, and while --noise other alerts a second keep the queue changing.
Parity: every payment has a decision, a case and a row. Needs Chromium: `make test-browser` installs it.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from kafka import KafkaProducer
from playwright.sync_api import sync_playwright

from benchmarks.alerting import Alarm
from fraudguard import local
from fraudguard.accounts import new_password
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import Role, Transaction
from fraudguard.embedded.postgres import temporary_directory
from fraudguard.embedded.supervisor import free_port
from fraudguard.events.schema import encode
from fraudguard.events.topics import TRANSACTIONS

if TYPE_CHECKING:
    from playwright.sync_api import Page

MULE: Final = "c-mule"
NAME: Final = "lin"
WARM: Final = 3  # payments that are not counted
WAIT_MS: Final = 30_000
WATCH: Final = """() => {
  window.shown = {};
  const note = () => document.querySelectorAll("#list [data-open]").forEach((link) => {
    window.shown[link.title] ??= Date.now();
  });
  new MutationObserver(note).observe(document.getElementById("list"), { childList: true, subtree: true });
}"""


def payment(account: str) -> Transaction:
    """Much money for a mule: the top of the queue."""
    return Transaction(
        type="transaction", version=1, event_id=f"t-{account}", account_id=account, event_time=datetime.now(UTC),
        direction="debit", kind="transfer", channel="app", amount=Decimal("9000000.00"), currency="CNY",
        counterparty_id=MULE,
    )  # fmt: skip


async def prepare(url: str, password_hash: str) -> None:
    """The mule on its list, somebody to sign in."""
    now = datetime.now(UTC)
    async with connect(url) as repository:
        await repository.lists.add(
            ListEntry("mule_accounts", MULE, "reported", "aml-team", "benchmark", now), "benchmark"
        )
        await repository.people.create(NAME, Role.ANALYST, password_hash, "benchmark", now)


@contextmanager
def noise(url: str, alerts_s: float) -> Iterator[None]:
    """Other alerts, so many a second, each with little money, written as a worker writes them."""
    stopped = threading.Event()

    async def ring() -> None:
        async with connect(url) as repository:
            alarm = Alarm(repository, random.Random(3))
            while not stopped.is_set():
                await alarm.ring(1, 0)
                await asyncio.sleep(1 / alerts_s)

    with ThreadPoolExecutor(1) as pool:
        ringing = pool.submit(asyncio.run, ring()) if alerts_s else None
        try:
            yield
        finally:
            stopped.set()
        if ringing is not None:
            ringing.result()  # what was not written would have made no noise


def measure(page: "Page", producer: KafkaProducer, accounts: Sequence[str], pause_s: float) -> list[float]:
    """Milliseconds from the sending of each payment to its row."""
    sent: dict[str, float] = {}
    chance = random.Random(9)
    for account in accounts:
        event = payment(account)
        sent[account] = time.time() * 1000
        producer.send(TRANSACTIONS, key=account.encode(), value=encode(event)).get(30)
        page.wait_for_selector(f'[data-open][title="{account}"]', timeout=WAIT_MS)
        page.wait_for_timeout(1000 * chance.uniform(0.2, 2 * pause_s))
    shown = page.evaluate("window.shown")
    return [shown[account] - at for account, at in sent.items()][WARM:]


def shown_to(settings: Settings, password: str, noises: Sequence[float], count: int, pause_s: float) -> list[Any]:
    """A row of figures for each amount of noise."""
    url = settings.database_url.get_secret_value()
    rows = []
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=0)
    with sync_playwright() as playwright:
        args = ["--headless", "--disable-gpu", *(() if os.geteuid() else ("--no-sandbox",))]  # root has no sandbox
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{settings.api_port}/console/queue")
        page.fill("input[name=name]", NAME)
        page.fill("input[name=password]", password)
        page.keyboard.press("Enter")
        page.wait_for_selector("#list")
        for number, alerts_s in enumerate(noises):
            page.reload()
            page.wait_for_selector("#list")
            page.evaluate(WATCH)
            with noise(url, alerts_s):
                took = measure(page, producer, [f"a-{number}-{n}" for n in range(count + WARM)], pause_s)
            p50, p95 = np.percentile(took, (50, 95))
            rows.append(
                {
                    "other_alerts_s": alerts_s,
                    "n": len(took),
                    "p50": round(p50),
                    "p95": round(p95),
                    "max": round(max(took)),
                }
            )
        browser.close()
    producer.close()
    return rows


def main() -> None:
    """Run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=30)
    parser.add_argument("--noise", type=float, nargs="*", default=[0, 5], help="other alerts a second")
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two payments, on average")
    parser.add_argument("--model", default="starter")
    options = parser.parse_args()
    password, hashed = new_password()
    with temporary_directory() as directory, local.services(Settings(), directory) as (settings, _, _):
        settings = settings.model_copy(update={"api_port": free_port(), "model": options.model})
        asyncio.run(prepare(settings.database_url.get_secret_value(), hashed))
        children = [local.start(command, settings, directory / f"{command}.log") for command in ("worker", "api")]
        try:
            ready = f"http://127.0.0.1:{settings.api_port}/health/ready"
            local.await_answer(ready, children[1], directory / "api.log", 120)
            rows = shown_to(settings, password, options.noise, options.events, options.pause)
        finally:
            for child in children:
                local.stop(child)
    print(
        json.dumps(
            {"machine": platform.platform(), "cpus": os.cpu_count(), "model": options.model, "ms": rows}, indent=2
        )
    )


if __name__ == "__main__":
    main()
