"""From Kafka to the screen: what is sent to the topic is decided by a worker, opens a case, and appears by itself."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from console_support import CLOCK, Desk, Site, serving
from support import Worker, fresh_topics, produce, read_decisions, settings_for

from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import Outcome, Transaction
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.embedded.supervisor import free_port

WITHIN_MS = 12_000  # less than the 15 s after which an open queue reads its rows in any case
MULE = "c-mule"
# When each row came, by the page's clock.
WATCH = """() => {
  window.shown = {};
  const note = () => document.querySelectorAll("#rows [data-open]").forEach((link) => {
    window.shown[link.title] ??= Date.now();
  });
  new MutationObserver(note).observe(document.getElementById("list"), { childList: true, subtree: true });
}"""


def payment(number: int) -> Transaction:
    """Money for a mule, from an account of its own."""
    return Transaction(
        type="transaction",
        version=1,
        event_id=f"t-live-{number}",
        account_id=f"a-live-{number}",
        event_time=CLOCK.now(),
        direction="debit",
        kind="transfer",
        channel="app",
        amount=Decimal("50000.00"),
        currency="CNY",
        counterparty_id=MULE,
    )


@pytest.fixture
def site(
    database_of: Callable[[str], AbstractContextManager[str]], filled_template: str, kafka: EmbeddedKafka
) -> Iterator[Site]:
    """A console over stories of its own, on the real Kafka; the mule is known."""
    with database_of(filled_template) as url:
        settings = settings_for(kafka.bootstrap, url, api_port=free_port(), model="off", consumer_group="live-queue")
        with ThreadPoolExecutor(1) as pool:  # a thread of its own, for playwright holds this one's event loop
            pool.submit(asyncio.run, _list_mule(settings)).result(timeout=60)
        fresh_topics(settings)
        with serving(settings) as served:
            yield served


async def _list_mule(settings: Settings) -> None:
    async with connect(settings.database_url.get_secret_value()) as repository:
        entry = ListEntry("mule_accounts", MULE, "reported", "aml-team", "test", CLOCK.now() - timedelta(days=1))
        await repository.lists.add(entry, "test")


def test_what_kafka_brings_appears_in_an_open_queue(desk_of: Callable[..., Desk], site: Site, tmp_path: Path) -> None:
    """In this order: sent, decided, shown, without a touch; and so does what comes while the rows are just read."""
    desk = desk_of("lin")
    with Worker(site.settings, tmp_path / "worker.log") as worker:
        produce(site.settings, [payment(0)])  # until it is decided the worker may still be starting
        read_decisions(site.settings, ["t-live-0"], alive=worker)
        desk.page.reload()
        desk.page.wait_for_selector("[data-open][title=a-live-0]")
        desk.page.evaluate(WATCH)

        events = [payment(number) for number in (1, 2, 3)]
        sent: dict[str, datetime] = {}
        for event in events:
            assert not desk.page.locator(f"[data-open][title={event.account_id}]").count()
            sent[event.event_id] = CLOCK.now()
            produce(site.settings, [event])
        decided = read_decisions(site.settings, sent, alive=worker)
        for event in events:
            desk.page.wait_for_selector(f"[data-open][title={event.account_id}]", timeout=WITHIN_MS)
            (decision,) = decided[event.event_id]
            assert decision.outcome is Outcome.BLOCK
            shown_ms = desk.page.evaluate("(account) => window.shown[account]", event.account_id)
            assert sent[event.event_id] <= decision.decided_at
            assert decision.decided_at.timestamp() * 1000 <= shown_ms + 1  # the page counts whole milliseconds
