"""Between those who want scores and one engine: earliest deadline first, in passes that end in time.

A pass starts as soon as the engine is idle and never waits for company; how much goes into it is what the engine, at
its measured rate, does in `pass_s`. What cannot be scored before its deadline is refused at once, so that the caller
can decide without it. What is asked aside, for no decision, is read when nothing else waits, in passes so short that
what comes meanwhile hardly waits. Knows one event loop, one thread and tokens by number; knows no torch.
"""

import asyncio
import heapq
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Protocol

from fraudguard.domain import Score, ScoreRequest
from fraudguard.engine.tokenizer import LineTokenizer

TOKENS_FIRST: Final = 1_024  # of a pass, as long as the rate is not known
RATE_MEMORY: Final = 0.8  # how much of the measured rate is the past's, at every pass
ASIDE_SHARE: Final = 0.25  # of a pass's tokens, for what is asked aside
SHORTEST_GROWS: Final = 1.02  # the shortest pass is forgotten at this pace


class BlockingEngine(Protocol):
    """engine/engine.py's Engine or engine/remote.py's RemoteEngine, as seen from here."""

    @property
    def name(self) -> str:
        """name@version+precision."""
        ...

    @property
    def tokenizer(self) -> LineTokenizer:
        """How its release tokenizes lines."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order; blocks."""
        ...

    def new_tokens(self, request: ScoreRequest) -> int:
        """About how many tokens scoring it would read; at least 1. Callable while `score` runs."""
        ...


@dataclass(order=True, slots=True)
class _Job:
    aside: bool
    due: float  # the event loop's time; infinite without a deadline
    number: int
    tokens: int = field(compare=False)
    request: ScoreRequest = field(compare=False)
    answer: "asyncio.Future[Score | None]" = field(compare=False)


class Batcher:
    """One engine's queue. All of it runs on one event loop; the engine on a thread of its own."""

    def __init__(self, engine: BlockingEngine, *, pass_s: float, queue_max: int) -> None:
        """pass_s: how long a pass should take. queue_max: how many requests may wait."""
        self._engine, self._pass_s, self._queue_max = engine, pass_s, queue_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._queue: list[_Job] = []
        self._numbers = count()
        self._running: asyncio.Task[None] | None = None
        self._running_until = 0.0  # when the pass under way should end, by the event loop's time
        self._rate: float | None = None  # tokens/s
        self._shortest = math.inf  # seconds of a pass, however small

    @property
    def name(self) -> str:
        """The engine's."""
        return self._engine.name

    @property
    def busy(self) -> bool:
        """Whether a pass is under way, also one that nobody waits for any more."""
        return self._running is not None

    async def score(
        self, requests: Sequence[ScoreRequest], patience_s: Sequence[float] | None = None, *, aside: bool = False
    ) -> list[Score | None]:
        """One score a request, in order; None for one that cannot be had within its patience (None: any time will do).

        aside: for no decision, so behind all that is for one. None for all of them when the queue is too full to take
        them. Raises what the engine raises.
        """
        waiting = [job for job in self._queue if not job.answer.done()]  # without those whose callers have given up
        if sum(aside or not job.aside for job in waiting) + len(requests) > self._queue_max:
            return [None] * len(requests)
        loop = asyncio.get_running_loop()
        now = loop.time()
        jobs = [
            _Job(
                aside, now + (patience_s[place] if patience_s else math.inf), next(self._numbers),
                self._tokens(requests, place), request, loop.create_future(),
            )
            for place, request in enumerate(requests)
        ]  # fmt: skip
        self._admit([*waiting, *jobs], now)
        if self._queue and self._running is None:
            self._running = loop.create_task(self._run())
        return await asyncio.gather(*(job.answer for job in jobs))

    def _tokens(self, requests: Sequence[ScoreRequest], place: int) -> int:
        """What one of them adds to read: a timeline that the one before has too is read once."""
        request = requests[place]
        if place and request.timeline is requests[place - 1].timeline:
            return 1
        return self._engine.new_tokens(request)

    def _admit(self, jobs: Sequence[_Job], now: float) -> None:
        """Queue all that wait, and refuse those whose deadline the work before them leaves no time for.

        An idle engine takes the first in any case: a rate that was measured in a bad moment must not refuse for ever.
        """
        until = max(now, self._running_until)
        kept: list[_Job] = []
        for job in sorted(jobs):
            until_then = until + (job.tokens / self._rate if self._rate else 0.0)
            if job.due <= now or (until_then > job.due and (kept or self._running)):
                _settle(job, None)
            else:
                kept.append(job)
                until = until_then
        self._queue = kept  # sorted, so it is a heap

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while jobs := self._next_pass(loop.time()):
                began = loop.time()
                tokens = sum(job.tokens for job in jobs)
                self._running_until = began + (tokens / self._rate if self._rate else self._pass_s)
                try:
                    requests = [job.request for job in jobs]
                    scores = await loop.run_in_executor(self._thread, self._engine.score, requests)
                except Exception as error:
                    for job in jobs:
                        if not job.answer.done():
                            job.answer.set_exception(error)
                    continue
                if not jobs[0].aside:  # those continue each other from pass to pass, so their tokens are overrated
                    self._learn(tokens, loop.time() - began)
                for job, score in zip(jobs, scores, strict=True):
                    _settle(job, score)
        finally:
            self._running, self._running_until = None, 0.0

    def _learn(self, tokens: int, seconds: float) -> None:
        """A small pass is mostly overhead and says too little: it can raise the rate and not lower it."""
        self._shortest = min(seconds, self._shortest * SHORTEST_GROWS)
        rate = tokens / max(seconds, 1e-6)
        if self._rate is None:
            self._rate = rate if tokens >= self._budget / 2 else None
        elif rate > self._rate or tokens >= self._budget / 2:
            self._rate = RATE_MEMORY * self._rate + (1 - RATE_MEMORY) * rate

    @property
    def _budget(self) -> float:
        """Tokens of one pass.

        Where a pass takes longer than it should whatever is in it, smaller ones would only be more: then as many tokens
        as make up half of its time.
        """
        return self._rate * max(self._pass_s, 2 * self._shortest) if self._rate else TOKENS_FIRST

    def _next_pass(self, now: float) -> list[_Job]:
        """What to score now, earliest deadline first; leaves out what is too late or no longer wanted.

        What is asked aside never shares a pass with what is not.
        """
        budget = self._budget
        jobs: list[_Job] = []
        while self._queue and (not jobs or (self._queue[0].tokens <= budget and self._queue[0].aside == jobs[0].aside)):
            job = heapq.heappop(self._queue)
            if job.answer.done():
                continue
            if job.due < now:
                _settle(job, None)
                continue
            if not jobs and job.aside:
                budget *= ASIDE_SHARE
            jobs.append(job)
            budget -= job.tokens
        return jobs

    def swap(self, engine: BlockingEngine) -> None:
        """Score with this engine from the next pass on; what is under way ends with the old one."""
        self._engine = engine

    def close(self) -> None:
        """Let the thread go without waiting for a stuck call."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _settle(job: _Job, score: Score | None) -> None:
    if not job.answer.done():  # the caller may have given up
        job.answer.set_result(score)
