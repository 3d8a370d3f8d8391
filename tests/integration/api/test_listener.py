"""The listener to decisions: where it stands, what it has missed, how many may wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from api_support import until

from fraudguard.api import examples, kafka
from fraudguard.api.kafka import DecisionListener
from fraudguard.config import Settings
from fraudguard.domain import Decision
from fraudguard.errors import BrokerUnavailable
from fraudguard.events.schema import encode
from fraudguard.events.topics import DECISIONS
from fraudguard.stream.agents import Outgoing, Publisher

DECISION = Decision.model_validate(examples.DECISION, strict=False)


@asynccontextmanager
async def listening(listener: DecisionListener) -> AsyncIterator[None]:
    """Run it, positioned."""
    task = asyncio.create_task(listener.run())

    async def positioned() -> bool:
        return listener.positioned

    try:
        await until(positioned, "the listener is positioned")
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def publish(settings: Settings, *decisions: Decision) -> None:
    """Send decisions as a worker does."""
    async with Publisher(settings) as publisher:
        await publisher.publish([Outgoing(DECISIONS, d.account_id.encode(), encode(d)) for d in decisions])


async def test_it_hears_what_comes_after_it_was_positioned_and_nothing_before(settings: Settings) -> None:
    """A new process does not read yesterday's decisions."""
    await publish(settings, DECISION.model_copy(update={"event_id": "before", "rules_version": "before"}))
    listener = DecisionListener(settings)
    async with listening(listener):
        with listener.expect("before") as before, listener.expect("after") as after:
            await publish(settings, DECISION.model_copy(update={"event_id": "after"}))
            assert (await asyncio.wait_for(after, 10)).event_id == "after"
            assert not before.done()
    assert listener.rules_seen is not None
    assert listener.rules_seen.version == DECISION.rules_version


async def test_an_old_decision_published_again_does_not_bring_its_rules_back(settings: Settings) -> None:
    """The newest is so by the time of the decision: a repeated event's first decision comes late, and is old."""
    new = DECISION.model_copy(update={"event_id": "new", "rules_version": "new"})
    old = DECISION.model_copy(update={"decided_at": DECISION.decided_at - timedelta(days=1), "rules_version": "old"})
    listener = DecisionListener(settings)
    async with listening(listener):
        with listener.expect(old.event_id) as heard:
            await publish(settings, new, old)
            await asyncio.wait_for(heard, 10)
    assert listener.rules_seen is not None
    assert listener.rules_seen.version == "new"


async def test_a_new_connection_hears_what_was_published_in_between(settings: Settings) -> None:
    """Requests that wait through a reconnection get their decision, though it came while nobody listened."""
    listener = DecisionListener(settings)
    async with listening(listener):
        waiting = listener.expect("missed")
        missed = waiting.__enter__()
    await publish(settings, DECISION.model_copy(update={"event_id": "missed"}))
    assert not missed.done()
    async with listening(listener):
        assert (await asyncio.wait_for(missed, 10)).event_id == "missed"
    waiting.__exit__(None, None, None)


async def test_only_so_many_may_wait_and_only_while_it_listens(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound, and before it is positioned, a request is refused at once; places are given back."""
    monkeypatch.setattr(kafka, "WAITING_MAX", 2)
    listener = DecisionListener(settings)
    with pytest.raises(BrokerUnavailable, match="not listening"), listener.expect("e-1"):
        pass
    async with listening(listener):
        refused = pytest.raises(BrokerUnavailable, match="waiting")
        with listener.expect("e-1"), listener.expect("e-1"), refused, listener.expect("e-2"):
            pass
        with listener.expect("e-2"):
            pass
