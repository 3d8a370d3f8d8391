"""The engine as the service calls it: off the event loop, in bounded time, behind a circuit breaker.

Knows no torch. Every way to fail comes out as EngineUnavailable; the caller degrades by policy.
"""

import asyncio
from collections.abc import Sequence

from circuitbreaker import CircuitBreaker, CircuitBreakerError

from fraudguard.domain import Score, ScoreRequest
from fraudguard.engine.batcher import Batcher
from fraudguard.errors import EngineUnavailable


class GuardedEngine:
    """Scores within timeout_s.

    After failures_max failures in a row the circuit opens: calls fail at once for retry_s, then one may try.
    A call that timed out still occupies the engine's thread, so a stuck engine keeps the circuit open.
    """

    def __init__(self, batcher: Batcher, *, timeout_s: float, failures_max: int, retry_s: float) -> None:
        self.batcher, self._timeout_s = batcher, timeout_s
        self._circuit = CircuitBreaker(failures_max, retry_s, name="engine")

    @property
    def name(self) -> str:
        """name@version+precision."""
        return self.batcher.name

    async def score(
        self, requests: Sequence[ScoreRequest], patience_s: Sequence[float] | None = None
    ) -> list[Score | None]:
        """One score a request, in order; None for one that cannot be had within its patience.

        Raises EngineUnavailable on error, timeout or an open circuit.
        """
        if self._circuit.opened:
            raise EngineUnavailable(str(CircuitBreakerError(self._circuit)))
        try:
            scores: list[Score | None] = await self._circuit.call_async(self._call, requests, patience_s)
            return scores
        except TimeoutError as error:
            raise EngineUnavailable(f"no score within {self._timeout_s} s") from error
        except EngineUnavailable:
            raise
        except Exception as error:
            raise EngineUnavailable(f"{type(error).__name__}: {error}") from error

    async def _call(self, requests: Sequence[ScoreRequest], patience_s: Sequence[float] | None) -> list[Score | None]:
        async with asyncio.timeout(self._timeout_s):
            return await self.batcher.score(requests, patience_s)

    async def score_aside(self, requests: Sequence[ScoreRequest]) -> list[Score | None]:
        """Scores for no decision, behind all that is for one; None for all of them when the queue is full.

        How it ends says nothing about the circuit: under load it may well time out. Raises EngineUnavailable.
        """
        if self._circuit.opened:
            raise EngineUnavailable(str(CircuitBreakerError(self._circuit)))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self.batcher.score(requests, aside=True)
        except TimeoutError as error:
            raise EngineUnavailable(f"no time to read aside within {self._timeout_s} s") from error
        except Exception as error:
            raise EngineUnavailable(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Let the engine's thread go without waiting for a stuck call."""
        self.batcher.close()
