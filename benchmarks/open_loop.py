"""Goodput: events come when they come, and the rate counts at which 99 of 100 are answered in time.

Arrivals are a Poisson process; an event's latency runs from the moment it was due, so that a server which falls behind
cannot slow the clock down (no coordinated omission). Knows an event loop and a serving coroutine; knows no engine.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.peers import Peer
from benchmarks.workloads import Event

QUANTILE: Final = 0.99
EVENTS_MIN: Final = 200  # of a rate that is tried: a p99 of fewer says nothing
DRAIN_S: Final = 2.0  # how long the last answers may take before they count as never
STEPS: Final = tuple(np.arange(0.1, 1.51, 0.1).round(1).tolist())  # of the engine's own rate in full batches

# Which of the events were answered.
Serve = Callable[[Sequence[Event]], Awaitable[Sequence[bool]]]


@dataclass(frozen=True, slots=True)
class Offered:
    """What came of a rate. latencies_s: of each event from when it was due; infinite if it was never answered."""

    rate: float
    latencies_s: npt.NDArray[np.float64]

    def quantile_s(self, quantile: float) -> float:
        """A latency that so many do not exceed; infinite as soon as it falls among the unanswered."""
        return float(np.quantile(self.latencies_s, quantile, method="higher"))


async def offer(serve: Serve, events: Sequence[Event], rate: float, seconds: float, seed: int) -> Offered:
    """Offer the events, over and over, at so many a second. Those that are due together are handed over together."""
    loop = asyncio.get_running_loop()
    count = max(EVENTS_MIN, round(rate * seconds))
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    latencies = np.full(count, np.inf)
    began = loop.time()

    async def serve_some(first: int, after: int) -> None:
        answered = await serve([events[number % len(events)] for number in range(first, after)])
        latencies[first:after] = np.where(answered, loop.time() - began - due[first:after], np.inf)

    served: list[asyncio.Task[None]] = []
    handed = 0
    while handed < count:
        await asyncio.sleep(max(0.0, began + due[handed] - loop.time()))
        after = int(np.searchsorted(due, loop.time() - began, side="right"))
        if after > handed:
            served.append(loop.create_task(serve_some(handed, after)))
            handed = after
    done, late = await asyncio.wait(served, timeout=DRAIN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()  # an engine that failed is no slow engine
    return Offered(rate, latencies)


async def goodput(
    serve: Serve, events: Sequence[Event], full_rate: float, seconds: float, latency_max_s: float
) -> Offered | None:
    """The highest rate, rising in tenths of full_rate, before the first whose p99 is above latency_max_s."""
    await offer(serve, events, full_rate * STEPS[-1], seconds / 2, seed=0)  # warm-up: a batcher learns its rate
    best = None
    for number, step in enumerate(STEPS, start=1):
        found = await offer(serve, events, full_rate * step, seconds, seed=number)
        if found.quantile_s(QUANTILE) > latency_max_s:
            break
        best = found
    return best


class Waiting:
    """Serves a peer that has no batcher of its own: as soon as it is idle it reads what waits, first come first."""

    def __init__(self, peer: Peer, batch_max: int) -> None:
        self._peer, self._batch_max = peer, batch_max
        self._thread = ThreadPoolExecutor(1)
        self._queue: list[tuple[Event, asyncio.Future[bool]]] = []
        self._running: asyncio.Task[None] | None = None

    async def serve(self, events: Sequence[Event]) -> Sequence[bool]:
        """All of them are answered, some time."""
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[bool]] = [loop.create_future() for _ in events]
        self._queue += zip(events, answers, strict=True)
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await asyncio.gather(*answers)

    async def _run(self) -> None:
        try:
            while self._queue:
                taken, self._queue = self._queue[: self._batch_max], self._queue[self._batch_max :]
                wanted = [(event, answer) for event, answer in taken if not answer.done()]
                if not wanted:
                    continue
                try:
                    events = [event for event, _ in wanted]
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._peer.read, events)
                except Exception as error:
                    for _, answer in wanted:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for _, answer in wanted:
                    if not answer.done():
                        answer.set_result(True)
        finally:
            self._running = None

    def close(self) -> None:
        """End its thread."""
        self._thread.shutdown()
