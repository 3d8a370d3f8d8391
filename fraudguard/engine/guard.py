"""The engine as the service calls it: off the event loop, in bounded time, behind a circuit breaker.

Knows no torch. Every way to fail comes out as EngineUnavailable; the caller degrades by policy.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from circuitbreaker import CircuitBreaker, CircuitBreakerError

from fraudguard.domain import Score, ScoreRequest
from fraudguard.errors import EngineUnavailable


class BlockingEngine(Protocol):
    """engine/engine.py's Engine or engine/remote.py's RemoteEngine, as seen from here."""

    @property
    def name(self) -> str:
        """name@version+precision."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order; blocks."""
        ...


class GuardedEngine:
    """Scores on one thread of its own with a timeout.

    After failures_max failures in a row the circuit opens: calls fail at once for retry_s, then one may try.
    A call that timed out still occupies the thread, so a stuck engine keeps the circuit open.
    """

    def __init__(self, engine: BlockingEngine, *, timeout_s: float, failures_max: int, retry_s: float) -> None:
        self._engine, self._timeout_s = engine, timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._circuit = CircuitBreaker(failures_max, retry_s, name="engine")

    @property
    def name(self) -> str:
        """name@version+precision."""
        return self._engine.name

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order. Raises EngineUnavailable on error, timeout or an open circuit."""
        if self._circuit.opened:
            raise EngineUnavailable(str(CircuitBreakerError(self._circuit)))
        try:
            scores: list[Score] = await self._circuit.call_async(self._call, requests)
            return scores
        except TimeoutError as error:
            raise EngineUnavailable(f"no score within {self._timeout_s} s") from error
        except EngineUnavailable:
            raise
        except Exception as error:
            raise EngineUnavailable(f"{type(error).__name__}: {error}") from error

    async def _call(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s):
            return await loop.run_in_executor(self._thread, self._engine.score, requests)

    def close(self) -> None:
        """Release the thread without waiting for a stuck call."""
        self._thread.shutdown(wait=False, cancel_futures=True)
