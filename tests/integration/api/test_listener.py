"""The listener to decisions: where it stands, what it has missed, how many may wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

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
    await publish(settings, DECISION.model_copy(update={"decision_id": "before"}))
    listener = DecisionListener(settings)
    async with listening(listener):
        with listener.expect("before") as before, listener.expect("after") as after:
            await publish(settings, DECISION.model_copy(update={"decision_id": "after"}))
            assert (await asyncio.wait_for(after, 10)).decision_id == "after"
            assert not before.done()


async def test_foreign_records_among_the_decisions_are_passed_over(settings: Settings) -> None:
    """What is no decision, or only begins like the one waited for, is skipped; the decision after it is heard."""
    foreign = [b"{", b"[]", b"null", b"", b'{"decision_id": 7}', b'{"decision_id": []}', b"\xff"]
    foreign.append(f'{{"decision_id": "{DECISION.decision_id}", "decided_at": 7}}'.encode())
    listener = DecisionListener(settings)
    key = DECISION.account_id.encode()
    async with listening(listener), Publisher(settings) as publisher:
        with listener.expect(DECISION.decision_id) as heard:
            # Of one account, so in order on one partition: when the decision is heard, it has passed the others.
            await publisher.publish([Outgoing(DECISIONS, key, value) for value in (*foreign, encode(DECISION))])
            assert await asyncio.wait_for(heard, 10) == DECISION


async def test_a_new_connection_hears_what_was_published_in_between(settings: Settings) -> None:
    """Requests that wait through a reconnection get their decision, though it came while nobody listened."""
    listener = DecisionListener(settings)
    async with listening(listener):
        waiting = listener.expect("missed")
        missed = waiting.__enter__()
    await publish(settings, DECISION.model_copy(update={"decision_id": "missed"}))
    assert not missed.done()
    async with listening(listener):
        assert (await asyncio.wait_for(missed, 10)).decision_id == "missed"
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
