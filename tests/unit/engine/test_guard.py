"""The engine behind its thread, timeout and circuit breaker."""

import threading
from collections.abc import Callable, Sequence

import pytest

from fraudguard.domain import Score, ScoreRequest, Timeline, Typology
from fraudguard.engine.batcher import Batcher
from fraudguard.engine.guard import GuardedEngine
from fraudguard.errors import EngineUnavailable

SCORE = Score(0.5, Typology.OTHER, "scripted")


class Scripted:
    """An engine that does what the test says; counts its calls."""

    name = "scripted"

    def __init__(self, behaviour: Callable[[], None]) -> None:
        self.behaviour, self.calls = behaviour, 0

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Count, behave, answer."""
        self.calls += 1
        self.behaviour()
        return [SCORE for _ in requests]

    def new_tokens(self, request: ScoreRequest) -> int:
        """One each."""
        return 1


def guard(engine: Scripted, *, timeout_s: float = 5.0, failures_max: int) -> GuardedEngine:
    """The engine behind its queue and its circuit."""
    return GuardedEngine(
        Batcher(engine, pass_s=0.1, queue_max=10), timeout_s=timeout_s, failures_max=failures_max, retry_s=60
    )


REQUEST = ScoreRequest(Timeline("a-1", 1, ()), {})


def fails() -> None:
    """What a GPU says on a bad day."""
    raise RuntimeError("CUDA out of memory")


async def test_failures_open_the_circuit() -> None:
    """After failures_max failures the engine is no longer called, and the caller is told at once."""
    engine = Scripted(fails)
    guarded = guard(engine, failures_max=3)
    for _ in range(3):
        with pytest.raises(EngineUnavailable, match="CUDA out of memory"):
            await guarded.score([REQUEST])
    with pytest.raises(EngineUnavailable, match="OPEN"):
        await guarded.score([REQUEST])
    assert engine.calls == 3
    guarded.close()


async def test_a_success_closes_the_circuit_again() -> None:
    """Once the engine answers, single failures no longer add up to an open circuit."""
    engine = Scripted(fails)
    guarded = guard(engine, failures_max=2)
    for _ in range(4):
        engine.behaviour = fails
        with pytest.raises(EngineUnavailable, match="CUDA"):
            await guarded.score([REQUEST])
        engine.behaviour = lambda: None
        assert await guarded.score([REQUEST]) == [SCORE]
    guarded.close()


async def test_a_stuck_engine_costs_the_timeout_and_no_more() -> None:
    """A call that never returns is given up after timeout_s."""
    release = threading.Event()
    guarded = guard(Scripted(lambda: release.wait(30)), timeout_s=0.05, failures_max=1)
    try:
        with pytest.raises(EngineUnavailable, match=r"no score within 0.05 s"):
            await guarded.score([REQUEST])
        with pytest.raises(EngineUnavailable, match="OPEN"):
            await guarded.score([REQUEST])
    finally:
        release.set()
        guarded.close()


async def test_what_is_asked_aside_moves_no_circuit() -> None:
    """However often it fails, decisions are still scored; while the circuit is open it is refused at once."""
    engine = Scripted(fails)
    guarded = guard(engine, failures_max=1)
    for _ in range(3):
        with pytest.raises(EngineUnavailable, match="CUDA out of memory"):
            await guarded.score_aside([REQUEST])
    engine.behaviour = lambda: None
    assert await guarded.score([REQUEST]) == [SCORE]
    engine.behaviour = fails
    with pytest.raises(EngineUnavailable, match="CUDA out of memory"):
        await guarded.score([REQUEST])
    with pytest.raises(EngineUnavailable, match="OPEN"):
        await guarded.score_aside([REQUEST])
    assert engine.calls == 5
    guarded.close()
