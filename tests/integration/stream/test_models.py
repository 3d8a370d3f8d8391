"""Workers as processes, on the real Kafka and PostgreSQL, that take models over from the registry."""

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pytest
from sealed import sealed
from support import Worker, fresh_topics, produce, read_decisions, settings_for, wait_until

from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.domain import Decision, Transaction
from fraudguard.embedded.kafka import EmbeddedKafka
from fraudguard.models import Releasing

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
T = TypeVar("T")


@pytest.fixture
def settings(kafka: EmbeddedKafka, database_url: str) -> Settings:
    """Fresh topics and a fresh database."""
    settings = settings_for(kafka.bootstrap, database_url, precision="fp32")
    fresh_topics(settings)
    return settings


def payment(minute: int, account: int) -> Transaction:
    """So many minutes after noon."""
    return Transaction(
        type="transaction", version=1, event_id=f"e-{minute}-{account}", account_id=f"a-{account}",
        event_time=NOON + timedelta(minutes=minute), direction="debit", kind="transfer", channel="app",
        amount=Decimal("20.00"), currency="CNY", counterparty_id="c-1",
    )  # fmt: skip


@pytest.fixture
def ask(settings: Settings) -> Callable[..., list[Decision]]:
    """Sends one payment of each of 24 accounts, so that every worker has some, and gives the decisions."""
    turns = itertools.count()

    def ask(alive: Worker) -> list[Decision]:
        minute = next(turns)
        sent = [payment(minute, account) for account in range(24)]
        produce(settings, sent)
        found = read_decisions(settings, {event.event_id for event in sent}, alive=alive)
        return [found[event.event_id][0] for event in sent]

    return ask


async def releasing(settings: Settings, work: Callable[[Releasing], Awaitable[T]]) -> T:
    """Something done with the registry, as the command line does it."""
    async with connect(settings.database_url.get_secret_value()) as repository:
        return await work(Releasing(settings, repository))


def said(text: str, *logs: Path) -> None:
    """Wait until all of these logs say so."""
    wait_until(lambda: all(text in log.read_text(encoding="utf-8") for log in logs), f"{len(logs)} logs say {text}")


def models(decisions: list[Decision]) -> set[str]:
    """Who scored them; none is degraded."""
    assert not any(decision.degraded for decision in decisions)
    return {decision.model for decision in decisions}


async def test_all_workers_take_a_promoted_model_over_and_give_it_back(
    settings: Settings, ask: Callable[..., list[Decision]], tmp_path: Path
) -> None:
    """Two processes, no restart: the champion's name is on every decision after it; a worker that starts has it too."""
    folder, now = sealed(tmp_path / "new", "9.0.0"), datetime.now(UTC)
    one_log, two_log, third_log = (tmp_path / f"{name}.log" for name in ("one", "two", "third"))

    with Worker(settings, one_log) as one, Worker(settings, two_log) as two:
        assert models(ask(one)) == {"starter@0.3.0+fp32"}
        await releasing(settings, lambda r: r.shadow(folder, "ana", "a test", now))
        await releasing(settings, lambda r: r.promote("starter@9.0.0", "ana", "no measures", now, force=True))
        said("loaded as champion from the next batch on: starter@9.0.0", one_log, two_log)
        assert models(ask(two)) == {"starter@9.0.0+fp32"}
        assert one.stop() == 0
        with Worker(settings, third_log) as third:  # FRAUDGUARD_MODEL names the starter; the registry wins
            said("worker ready: model starter@9.0.0", third_log)
            assert await releasing(settings, lambda r: r.rollback(None, "ben", "a test", now)) is None
            said("loaded as champion from the next batch on: starter@0.3.0", two_log, third_log)
            assert models(ask(third)) == {"starter@0.3.0+fp32"}
            assert (two.stop(), third.stop()) == (0, 0)


async def test_a_killed_worker_leaves_shadow_scores_whole(
    settings: Settings, ask: Callable[..., list[Decision]], tmp_path: Path
) -> None:
    """kill -9 in mid-stream: the next worker goes on, and what the challenger said is there once, or not at all."""
    settings = settings.model_copy(update={"shadow_ms": 60_000})
    folder = sealed(tmp_path / "new", "9.0.0", offset=1.0)
    await releasing(settings, lambda r: r.shadow(folder, "ana", "a test", datetime.now(UTC)))
    rounds: list[list[Decision]] = []
    for name in ("one", "two"):
        log = tmp_path / f"{name}.log"
        with Worker(settings, log) as worker:
            said("loaded as challenger from the next batch on: starter@9.0.0", log)
            rounds.append(ask(worker))
            produce(settings, [payment(100, account) for account in range(24)])
            read_decisions(settings, {"e-100-0"}, alive=worker)
            worker.kill()
    assert models([*rounds[0], *rounds[1]]) == {"starter@0.3.0+fp32"}
    async with connect(settings.database_url.get_secret_value()) as repository:
        (entry,) = await repository.models.entries()
        shadowed = [row async for row in repository.models.shadowed(entry.model.digest)]
    by_time = Counter(row.event_time for row in shadowed)
    assert by_time[NOON] == by_time[NOON + timedelta(minutes=1)] == 24
    assert 1 <= by_time[NOON + timedelta(minutes=100)] <= 24
    assert all(row.shadow_risk > row.risk for row in shadowed)
