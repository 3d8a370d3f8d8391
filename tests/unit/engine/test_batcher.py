"""The batcher: earliest deadline first, at once when idle, refusals in time, and no request lost or mixed up."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.domain import Line, Score, ScoreRequest, Timeline, Typology
from fraudguard.engine.batcher import TOKENS_FIRST, Batcher

AT = datetime(2026, 11, 21, 10, tzinfo=UTC)


def request(name: str, tokens: int = 1) -> ScoreRequest:
    """A request that the engine below takes for so many tokens."""
    return ScoreRequest(Timeline(name, 1, (Line("message", AT, "x" * tokens),)), {})


class Counting:
    """An engine that waits for leave, counts its passes, and gives each account's name back as the model's."""

    name = "counting"

    def __init__(self, *, open_gate: bool = True) -> None:
        self.passes: list[list[str]] = []
        self.started, self.gate = threading.Event(), threading.Event()
        if open_gate:
            self.gate.set()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Note who was asked for, wait for leave, answer."""
        self.passes.append([one.timeline.account_id for one in requests])
        self.started.set()
        assert self.gate.wait(30)
        return [Score(0.5, Typology.OTHER, one.timeline.account_id) for one in requests]

    def new_tokens(self, request: ScoreRequest) -> int:
        """As long as its line."""
        return len(request.timeline.lines[0].text)


def names(scores: Sequence[Score | None]) -> list[str | None]:
    """Whose scores they are."""
    return [score and score.model for score in scores]


async def occupied(batcher: Batcher, engine: Counting) -> "asyncio.Task[list[Score | None]]":
    """The engine busy with one request until its gate is opened."""
    task = asyncio.ensure_future(batcher.score([request("first")]))
    assert await asyncio.to_thread(engine.started.wait, 30)
    return task


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.lists(st.integers(1, 700), max_size=6), min_size=1, max_size=6))
def test_everybody_gets_their_own_scores(sizes: list[list[int]]) -> None:
    """However many ask at once and however large: each answer in order, each request in one pass."""

    async def run() -> None:
        engine = Counting()
        batcher = Batcher(engine, pass_s=0.1, queue_max=1000)
        asked = [[request(f"{k}-{n}", tokens) for n, tokens in enumerate(of)] for k, of in enumerate(sizes)]
        answers = await asyncio.gather(*(batcher.score(requests) for requests in asked))
        for requests, scores in zip(asked, answers, strict=True):
            assert names(scores) == [one.timeline.account_id for one in requests]
        scored = [name for names_of_pass in engine.passes for name in names_of_pass]
        assert sorted(scored) == sorted(one.timeline.account_id for requests in asked for one in requests)
        batcher.close()

    asyncio.run(run())


async def test_an_idle_engine_starts_at_once_and_the_earliest_deadline_goes_first() -> None:
    """The first does not wait for company; of those that came meanwhile the most urgent is read before the others."""
    engine = Counting(open_gate=False)
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    first = await occupied(batcher, engine)
    large = TOKENS_FIRST - 10
    rest = asyncio.ensure_future(
        batcher.score([request("b", large), request("a", large), request("c", large)], [60.0, 30.0, 90.0])
    )
    await asyncio.sleep(0)
    engine.gate.set()
    assert names(await first) == ["first"]
    assert names(await rest) == ["b", "a", "c"]
    assert [name for of_pass in engine.passes for name in of_pass] == ["first", "a", "b", "c"]
    batcher.close()


async def test_a_pass_holds_what_the_budget_allows() -> None:
    """Small requests go together, never beyond the budget; one that is larger goes alone."""
    engine = Counting(open_gate=False)
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    first = await occupied(batcher, engine)
    third = TOKENS_FIRST // 3
    rest = asyncio.ensure_future(batcher.score([request(str(n), third) for n in range(4)]))
    await asyncio.sleep(0)
    huge = asyncio.ensure_future(batcher.score([request("huge", 5 * TOKENS_FIRST)]))
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, rest, huge)
    assert engine.passes[:2] == [["first"], ["0", "1", "2"]]
    assert engine.passes[-1][-1] == "huge"
    batcher.close()


async def test_what_cannot_be_had_in_time_is_refused_before_it_is_scored() -> None:
    """No patience left: None, and the engine never hears of it; the others of the batch are scored."""
    engine = Counting()
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    scores = await batcher.score([request("late"), request("fine")], [-1.0, 60.0])
    assert names(scores) == [None, "fine"]
    assert engine.passes == [["fine"]]
    batcher.close()


async def test_admission_goes_by_the_measured_rate() -> None:
    """Once the rate is known, what stands behind too much work is refused at once, while it can still be decided."""
    engine = Counting()
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    await batcher.score([request("warm", TOKENS_FIRST)])
    batcher._rate = 1000.0  # tokens/s, whatever this machine did
    engine.gate.clear()
    engine.started.clear()
    first = await occupied(batcher, engine)
    soon = asyncio.ensure_future(batcher.score([request("soon", 500), request("behind", 5000)], [10.0, 2.0]))
    await asyncio.sleep(0)
    engine.gate.set()
    assert names(await soon) == ["soon", None]
    await first
    batcher.close()


async def test_a_rate_from_a_bad_moment_refuses_nobody_for_ever() -> None:
    """An idle engine takes the next request in any case, and its speed corrects the rate."""
    engine = Counting()
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    batcher._rate = 0.001
    for _ in range(3):
        assert names(await batcher.score([request("a", 10)], [5.0])) == ["a"]
    assert batcher._rate > 1
    batcher.close()


@given(
    fixed_s=st.floats(0.001, 1.0),
    rate=st.floats(100, 2e4),
    small=st.lists(st.integers(1, 50), min_size=40, max_size=40),
)
def test_the_budget_fits_the_pass_and_does_not_collapse(fixed_s: float, rate: float, small: list[int]) -> None:
    """A pass costs fixed_s and its tokens: it ends near pass_s, or takes about twice what it costs anyway."""
    batcher = Batcher(Counting(), pass_s=0.1, queue_max=1)
    for tokens in small:
        for taken in (max(1, batcher._budget), tokens):  # as much as it may, then next to nothing
            batcher._learn(taken, fixed_s + taken / rate)
    want = max(0.1 - fixed_s, fixed_s) * rate
    assert 0.6 * want - 50 <= batcher._budget <= 1.5 * want + 150
    batcher.close()


async def test_a_full_queue_refuses_and_stays_bounded() -> None:
    """More than may wait is refused at once; what waits is served."""
    engine = Counting(open_gate=False)
    batcher = Batcher(engine, pass_s=0.1, queue_max=2)
    first = await occupied(batcher, engine)
    waiting = asyncio.ensure_future(batcher.score([request("b"), request("c")]))
    await asyncio.sleep(0)
    assert await batcher.score([request("d")]) == [None]
    engine.gate.set()
    assert names(await first) == ["first"]
    assert names(await waiting) == ["b", "c"]
    batcher.close()


async def test_callers_who_gave_up_take_no_place_in_the_queue() -> None:
    """However many were cancelled while the engine was stuck, new ones are taken."""
    engine = Counting(open_gate=False)
    batcher = Batcher(engine, pass_s=0.1, queue_max=2)
    first = await occupied(batcher, engine)
    for _ in range(5):
        gone = asyncio.ensure_future(batcher.score([request("gone"), request("gone")]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
    stays = asyncio.ensure_future(batcher.score([request("stays")]))
    await asyncio.sleep(0)
    engine.gate.set()
    assert names(await first) == ["first"]
    assert names(await stays) == ["stays"]
    batcher.close()


async def test_a_failed_pass_fails_its_own_requests_only() -> None:
    """The next pass is scored as if nothing had been."""
    engine = Counting()
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    engine.name = "x"
    real, engine.score = engine.score, lambda requests: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        await batcher.score([request("a"), request("b")])
    engine.score = real  # type: ignore[method-assign]
    assert names(await batcher.score([request("c")])) == ["c"]
    batcher.close()


async def test_who_gives_up_is_not_scored() -> None:
    """A caller that was cancelled leaves the queue."""
    engine = Counting(open_gate=False)
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    first = await occupied(batcher, engine)
    gone = asyncio.ensure_future(batcher.score([request("gone")]))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    stays = asyncio.ensure_future(batcher.score([request("stays")]))
    await asyncio.sleep(0)
    engine.gate.set()
    await first
    assert names(await stays) == ["stays"]
    assert engine.passes == [["first"], ["stays"]]
    batcher.close()


async def test_a_swapped_engine_takes_over_and_nobody_fails() -> None:
    """The pass under way ends with the old engine, the next one is the new one's."""
    old, new = Counting(open_gate=False), Counting()
    batcher = Batcher(old, pass_s=0.1, queue_max=100)
    first = await occupied(batcher, old)
    waiting = asyncio.ensure_future(batcher.score([request("b"), request("c")]))
    await asyncio.sleep(0)
    new.name = "new"
    batcher.swap(new)
    old.gate.set()
    assert names(await first) == ["first"]
    assert names(await waiting) == ["b", "c"]
    assert (old.passes, new.passes, batcher.name) == ([["first"]], [["b", "c"]], "new")
    batcher.close()


async def test_what_is_asked_aside_waits_for_all_that_is_not() -> None:
    """Decisions that come later go first, in passes of their own."""
    engine = Counting(open_gate=False)
    batcher = Batcher(engine, pass_s=0.1, queue_max=4)
    first = await occupied(batcher, engine)
    size = TOKENS_FIRST // 5
    aside = asyncio.ensure_future(batcher.score([request(f"aside {n}", size) for n in range(3)], aside=True))
    await asyncio.sleep(0)
    live = asyncio.ensure_future(batcher.score([request(f"live {n}", size) for n in range(4)]))  # its queue is empty
    await asyncio.sleep(0)
    assert names(await batcher.score([request("more aside")] * 2, aside=True)) == [None, None]
    engine.gate.set()
    await asyncio.gather(first, aside, live)
    assert engine.passes[:2] == [["first"], ["live 0", "live 1", "live 2", "live 3"]]
    assert [name for names in engine.passes[2:] for name in names] == ["aside 0", "aside 1", "aside 2"]
    batcher.close()


async def test_what_is_asked_aside_teaches_no_rate() -> None:
    """Its passes are short, and no measure: its timelines continue each other. One that is asked twice is read once."""
    engine = Counting()
    batcher = Batcher(engine, pass_s=0.1, queue_max=100)
    long = request("long", TOKENS_FIRST // 5)
    await batcher.score([long, replace(long, features={"hour": None}), replace(long, features={})], aside=True)
    await batcher.score([request(str(n), TOKENS_FIRST // 5) for n in range(2)], aside=True)
    assert engine.passes == [["long", "long", "long"], ["0"], ["1"]]
    assert batcher._rate is None
    batcher.close()
