"""Precisions whose products only a GPU has."""

import copy
from datetime import UTC, datetime
from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fraudguard.domain import Line, ScoreRequest, Timeline
from fraudguard.engine.engine import Engine
from fraudguard.engine.precision import Hardware
from fraudguard.engine.quantization import Fp8Linear, Int4Linear, quantize
from fraudguard.errors import BadSettings
from fraudguard.features.registry import MODEL_FEATURES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
AT = datetime(2026, 11, 21, 10, tzinfo=UTC)
FEW = ("int4", "fp8")
COSINE = {"int4": 0.99, "fp8": 0.998}


def need(precision: Literal["int4", "fp8"]) -> None:
    """Skip where this GPU has no such products."""
    found = Hardware.of("cuda")
    if not (found.fp8 if precision == "fp8" else found.bf16):
        pytest.skip(f"this GPU has no {precision}")


# The starter's layers and some of Qwen2.5-0.5B's.
@pytest.mark.parametrize(("inputs", "outputs"), [(192, 192), (192, 320), (192, 768), (384, 192), (896, 9728)])
@pytest.mark.parametrize("precision", FEW)
@torch.inference_mode()
def test_the_gpus_products_are_the_cpus(precision: Literal["int4", "fp8"], inputs: int, outputs: int) -> None:
    """The same levels on both, summed in another order; and they point where the exact ones do."""
    need(precision)
    torch.manual_seed(0)
    linear, x = nn.Linear(inputs, outputs), torch.randn(32, inputs)
    here, there = nn.Sequential(linear), nn.Sequential(copy.deepcopy(linear).cuda())
    quantize(here, precision)
    quantize(there, precision)
    assert isinstance(there[0], Int4Linear | Fp8Linear)
    y = there(x.cuda().bfloat16()).cpu()
    torch.testing.assert_close(y, here(x.bfloat16()), rtol=2e-2, atol=2e-2)
    assert F.cosine_similarity(y.float(), linear(x), dim=1).min() > COSINE[precision]


@pytest.mark.parametrize("precision", FEW)
@torch.inference_mode()
def test_rows_do_not_change_each_other(precision: Literal["int4", "fp8"]) -> None:
    """Rows of large numbers beside it move a row by no more than bf16's rounding."""
    need(precision)
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(192, 768, device="cuda"))
    quantize(layer, precision)
    x = torch.randn(32, 192, device="cuda", dtype=torch.bfloat16)
    beside = torch.cat([x, 1e4 * torch.ones_like(x)])
    torch.testing.assert_close(layer(beside)[:32], layer(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", FEW)
def test_the_starter_scores_as_in_fp32(precision: Literal["int4", "fp8"]) -> None:
    """Risks move by at most 0.1 and on average by less than 0.02, in batches and as timelines grow."""
    need(precision)
    gpu = Engine.load("starter", precision, cache_bytes=64 << 20, device="cuda")
    cpu = Engine.load("starter", "fp32")
    moved = []
    for lines in range(1, 12):
        batch = [
            ScoreRequest(
                Timeline(
                    f"a-{n}", 1, tuple(Line("message", AT, f"customer: {n} {k} 先转到安全账户") for k in range(lines))
                ),
                dict.fromkeys(MODEL_FEATURES, 1.0),
            )
            for n in range(9)
        ]
        pairs = zip(gpu.score(batch), cpu.score(batch), strict=True)
        moved += [abs(one.risk - other.risk) for one, other in pairs]
    assert max(moved) <= 0.1
    assert sum(moved) / len(moved) < 0.02


def test_auto_is_bf16_where_the_gpu_computes_in_it() -> None:
    """By the capability of the one that is here; int8 is refused."""
    wanted = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    assert Engine.load("starter", "auto", device="cuda").name.endswith(f"+{wanted}")
    with pytest.raises(BadSettings, match="int8 is for the CPU"):
        Engine.load("starter", "int8", device="cuda")
