"""The engine: a score depends on its own timeline and features alone, whatever it is batched with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.domain import Line, ScoreRequest, Timeline, Typology
from fraudguard.engine.attention import Span
from fraudguard.engine.engine import Engine, share
from fraudguard.engine.kv_cache import PAGE
from fraudguard.engine.loader import Loaded, load
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import open_release
from fraudguard.errors import BadModel, BadSettings
from fraudguard.features.registry import MODEL_FEATURES

AT = datetime(2026, 11, 21, 10, tzinfo=UTC)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# How far a risk may move with the batch it is in. fp32: the rounding of sums. int8: such a difference may push an
# activation over the edge between two of its 255 levels. bf16 keeps 8 bits of every sum, int4's sums are in bf16, and
# fp8's levels are a sixteenth apart.
TOLERANCE = dict.fromkeys(PRECISIONS, 0.002) | {"fp32": 1e-5, "bf16": 2e-2, "int4": 2e-2, "fp8": 5e-2}
# How far the starter's risks may move from fp32's: at most, and on average.
MOVED = dict.fromkeys(PRECISIONS, (0.05, 0.01)) | {"int4": (0.1, 0.02), "fp8": (0.1, 0.02)}
torch.set_num_threads(1)
LOADED = {precision: load(open_release("starter"), precision) for precision in PRECISIONS}
ENGINES = {precision: Engine(f"starter@0+{precision}", LOADED[precision]) for precision in PRECISIONS}
SEEN = ["customer: 急用钱，先转到安全账户", "[pay out CNY 50,000 transfer new payee]", "agent: how can I help?"]
LINES = st.one_of(st.sampled_from(SEEN), st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
NUMBERS = st.dictionaries(st.sampled_from(MODEL_FEATURES), st.floats(0, 100_000, width=32), max_size=8)


def request(lines: list[str], numbers: dict[str, float] | None = None) -> ScoreRequest:
    """A timeline of these lines with these features, the others missing."""
    timeline = Timeline("a-1", 1, tuple(Line("message", AT, text) for text in lines))
    return ScoreRequest(timeline, dict.fromkeys(MODEL_FEATURES) | (numbers or {}))


REQUESTS = st.lists(st.builds(request, st.lists(LINES, min_size=1, max_size=6), NUMBERS), min_size=1, max_size=8)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=25, deadline=None)
@given(requests=REQUESTS, order=st.randoms(use_true_random=False))
def test_packed_is_one_by_one(precision: Precision, requests: list[ScoreRequest], order: object) -> None:
    """Any batch in any order gives each request the score it gets alone."""
    engine = ENGINES[precision]
    alone = [engine.score([one])[0] for one in requests]
    places = list(range(len(requests)))
    order.shuffle(places)  # type: ignore[attr-defined]  # hypothesis's Random
    packed = engine.score([requests[place] for place in places])
    for place, score in zip(places, packed, strict=True):
        assert score.risk == pytest.approx(alone[place].risk, abs=TOLERANCE[precision])
        assert 0 <= score.risk <= 1
        assert isinstance(score.typology, Typology)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sharing_a_prefix_changes_no_score(precision: Precision) -> None:
    """The events of one account in one batch are read from one pass, as if each had been run alone."""
    engine = ENGINES[precision]
    lines = [f"{SEEN[n % 3]} {n}" for n in range(12)]
    growing = [request(lines[: n + 1]) for n in range(12)]
    shared = engine.score(growing)
    for one, score in zip(growing, shared, strict=True):
        assert score.risk == pytest.approx(engine.score([one])[0].risk, abs=TOLERANCE[precision])
    assert len({score.risk for score in shared}) > 6


def test_the_same_batch_scores_the_same() -> None:
    """Bit for bit, where the same timelines are kept."""
    requests = [request(SEEN[: n % 3 + 1], {"amount_base": 10.0 * n}) for n in range(30)]
    one, other = (Engine("same", LOADED["int8"], 1 << 24) for _ in range(2))
    assert one.score(requests) == other.score(requests)
    assert one.score(requests) == other.score(requests)


def test_no_requests_no_scores() -> None:
    """An empty batch is fine."""
    assert ENGINES["fp32"].score([]) == []


def test_text_and_numbers_both_count() -> None:
    """The risk moves with the timeline and with a feature."""
    engine = ENGINES["fp32"]
    base, other_text, other_number = engine.score(
        [
            request(["customer: hello"], {"transfers_1d": 0}),
            request(["counterparty: 转到安全账户"], {"transfers_1d": 0}),
            request(["customer: hello"], {"transfers_1d": 12}),
        ]
    )
    assert len({base.risk, other_text.risk, other_number.risk}) == 3


def test_a_longer_timeline_is_read_from_its_end() -> None:
    """Of more than tokens_max tokens the last are read; what stands before them changes nothing."""
    engine = ENGINES["fp32"]
    tail = [f"customer: {n} {SEEN[0]}" for n in range(40)]
    assert sum(map(engine.tokenizer.count, tail)) > engine.tokens_max
    first, second = engine.score([request(["customer: a", *tail]), request(["agent: quite another beginning", *tail])])
    assert first.risk == pytest.approx(second.risk, abs=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_less_precision_is_close_to_full(precision: Precision) -> None:
    """It moves the starter's risks by no more than MOVED."""
    requests = [
        request([f"{SEEN[n % 3]} {n}", SEEN[(n + 1) % 3]], {"amount_base": 700.0 * n, "transfers_1d": n % 11})
        for n in range(60)
    ]
    pairs = zip(ENGINES["fp32"].score(requests), ENGINES[precision].score(requests), strict=True)
    moved = [abs(full.risk - quantized.risk) for full, quantized in pairs]
    most, mean = MOVED[precision]
    assert max(moved) <= most
    assert sum(moved) / len(moved) < mean


def test_the_name_says_release_and_precision() -> None:
    """As written on every decision."""
    engine = Engine.load("starter", "int8", 1)
    assert engine.name.startswith("starter@")
    assert engine.name.endswith("+int8")
    assert engine.score([request(["a"])])[0].model == engine.name


@pytest.mark.parametrize("shape", ["qwen25", "r1_distill"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int8-asymmetric"])
def test_other_checkpoints_score_with_the_same_code(
    ready_releases: Callable[[str], Path],
    ask: Callable[..., ScoreRequest],
    texts: list[str],
    shape: str,
    precision: Precision,
) -> None:
    """Grouped heads, untied embeddings, another vocabulary and a beginning-of-text token: packed is one by one too."""
    engine = Engine.load(ready_releases(shape), precision)
    requests = [ask(*texts[: n % 3 + 1], str(n)) for n in range(9)]
    alone = [engine.score([one])[0].risk for one in requests]
    assert [score.risk for score in engine.score(requests)] == pytest.approx(alone, abs=TOLERANCE[precision])
    assert len(set(alone)) == 9


def test_missing_features_are_refused(ready_releases: Callable[[str], Path], ask: Callable[..., ScoreRequest]) -> None:
    """A head made for another registry says which feature it wants."""
    engine = Engine.load(ready_releases("starter"), "fp32")
    with pytest.raises(BadModel, match="reads a feature 'amount_base'"):
        engine.score([ask("a", features={"is_new_counterparty": True, "transfers_1d": 1})])


TIMELINES = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(timelines=TIMELINES)
def test_shared_readings_cover_everything_once(timelines: list[tuple[str, tuple[int, ...]]]) -> None:
    """Each timeline is read once, from a run of its account that begins with it, and no run begins another."""
    runs = share(timelines)
    read = [(run, end, index) for run in runs for end, indices in run.readings.items() for index in indices]
    assert sorted(index for _, _, index in read) == list(range(len(timelines)))
    assert all(timelines[index] == (run.key, run.ids[: end + 1]) for run, end, index in read)
    assert not any(a is not b and a.key == b.key and b.ids[: len(a.ids)] == a.ids for a in runs for b in runs)


class Lives:
    """Accounts whose timelines grow line by line and are cut as the features room cuts them."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}

    def grow(self, account: str, text: str) -> ScoreRequest:
        """One more line; of more than eight the oldest four go."""
        lines = self.lines.setdefault(account, [])
        lines.append(text)
        if len(lines) > 8:
            del lines[:4]
        timeline = Timeline(account, 1, tuple(Line("message", AT, line) for line in lines))
        return ScoreRequest(timeline, dict.fromkeys(MODEL_FEATURES) | {"transfers_1d": len(lines)})


def after_a_prefix(precision: Precision, tokens: int) -> Loaded:
    """The starter, with so many tokens to read before every timeline."""
    ids = LOADED[precision].tokenizer.encode_prefix(
        "You watch the payments and the messages of one account. 急用钱\n" * 9
    )
    assert len(ids) >= tokens
    return replace(LOADED[precision], prefix=ids[:tokens])


@torch.inference_mode()
def from_scratch(loaded: Loaded, batch: Sequence[ScoreRequest]) -> list[float]:
    """Each timeline and what comes before it, read alone, at once, into a pool of its own."""
    risks = []
    for one in batch:
        own = loaded.tokenizer.encode_timeline(one.timeline, loaded.head.spec.tokens_max)
        ids = (*loaded.prefix, *own)
        span = Span(0, np.arange(len(ids)), [len(ids) - 1])
        hidden = loaded.backbone(torch.tensor(ids), [span], loaded.backbone.new_pool(len(ids)))
        risks.append(loaded.head.scores(hidden.float(), [one.features], [own], "scratch")[0].risk)
    return risks


@contextmanager
def counting(engine: Engine) -> Iterator[list[int]]:
    """The tokens of each pass that the engine's base runs meanwhile."""
    counted: list[int] = []
    forward = engine._backbone.forward
    with patch.object(
        engine._backbone, "forward", lambda ids, *rest: (counted.append(len(ids)), forward(ids, *rest))[1]
    ):
        yield counted


BATCHES = st.lists(st.tuples(st.sampled_from("abcd"), LINES), min_size=1, max_size=6)
# What is forgotten before a batch: of which account, and where.
DROPS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["_cache", "_host"])), max_size=2)
STEPS = st.lists(st.tuples(BATCHES, DROPS), min_size=1, max_size=10)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=40, deadline=None)
@given(
    steps=STEPS,
    prefix=st.sampled_from([0, 1, 15, 16, 17, 100]),
    cache_bytes=st.sampled_from([0, 1 << 21, 1 << 30]),
    host_bytes=st.sampled_from([0, 100_000, 1 << 22]),
    order=st.randoms(use_true_random=False),
)
def test_a_cache_changes_no_score(
    precision: Precision,
    steps: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]],
    prefix: int,
    cache_bytes: int,
    host_bytes: int,
    order: object,
) -> None:
    """Any interleaving of growing and cut timelines, after any prefix, scores as from scratch.

    Whatever was evicted, to host memory or for good, and whatever was dropped, here or there. The smallest pool holds
    little more than one timeline of tokens_max; a place takes 1,536 bytes in fp32.
    """
    loaded = after_a_prefix(precision, prefix)
    with patch.dict("fraudguard.engine.engine.TOKENS_PER_PASS", cpu=64):
        caching = Engine("caching", loaded, cache_bytes, host_bytes)
        lives = Lives()
        for lines, drops in steps:
            for account, where in drops:
                getattr(caching, where).drop(account)
            batch = [lives.grow(account, text) for account, text in lines]
            order.shuffle(batch)  # type: ignore[attr-defined]  # hypothesis's Random
            risks = [score.risk for score in caching.score(batch)]
            assert risks == pytest.approx(from_scratch(loaded, batch), abs=TOLERANCE[precision])


def test_an_event_costs_its_own_tokens() -> None:
    """With a cache only the new line is run; without one, the whole timeline."""
    caching = Engine("e", LOADED["fp32"], 1 << 30)
    lives = Lives()
    caching.score([lives.grow("a", SEEN[0])])
    with counting(caching) as counted:
        caching.score([lives.grow("a", SEEN[1])])
    assert counted == [caching.tokenizer.count(SEEN[1])]


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 40])
def test_a_prefix_is_read_once(tokens: int) -> None:
    """When the engine is made; after that, no account's first event pays for it, nor is it counted as such."""
    loaded = after_a_prefix("fp32", tokens)
    with patch.dict("fraudguard.engine.engine.TOKENS_PER_PASS", cpu=16), counting(ENGINES["fp32"]) as counted:
        engine = Engine("e", loaded)  # of the same base
    engine.tokens_per_pass = 1_024
    assert counted == [16] * (tokens // 16) + [tokens % 16] * (tokens % 16 > 0)
    lives, cost = Lives(), engine.tokenizer.count(SEEN[0])
    for account in "abc":
        first = lives.grow(account, SEEN[0])
        assert engine.new_tokens(first) == cost
        with counting(engine) as counted:
            engine.score([first])
        assert counted == [cost]


def test_a_prefix_takes_none_of_a_timelines_tokens() -> None:
    """tokens_max are its own, whatever comes before; and it counts."""
    engine = Engine("e", after_a_prefix("fp32", 50))
    long = request([""] * 600)  # an empty line is one token
    with counting(engine) as counted:
        with_prefix = engine.score([long])[0].risk
    assert sum(counted) == engine.tokens_max
    assert with_prefix != pytest.approx(ENGINES["fp32"].score([long])[0].risk, abs=1e-4)


def long_lines(account: str, lines: int) -> ScoreRequest:
    """A timeline that is nearly as long as can be read."""
    texts = [f"customer: {account} {n} {SEEN[0]} {SEEN[1]}" for n in range(lines)]
    one = request(texts)
    return ScoreRequest(replace(one.timeline, account_id=account), one.features)


def test_what_was_evicted_comes_back_from_host_memory() -> None:
    """A returning account costs its new line alone, and the whole timeline again without a second place."""
    loaded = after_a_prefix("fp32", 20)
    accounts = [f"a-{n}" for n in range(20)]
    for host_bytes in (1 << 24, 0):
        with patch.dict("fraudguard.engine.engine.TOKENS_PER_PASS", cpu=64):
            engine = Engine("e", loaded, 0, host_bytes)
            for account in accounts:
                engine.score([long_lines(account, 5)])
            assert len(engine._cache) < 4
            returning = long_lines("a-0", 6)
            cost = engine.tokenizer.count(returning.timeline.lines[-1].text)
            whole = sum(engine.tokenizer.count(line.text) for line in returning.timeline.lines)
            assert cost < whole <= engine.tokens_max
            expected = cost if host_bytes else whole
            assert engine.new_tokens(returning) == expected
            with counting(engine) as counted:
                risk = engine.score([returning])[0].risk
        assert sum(counted) == expected
        assert [risk] == pytest.approx(from_scratch(loaded, [returning]), abs=1e-5)


def test_making_room_for_a_timeline_does_not_push_it_out() -> None:
    """The oldest of host memory comes back whole, though what goes for it takes a place there."""
    one = long_lines("", 5)
    twins = [ScoreRequest(replace(one.timeline, account_id=f"a-{n}"), one.features) for n in range(12)]
    engine = Engine("e", LOADED["fp32"])
    page_bytes = PAGE * engine._pool[:, 0].nbytes
    pages = -(-len(engine._ids(one)) // PAGE)
    with patch.dict("fraudguard.engine.engine.TOKENS_PER_PASS", cpu=64):
        engine = Engine("e", LOADED["fp32"], 0, 2 * pages * page_bytes)
        for twin in twins:
            engine.score([twin])
        assert len(engine._host) == 2
        oldest = twins[-len(engine._cache) - 2]
        with counting(engine) as counted:
            engine.score([oldest])
    assert counted == [1]


def test_what_is_forgotten_is_nowhere() -> None:
    """Neither in the pool nor behind it."""
    engine = Engine("e", LOADED["fp32"], 0, 1 << 24)
    one = long_lines("a", 5)
    engine.score([one])
    engine.score([long_lines(f"b-{n}", 5) for n in range(20)])
    assert engine._host.held((0, "a"), engine._ids(one)) == len(engine._ids(one))
    engine.forget("a")
    assert engine.new_tokens(one) == len(engine._ids(one))


def test_a_second_place_is_for_gpus(ready_releases: Callable[..., Path]) -> None:
    """On the CPU it would be the same memory; the error says what to set instead."""
    with pytest.raises(BadSettings, match=r"ENGINE_HOST_CACHE_MIB: .*raise FRAUDGUARD_ENGINE_CACHE_MIB instead"):
        Engine.load(ready_releases("starter"), "fp32", host_cache_bytes=1 << 20)


def test_a_batch_larger_than_the_pool_is_read_in_parts() -> None:
    """Many long timelines at once, more than there is room for."""
    small = Engine("small", LOADED["fp32"])
    requests = []
    for n in range(40):
        long = request([f"customer: {n} {k} {SEEN[0]}" for k in range(12)])
        requests.append(ScoreRequest(replace(long.timeline, account_id=f"a-{n}"), long.features))
    alone = [Engine("one", LOADED["fp32"]).score([one])[0].risk for one in requests]
    assert [score.risk for score in small.score(requests)] == pytest.approx(alone, abs=1e-5)


def test_a_failed_pass_loses_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """After errors the whole pool can be used again, and nothing that was half filled."""
    engine = Engine("e", LOADED["fp32"])
    long = request([f"customer: {k} {SEEN[0]}" for k in range(12)])
    before = engine.score([long])[0].risk
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_forward", lambda *_: 1 / 0)
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                engine.score([request([f"customer: {k} {SEEN[1]}" for k in range(12)])])
    assert engine.score([long])[0].risk == pytest.approx(before, abs=1e-5)


def failing(call: Callable[..., object], at: int) -> Callable[..., object]:
    """The call, failing once: when it is made for the at-th time, from 0."""
    numbers = count()
    return lambda *given: call(*given) if next(numbers) != at else 1 / 0


PLACES = [("_backbone", "forward"), ("_host", "_numbers"), ("_host", "fill")]


@settings(max_examples=30, deadline=None)
@given(
    faults=st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 3)), min_size=1, max_size=5),
    prefix=st.sampled_from([0, 17]),
    host_bytes=st.sampled_from([0, 300_000, 1 << 24]),
)
def test_an_error_anywhere_loses_nothing(
    faults: list[tuple[tuple[str, str], int]], prefix: int, host_bytes: int
) -> None:
    """In a pass, in a copy to host memory or back, the first or a later one of a batch: then all scores are right."""
    loaded = after_a_prefix("fp32", prefix)
    with patch.dict("fraudguard.engine.engine.TOKENS_PER_PASS", cpu=64):
        engine = Engine("e", loaded, 0, host_bytes)
        for lines, ((owner, name), at) in enumerate(faults, 2):
            batch = [long_lines(account, lines) for account in "abc"]
            part = getattr(engine, owner)
            with patch.object(part, name, failing(getattr(part, name), at)), suppress(ZeroDivisionError):
                engine.score(batch)
            risks = [score.risk for score in engine.score(batch)]
            assert risks == pytest.approx(from_scratch(loaded, batch), abs=1e-5)
    pages = sum(len(room.pages) for room in engine._cache._entries.values()) + len(engine._cache._free)
    assert pages == engine._cache._pages - -(-prefix // PAGE)


def test_a_timeline_longer_than_one_pass_is_read_in_pieces(
    ready_releases: Callable[[str], Path], ask: Callable[..., ScoreRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of any size, cut anywhere, of any number of verdicts, give the scores of one pass."""
    engine = Engine.load(ready_releases("qwen25"), "fp32")
    requests = [
        ask(*(f"customer: {n // 3} {k}" for k in range(n % 5 + 1)), account_id=f"a-{n // 3}") for n in range(12)
    ]
    whole = [score.risk for score in engine.score(requests)]
    for tokens, together in ((1, 512), (7, 2), (50, 1), (50, 3), (1_024, 4)):
        engine.tokens_per_pass = tokens
        monkeypatch.setattr("fraudguard.engine.engine.REQUESTS_PER_PASS", together)
        assert [score.risk for score in engine.score(requests)] == pytest.approx(whole, abs=1e-5)
