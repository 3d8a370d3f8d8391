"""Quantized linear layers against float64 arithmetic, and each row against itself alone."""

import os
import subprocess
import sys
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import (
    E4M3_MAX,
    GROUP,
    PACKED_FROM,
    SCHEMES,
    Fp8Linear,
    Int4Linear,
    Int8Linear,
    quantize,
)

QUANTIZED = [precision for precision in get_args(Precision) if precision not in ("fp32", "bf16")]
W8A8 = list(SCHEMES)
# The least cosine of a row of random products with the exact ones.
COSINE = {"int4": 0.99, "fp8": 0.998} | dict.fromkeys(W8A8, 0.9995)


def layer(precision: Precision, linear: nn.Linear, x: Tensor) -> nn.Module:
    """The quantized layer, calibrated on x where it is to be."""
    model = nn.Sequential(linear)
    quantize(model, precision, {"0": (x.min().item(), x.max().item())})
    assert not isinstance(model[0], nn.Linear)
    return model


def read(precision: Precision, x: Tensor) -> Tensor:
    """x in the kind that the model would be in."""
    return x if precision in SCHEMES else x.bfloat16()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(W8A8), st.integers(1, 40), st.integers(2, 33), st.integers(1, 70), st.booleans(), st.integers(0, 99)
)  # fmt: skip
@torch.no_grad()
def test_w8a8_is_the_rounded_product(
    precision: Precision, rows: int, inputs: int, outputs: int, bias: bool, seed: int
) -> None:
    """Within half a step of each activation and weight, summed without overflow, at any shape."""
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias=bias)
    x = torch.randn(rows, inputs) * torch.rand(rows, 1) * 100 + seed % 3
    y = layer(precision, linear, x)(x)
    w_step = linear.weight.abs().amax(1) / 127
    weight = (torch.round(linear.weight / w_step[:, None]) * w_step[:, None]).double()
    scheme = SCHEMES[precision]
    seen = x.flatten() if scheme.calibrated else x
    low, high = seen.amin(-1, keepdim=True).clamp_max(0), seen.amax(-1, keepdim=True).clamp_min(0)
    step = torch.maximum(-low, high) / 127 if scheme.symmetric else (high - low) / 254
    exact = x.double() @ weight.t() + (linear.bias if bias else 0.0)
    most = (step.expand(rows, 1).double() / 2 + 1e-5) * weight.abs().sum(1) + 1e-4
    if scheme.calibrated and not scheme.symmetric:
        most *= 2  # its zero is rounded to a level, which moves one end of the range by up to half a step more
    assert ((y.double() - exact).abs() <= most).all()


@pytest.mark.parametrize("inputs", [64, 600])
@torch.no_grad()
def test_int8_is_exactly_the_product_of_the_rounded(inputs: int) -> None:
    """Bit for bit but for the last rounding, by either kernel: from PACKED_FROM weights on another may multiply."""
    torch.manual_seed(0)
    linear = nn.Linear(inputs, PACKED_FROM // 600 + 1)
    x = torch.randn(20, inputs)
    x_scale = x.abs().amax(1, keepdim=True) / 127
    w_scale = linear.weight.abs().amax(1, keepdim=True) / 127
    exact = torch.round(x / x_scale).double() @ torch.round(linear.weight / w_scale).double().t()
    wanted = exact * x_scale * w_scale.t() + linear.bias
    torch.testing.assert_close(Int8Linear(linear)(x).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize("outputs", [96, 512])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), others=st.integers(1, 40), size=st.sampled_from([1e-3, 1.0, 1e4]))
@torch.no_grad()
def test_rows_do_not_change_each_other(precision: Precision, outputs: int, seed: int, others: int, size: float) -> None:
    """Whatever stands beside a row, large or small: W8A8 bit for bit, the sums of the others to bf16's rounding."""
    torch.manual_seed(seed)
    x = read(precision, torch.randn(17, 320))
    quantized = layer(precision, nn.Linear(320, outputs), x)
    beside = torch.cat([x, read(precision, size * torch.randn(others, 320))])[torch.randperm(17 + others)]
    places = [int((beside == row).all(1).nonzero()[0]) for row in x]
    if precision in SCHEMES:
        assert torch.equal(quantized(beside)[places], quantized(x))
    else:
        torch.testing.assert_close(quantized(beside)[places], quantized(x), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize("outputs", [96, 512])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_products_point_where_the_exact_ones_do(precision: Precision, outputs: int, bias: bool) -> None:
    """By the cosine of every row, for activations that are not centred."""
    torch.manual_seed(1)
    linear = nn.Linear(320, outputs, bias=bias)
    x = torch.randn(32, 320) + 0.5
    y = layer(precision, linear, x)(read(precision, x))
    assert y.dtype == (torch.float32 if precision in SCHEMES else torch.bfloat16)
    assert F.cosine_similarity(y.float(), linear(x), dim=1).min() > COSINE[precision]


@torch.no_grad()
def test_asymmetric_levels_are_finer_where_values_are_on_one_side() -> None:
    """Twice as fine, by token and by tensor; the weights are whole levels, so that only activations are rounded."""
    torch.manual_seed(0)
    linear, x = nn.Linear(256, 64, bias=False), torch.rand(64, 256)
    linear.weight.copy_(torch.randint(-127, 128, (64, 256)))
    linear.weight[:, 0] = 127
    exact = linear(x)
    error = {precision: (layer(precision, linear, x)(x) - exact).abs().mean() for precision in W8A8}
    assert error["int8-asymmetric"] < 0.6 * error["int8"]
    assert error["int8-tensor-asymmetric"] < 0.6 * error["int8-tensor"]


@torch.no_grad()
def test_beyond_the_range_is_cut() -> None:
    """A calibrated layer takes a value outside for the end of the range, and does not wrap around."""
    linear = nn.Linear(2, 16, bias=False)
    for symmetric in (True, False):
        quantized = Int8Linear(linear, symmetric=symmetric, calibrated=(-1.0, 3.0))
        far, end = quantized(torch.tensor([[1e6, 0.0]])), quantized(torch.tensor([[3.01, 0.0]]))
        assert torch.equal(far, end)
        torch.testing.assert_close(end, linear(torch.tensor([[3.0, 0.0]])), rtol=0.05, atol=0.02)


@torch.no_grad()
def test_int4_weights_are_the_nearest_of_sixteen() -> None:
    """A product with the identity shows the weights: each within half a step, and bf16's rounding, of its own."""
    torch.manual_seed(0)
    linear = nn.Linear(4 * GROUP, 32, bias=False)
    shown = Int4Linear(linear)(torch.eye(4 * GROUP).bfloat16()).t().float()
    groups = linear.weight.view(32, -1, GROUP)
    step = (groups.amax(2) - groups.amin(2)) / 15
    moved = (shown - linear.weight).abs().view_as(groups)
    assert (moved <= 0.6 * step[..., None] + 1e-3).all()
    assert all(len(group.unique()) <= 16 for group in shown.reshape(-1, GROUP))


@torch.no_grad()
def test_fp8_is_the_product_of_what_e4m3_holds() -> None:
    """Weights by channel and activations by token, each scaled to e4m3's largest, to bf16's rounding."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 32)
    x = torch.randn(16, 64).bfloat16() * 100
    x_scale = x.float().abs().amax(1, keepdim=True) / E4M3_MAX
    w_scale = linear.weight.abs().amax(1, keepdim=True) / E4M3_MAX
    kinds = torch.float8_e4m3fn, torch.float64
    levels, weight = ((of / scale).to(kinds[0]).to(kinds[1]) for of, scale in ((x, x_scale), (linear.weight, w_scale)))
    exact = levels * x_scale @ (weight * w_scale).t() + linear.bias
    torch.testing.assert_close(Fp8Linear(linear)(x).double(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", QUANTIZED)
@torch.no_grad()
def test_zero_rows_stay_finite(precision: Precision) -> None:
    """A row of zeros has no scale; it gives the bias."""
    linear = nn.Linear(32, 16)
    y = layer(precision, linear, torch.zeros(1, 32))(read(precision, torch.zeros(1, 3, 32)))
    torch.testing.assert_close(y, read(precision, linear.bias.expand(1, 3, 16)), rtol=0, atol=0)


@torch.no_grad()
def test_only_linear_layers_are_replaced() -> None:
    """Embeddings and norms stay in float32, at any depth."""
    model = nn.Sequential(nn.Embedding(5, 8), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)))
    quantize(model, "int8")
    inner = model[1]
    assert isinstance(inner, nn.Sequential)
    assert isinstance(inner[1], Int8Linear)
    assert isinstance(inner[0], nn.LayerNorm)
    assert isinstance(model[0], nn.Embedding)


@pytest.mark.parametrize(("precision", "inputs"), [("int4", GROUP // 2), ("fp8", 8), ("fp32", 64), ("bf16", 64)])
def test_what_no_kernel_takes_stays(precision: Precision, inputs: int) -> None:
    """Layers of odd sizes, and all layers where nothing is quantized."""
    model = nn.Sequential(nn.Linear(inputs, 32))
    quantize(model, precision)
    assert isinstance(model[0], nn.Linear)


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="without VNNI oneDNN is not used")
def test_onednn_emulates_no_product_without_amx() -> None:
    """Held to AVX2 with VNNI, it takes a kernel of its own, not its reference, which is thousands of times slower."""
    script = f"""
import torch
from fraudguard.engine.quantization import Int8Linear, PACKED_FROM
layer = Int8Linear(torch.nn.Linear(600, {PACKED_FROM // 600 + 1}))
assert layer.packed
with torch.no_grad():
    layer(torch.randn(2, 600))
"""
    held = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI", "ONEDNN_VERBOSE": "1"}
    run = subprocess.run([sys.executable, "-c", script], env=held, capture_output=True, text=True, check=True)
    kernels = [line.split(",") for line in run.stdout.splitlines() if ",exec,cpu,matmul," in line]
    kernels += [line.split(",") for line in run.stdout.splitlines() if ",exec,cpu,inner_product," in line]
    assert kernels
    assert not [kernel for kernel in kernels if any(word.startswith("ref") for word in kernel)]
