"""The engine on a GPU gives what it gives on the CPU."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from releases import PREFIX, TEXTS, make_release, request_of

from fraudguard.domain import Line, ScoreRequest, Timeline
from fraudguard.engine.engine import Engine
from fraudguard.features.registry import MODEL_FEATURES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
AT = datetime(2026, 11, 21, 10, tzinfo=UTC)


def growing(account: str, lines: int) -> ScoreRequest:
    """A timeline of so many lines."""
    texts = (f"customer: {account} {n} 急用钱，先转到安全账户" for n in range(lines))
    timeline = Timeline(account, 1, tuple(Line("message", AT, text) for text in texts))
    return ScoreRequest(timeline, dict.fromkeys(MODEL_FEATURES, 1.0))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 2e-2)])
def test_the_gpu_scores_as_the_cpu(precision: str, tolerance: float) -> None:
    """Batches of growing timelines, kept in the GPU's pool, against fp32 on the CPU."""
    gpu = Engine.load("starter", precision, cache_bytes=64 << 20, device="cuda")  # type: ignore[arg-type]  # a parameter
    cpu = Engine.load("starter", "fp32")
    for lines in range(1, 12):
        batch = [growing(f"a-{n}", lines) for n in range(9)]
        risks = [score.risk for score in gpu.score(batch)]
        assert risks == pytest.approx([score.risk for score in cpu.score(batch)], abs=tolerance)


def test_what_was_evicted_comes_back_from_pinned_memory(tmp_path: Path) -> None:
    """More accounts than the smallest pool holds, after a prefix: each event costs its own line, at the same risk."""
    folder = make_release(tmp_path / "release", "qwen25", prefix=PREFIX)
    gpu = Engine.load(folder, "fp32", device="cuda", host_cache_bytes=64 << 20)
    cpu = Engine.load(folder, "fp32")
    assert gpu._host._host.is_pinned()
    for lines in range(2, 5):
        batch = [
            request_of(f"{n} {TEXTS[0]}", TEXTS[1], *map(str, range(lines)), account_id=f"a-{n}") for n in range(60)
        ]
        if lines > 2:
            assert max(map(gpu.new_tokens, batch)) < 5
        risks = [score.risk for score in gpu.score(batch)]
        assert len(gpu._cache) < len(batch)
        assert risks == pytest.approx([score.risk for score in cpu.score(batch)], abs=1e-3)
