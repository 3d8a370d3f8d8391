"""Fake-quantized layers against the engine's quantized ones: the same products, and gradients that go through."""

import copy
import json
from typing import get_args

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from finetune.fake_quantization import fake_quantized, rounded_rows, rounded_weight
from fraudguard.engine.attention import Span
from fraudguard.engine.loader import attach, load, load_base
from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import GROUP, SCHEMES, quantize
from fraudguard.engine.release import STARTER, open_release
from fraudguard.errors import BadInput

QUANTIZED = [precision for precision in get_args(Precision) if precision not in ("fp32", "bf16")]
# int8 sums are exact there, and here to float32's rounding; the others multiply in bf16.
NEAR = {"int4": 2e-2, "fp8": 2e-2}
IDS = torch.randint(200, (1, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 32), (320, 512), (192, 96), (704, 256)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_the_product_is_the_engines(precision: Precision, inputs: int, outputs: int, bias: bool) -> None:
    """Of every scheme, tokens of all sizes, one of zeros and some beyond a calibrated range among them."""
    torch.manual_seed(inputs)
    linear = nn.Linear(inputs, outputs, bias=bias)
    x = torch.randn(50, inputs) * torch.rand(50, 1) * 5 + 0.3
    x[7] = 0
    limits = (-2.0, 3.0)
    engine = nn.Sequential(copy.deepcopy(linear).to(torch.float32 if precision in SCHEMES else torch.bfloat16))
    quantize(engine, precision, {"0": limits})
    wanted = engine(x if precision in SCHEMES else x.bfloat16()).float()
    calibrated = limits if precision in SCHEMES and SCHEMES[precision].calibrated else None
    found = F.linear(rounded_rows(x, precision, calibrated), rounded_weight(linear.weight, precision), linear.bias)
    near = NEAR.get(precision, 1e-5)
    torch.testing.assert_close(found, wanted, rtol=near, atol=near * wanted.abs().max().item())
    assert (found - linear(x)).abs().max() > 1e-3


@pytest.mark.parametrize("precision", ["int4", "fp8"])
def test_what_no_kernel_takes_stays(precision: Precision) -> None:
    """As the engine leaves layers of odd sizes alone."""
    weight = torch.randn(24, GROUP // 2 + 1)
    assert rounded_weight(weight, precision) is weight


def test_gradients_pass_but_for_what_is_cut() -> None:
    """As if nothing had been rounded; beyond a calibrated range nothing moves."""
    x, weight = torch.randn(9, 32, requires_grad=True), torch.randn(16, 32, requires_grad=True)
    F.linear(rounded_rows(x, "int8", None), rounded_weight(weight, "int8")).sum().backward()
    plain, plain_weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    F.linear(plain, rounded_weight(plain_weight, "int8")).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, rounded_rows(x, "int8", None).sum(0).expand(16, 32))
    cut = torch.tensor([[-5.0, 0.5, 5.0]], requires_grad=True)
    rounded_rows(cut, "int8-tensor", (-1.0, 1.0)).sum().backward()
    assert cut.grad is not None
    assert cut.grad.tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("precision", ["int8", "int8-asymmetric", "int8-tensor", "int8-tensor-asymmetric", "int4"])
@torch.no_grad()
def test_the_model_reads_as_the_engine(precision: Precision) -> None:
    """Adapter beside the weights here, merged and then quantized there: nearly the same hidden states."""
    release = open_release(STARTER)
    assert release.adapter is not None
    model = attach(load_base(release.base), release.adapter).eval()
    body = model.get_base_model().model
    plain = body(input_ids=IDS, use_cache=False).last_hidden_state[0]
    assert release.activations is not None
    ranges = json.loads(release.activations.read_bytes()) if precision.startswith("int8-tensor") else None
    with fake_quantized(model, precision, ranges):
        found = body(input_ids=IDS, use_cache=False).last_hidden_state[0]
    assert torch.equal(body(input_ids=IDS, use_cache=False).last_hidden_state[0], plain)
    backbone = load(release, precision).backbone
    span = Span(0, np.arange(IDS.shape[1]), range(IDS.shape[1]))
    wanted = backbone(IDS[0], [span], backbone.new_pool(IDS.shape[1])).float()
    # A difference in the last digit can push an activation over the edge between two levels; int4 has bf16's beside.
    rounding, apart = (wanted - plain).abs().mean(), (wanted - found).abs().mean()
    assert rounding > 1e-3
    assert apart < (0.1 if precision in SCHEMES else 0.5) * rounding


def test_more_than_a_sum_is_refused() -> None:
    """DoRA's weight is not base plus product."""
    base = load_base(STARTER / "base")
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    with pytest.raises(BadInput, match="more than LoRA"), fake_quantized(model, "int8"):
        pass
