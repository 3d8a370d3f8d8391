"""A blocking reading that many ask for: one at a time, off the event loop, kept for some seconds.

Knows no Kafka; whoever asks while it runs gets the same answer, and nobody waits longer than WAIT_S.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from fraudguard.clock import Clock
from fraudguard.errors import BrokerUnavailable

KEEP_S: Final = 4.0
WAIT_S: Final = 5.0

T = TypeVar("T")


class Watch(Generic[T]):
    """`read` runs in a thread. What it raises is kept as long as what it returns: nobody hammers what is away."""

    def __init__(self, read: Callable[[], T], clock: Clock) -> None:
        self._read, self._clock = read, clock
        self._running: asyncio.Task[T] | None = None
        self._begun = 0.0

    async def see(self) -> T:
        """The newest reading, at most KEEP_S old when it was asked for. Raises what read does, BrokerUnavailable."""
        now = self._clock.monotonic()
        if self._running is None or (self._running.done() and now - self._begun >= KEEP_S):
            self._begun = now
            self._running = asyncio.create_task(asyncio.to_thread(self._read))
            self._running.add_done_callback(_heard)
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(self._running)
        except TimeoutError as error:
            raise BrokerUnavailable(f"Kafka does not answer within {WAIT_S:.0f} s") from error

    def forget(self) -> None:
        """The next one who asks gets a new reading."""
        if self._running is not None and self._running.done():
            self._running = None


def _heard(task: "asyncio.Task[T]") -> None:
    """A reading that nobody waited for to its end may fail without a complaint of asyncio's."""
    if not task.cancelled():
        task.exception()
