"""The engine on a GPU gives what it gives on the CPU."""

from datetime import UTC, datetime

import pytest
import torch

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
