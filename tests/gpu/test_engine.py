"""The engine on a GPU gives what it gives on the CPU, and its graphs what it gives without them."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from releases import PREFIX, TENANTS, TEXTS, make_release, request_of
from transformers import Qwen2Config, Qwen2Model

from fraudguard.domain import Line, ScoreRequest, Timeline
from fraudguard.engine.attention import Span
from fraudguard.engine.engine import Engine
from fraudguard.engine.graphs import BUCKETS, Passes
from fraudguard.engine.qwen2 import Qwen2
from fraudguard.features.registry import MODEL_FEATURES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
AT = datetime(2026, 11, 21, 10, tzinfo=UTC)
LONGEST = 1_024
# Heads, key/value heads, dimension of a head: as in Qwen2.5-0.5B and 7B, and the starter's.
SHAPES = {"0.5B-like": (14, 2, 64), "7B-like": (28, 4, 128), "starter-like": (3, 1, 64)}


def growing(account: str, lines: int) -> ScoreRequest:
    """A timeline of so many lines."""
    texts = (f"customer: {account} {n} 急用钱，先转到安全账户" for n in range(lines))
    timeline = Timeline(account, 1, tuple(Line("message", AT, text) for text in texts))
    return ScoreRequest(timeline, dict.fromkeys(MODEL_FEATURES, 1.0))


def risks(engine: Engine, batch: list[ScoreRequest]) -> list[float]:
    """Of each request."""
    return [score.risk for score in engine.score(batch)]


@pytest.fixture(scope="module")
def model_of() -> Callable[[str, torch.dtype, int | None], tuple[Qwen2Model, Qwen2]]:
    """Four layers with random weights on the GPU: transformers' model and ours."""

    def make(name: str, dtype: torch.dtype, window: int | None = None) -> tuple[Qwen2Model, Qwen2]:
        heads, kv_heads, dim = SHAPES[name]
        torch.manual_seed(1)
        config = Qwen2Config(
            vocab_size=2_000, hidden_size=heads * dim, num_hidden_layers=4, num_attention_heads=heads,
            num_key_value_heads=kv_heads, intermediate_size=2 * heads * dim, max_position_embeddings=LONGEST,
            use_sliding_window=window is not None, sliding_window=window, max_window_layers=2,
        )  # fmt: skip
        theirs = Qwen2Model(config).to("cuda", dtype).eval()
        return theirs, Qwen2.of(theirs).to("cuda")

    return make


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 2e-2)])
@pytest.mark.parametrize("graphs", [True, False])
def test_the_gpu_scores_as_the_cpu(precision: str, tolerance: float, graphs: bool) -> None:
    """Batches of growing timelines, kept in the GPU's pool, against fp32 on the CPU."""
    gpu = Engine.load("starter", precision, 1, 64 << 20, "cuda", graphs=graphs)  # type: ignore[arg-type]  # a parameter
    cpu = Engine.load("starter", "fp32")
    for lines in range(1, 12):
        batch = [growing(f"a-{n}", lines) for n in range(9)]
        assert risks(gpu, batch) == pytest.approx(risks(cpu, batch), abs=tolerance)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("window", [None, 100])
@torch.inference_mode()
def test_the_paged_pass_is_transformers_own(
    model_of: Callable[..., tuple[Qwen2Model, Qwen2]], name: str, window: int | None
) -> None:
    """float32: timelines of mixed lengths, in two passes each, read at every token."""
    theirs, ours = model_of(name, torch.float32, window)
    lengths = (1, 17, 64, 300, LONGEST)
    pool = ours.new_pool(len(lengths) * LONGEST + 1)
    passes = Passes(ours, pool, LONGEST, graphs=False)
    rooms = np.random.default_rng(1).permutation(len(lengths) * LONGEST).reshape(-1, LONGEST)
    for room, length in zip(rooms, lengths, strict=True):
        ids = torch.randint(0, 2_000, (length,), generator=torch.manual_seed(length))
        want = theirs(input_ids=ids[None].cuda(), use_cache=False).last_hidden_state[0].cpu()
        first = length // 3
        found = [
            passes(ids[start:stop].tolist(), [Span(start, room[:stop], range(stop - start))]).clone()
            for start, stop in ((0, first), (first, length))
            if stop > start
        ]
        torch.testing.assert_close(torch.cat(found), want, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_graphs_are_the_eager_pass(model_of: Callable[..., tuple[Qwen2Model, Qwen2]], name: str) -> None:
    """bf16: every bucket just filled and just not filled gives the same numbers, bit for bit, and the same pool."""
    _, ours = model_of(name, torch.bfloat16)
    places = 128 * LONGEST
    pools = [ours.new_pool(places + 1) for _ in range(2)]
    captured, eager = (Passes(ours, pool, LONGEST, graphs=graphs) for pool, graphs in zip(pools, (1, 0), strict=True))
    rooms = np.random.default_rng(2).permutation(places).reshape(-1, LONGEST)
    for bucket, less in itertools.product(BUCKETS, (0, 1)):
        count = min(bucket.requests, len(rooms))
        per_span = [(bucket.tokens - less) // count + (n < (bucket.tokens - less) % count) for n in range(count)]
        spans = [Span(0, room[:own], [own - 1]) for room, own in zip(rooms, per_span, strict=False) if own]
        ids = [n % 2_000 for n in range(bucket.tokens - less)]
        assert torch.equal(captured(ids, spans), eager(ids, spans))
    assert torch.equal(pools[0][:, :-1], pools[1][:, :-1])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2)])
@pytest.mark.parametrize("graphs", [True, False])
def test_tenants_score_as_on_the_cpu(tmp_path: Path, precision: str, tolerance: float, graphs: bool) -> None:
    """Every mix of adapters in growing batches, masked in one product on the GPU and by runs on the CPU."""
    folder = make_release(tmp_path, "qwen25", tenants=TENANTS)
    gpu = Engine.load(folder, precision, 1, 64 << 20, "cuda", graphs)  # type: ignore[arg-type]  # a parameter
    cpu = Engine.load(folder, "fp32")
    names = (None, *TENANTS)
    for lines in range(1, 6):
        batch = [
            request_of(*TEXTS[:lines], str(n), account_id=f"a-{n % 3}", tenant=names[n % (lines + 1) % 4])
            for n in range(9)
        ]
        assert risks(gpu, batch) == pytest.approx(risks(cpu, batch), abs=tolerance)


def test_an_engine_may_be_captured_while_another_scores() -> None:
    """A hot swap: the new one captures its graphs on a thread of its own, and both score as they should."""
    serving = Engine.load("starter", "bf16", 1, 64 << 20, "cuda")
    batches = [[growing(f"a-{n}", lines) for n in range(5)] for lines in range(1, 10)]
    want = [risks(serving, batch) for batch in batches]
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(Engine.load, "starter", "bf16", 1, 64 << 20, "cuda")
        while not loading.done():
            for batch, expected in zip(batches, want, strict=True):
                assert risks(serving, batch) == pytest.approx(expected, abs=2e-2)
    assert [risks(loading.result(), batch) for batch in batches] == [pytest.approx(one, abs=2e-2) for one in want]


def test_what_was_evicted_comes_back_from_pinned_memory(tmp_path: Path) -> None:
    """More accounts than the smallest pool holds, after a prefix: each event costs its own line, at the same risk."""
    folder = make_release(tmp_path / "release", "qwen25", prefix=PREFIX)
    gpu = Engine.load(folder, "fp32", device="cuda", host_cache_bytes=64 << 20)
    cpu = Engine.load(folder, "fp32")
    assert gpu._host._host.is_pinned()
    for lines in range(2, 5):
        batch = [
            request_of(f"{n} {TEXTS[0]}", TEXTS[1], *map(str, range(lines)), account_id=f"a-{n}") for n in range(600)
        ]
        if lines > 2:
            assert max(map(gpu.new_tokens, batch)) < 5
        risks = [score.risk for score in gpu.score(batch)]
        assert len(gpu._cache) < len(batch)
        assert risks == pytest.approx([score.risk for score in cpu.score(batch)], abs=1e-3)
