"""Linear layers that round as engine/quantization.py's do, but in floats, so that they can be trained and run anywhere.

What is rounded goes through; gradients pass as if nothing had been (straight-through, Bengio et al., arXiv 1308.3432),
except for activations beyond a calibrated range. Knows linear layers and peft's, and no release. torchao's QAT rounds
otherwise: no token has a symmetric scale there, and its int8 and int4 levels lie elsewhere (LOG.md).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM

from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import E4M3_MAX, GROUP, SCHEMES, TINY, Range, step_and_middle
from fraudguard.errors import BadInput

# A checkpoint's projections by the engine's, which it multiplies at once: they read the same.
FUSED: Mapping[str, str] = {
    "self_attn.q_proj": "qkv", "self_attn.k_proj": "qkv", "self_attn.v_proj": "qkv", "self_attn.o_proj": "out",
    "mlp.gate_proj": "gate_up", "mlp.up_proj": "gate_up", "mlp.down_proj": "down",
}  # fmt: skip


def rounded_weight(weight: Tensor, precision: Precision) -> Tensor:
    """The nearest that the precision holds of a weight [out, in]; the weight itself where no kernel takes it."""
    if precision in SCHEMES:
        step = weight.detach().abs().amax(dim=1, keepdim=True).clamp_min(TINY) / 127
        return _through(weight, torch.round(weight / step) * step)
    # Both are made of weights in bf16: of the others many would be a level off.
    kept = weight.detach().bfloat16().float()
    if precision == "int4" and not (weight.shape[1] % GROUP or weight.shape[0] % 16):
        groups = kept.view(len(weight), -1, GROUP)
        low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
        step = ((high - low).clamp_min(TINY) / 15).bfloat16()
        middle = (low + 8 * step).bfloat16()
        level = ((groups - middle) / step.float()).round().clamp(-8, 7)
        return _through(weight, (level * step + middle).flatten(1))
    if precision == "fp8" and not (weight.shape[1] % 16 or weight.shape[0] % 16):
        return _through(weight, _e4m3(kept))
    return weight


def rounded_rows(x: Tensor, precision: Precision, calibrated: Range | None) -> Tensor:
    """The nearest to x [..., in] that the precision multiplies: on each token's own levels, or on the range's."""
    if precision == "fp8":
        return _through(x, _e4m3(x.detach()))
    if precision not in SCHEMES:
        return x
    symmetric = SCHEMES[precision].symmetric
    if calibrated is not None:
        step, middle = step_and_middle(*calibrated, symmetric=symmetric)
        cut = x.clamp((-128 - middle) * step, (127 - middle) * step)
        return _through(cut, ((x.detach() / step).round() + middle).clamp(-128, 127).sub(middle) * step)
    seen = x.detach()
    if symmetric:
        steps = seen.abs().amax(dim=-1, keepdim=True).clamp_min(TINY) / 127
    else:
        low, high = seen.amin(dim=-1, keepdim=True).clamp_max(0), seen.amax(dim=-1, keepdim=True).clamp_min(0)
        steps = (high - low).clamp_min(TINY) / 254
    return _through(x, (seen / steps).round() * steps)


def _e4m3(rows: Tensor) -> Tensor:
    scale = rows.abs().amax(dim=-1, keepdim=True).float().clamp_min(TINY) / E4M3_MAX
    return ((rows / scale).to(torch.float8_e4m3fn).float() * scale).to(rows.dtype)


def _through(x: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values, with the gradients of x."""
    return x + (rounded - x).detach()


@contextmanager
def fake_quantized(
    model: Qwen2ForCausalLM | PeftModel, precision: Precision, ranges: Mapping[str, Range] | None = None
) -> Iterator[None]:
    """Inside the block the body's linear layers round as the engine's will in this precision.

    LoRA beside a layer is first added to its weight, for the engine merges before it quantizes: so an adapter is
    trained to what the rounded sum does. ranges: as engine/quantization.py's quantize. Raises BadInput for DoRA, whose
    weight is more than a sum.
    """
    body = model.get_base_model().model if isinstance(model, PeftModel) else model.model
    changed = []
    for number, block in enumerate(body.layers):
        for name, fused in FUSED.items():
            layer = block.get_submodule(name)
            weight = _weight_of(layer)
            calibrated = ranges[f"layers.{number}.{fused}"] if ranges and SCHEMES[precision].calibrated else None
            layer.forward = _forward(weight, layer.bias, precision, calibrated)
            changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward


def _weight_of(layer: nn.Module) -> Callable[[], Tensor]:
    if isinstance(layer, nn.Linear):
        return lambda: layer.weight
    if not isinstance(layer, LoraLinear) or layer.lora_variant:
        raise BadInput(
            f"the adapter is more than LoRA of linear layers: {type(layer).__name__}",
            hint="train all weights instead (method: weights)",
        )
    return lambda: layer.get_base_layer().weight + layer.get_delta_weight(layer.active_adapters[0])


def _forward(
    weight: Callable[[], Tensor], bias: Tensor | None, precision: Precision, calibrated: Range | None
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return F.linear(rounded_rows(x, precision, calibrated), rounded_weight(weight(), precision), bias)

    return forward
