"""int8 linear layers against float64 arithmetic."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fraudguard.engine.quantization import PACKED_FROM, Int8Linear, to_int8


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 33), st.integers(1, 70), st.booleans(), st.integers(0, 99))
def test_int8_is_the_rounded_product(rows: int, inputs: int, outputs: int, bias: bool, seed: int) -> None:
    """Exactly the product of the rounded factors, summed without overflow, at any shape."""
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias=bias)
    x = torch.randn(rows, inputs) * torch.rand(rows, 1) * 100
    with torch.no_grad():
        y = Int8Linear(linear)(x)
        x_scale = x.abs().amax(1, keepdim=True) / 127
        w_scale = linear.weight.abs().amax(1, keepdim=True) / 127
        exact = torch.round(x / x_scale).double() @ torch.round(linear.weight / w_scale).double().t()
        exact = exact * x_scale * w_scale.t() + (linear.bias if bias else 0.0)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_rows_do_not_change_each_other() -> None:
    """A row of large numbers leaves the scales of the others alone: bit for bit as without it."""
    torch.manual_seed(0)
    linear = Int8Linear(nn.Linear(64, 32))
    x = torch.randn(20, 64)
    assert torch.equal(linear(torch.cat([x, 1e6 * torch.ones(1, 64)]))[:20], linear(x))


@torch.no_grad()
def test_large_layers_give_the_same_product() -> None:
    """From PACKED_FROM weights on another kernel may multiply: as exact, and no row changes another."""
    torch.manual_seed(0)
    linear = nn.Linear(600, PACKED_FROM // 600 + 1)
    x = torch.randn(20, 600)
    quantized = Int8Linear(linear)
    x_scale = x.abs().amax(1, keepdim=True) / 127
    w_scale = linear.weight.abs().amax(1, keepdim=True) / 127
    exact = torch.round(x / x_scale).double() @ torch.round(linear.weight / w_scale).double().t()
    torch.testing.assert_close(quantized(x).double(), exact * x_scale * w_scale.t() + linear.bias, rtol=1e-5, atol=1e-5)
    assert torch.equal(quantized(torch.cat([x, 1e6 * torch.ones(1, 600)]))[:20], quantized(x))


@torch.no_grad()
def test_zero_rows_stay_finite() -> None:
    """A row of zeros has no scale; it gives the bias."""
    linear = nn.Linear(8, 4)
    assert torch.equal(Int8Linear(linear)(torch.zeros(1, 3, 8)), linear.bias.expand(1, 3, 4))


@torch.no_grad()
def test_only_linear_layers_are_replaced() -> None:
    """Embeddings and norms stay in float32, at any depth."""
    model = nn.Sequential(nn.Embedding(5, 8), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)))
    to_int8(model)
    inner = model[1]
    assert isinstance(inner, nn.Sequential)
    assert isinstance(inner[1], Int8Linear)
    assert isinstance(inner[0], nn.LayerNorm)
    assert isinstance(model[0], nn.Embedding)
