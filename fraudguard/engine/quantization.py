"""Linear layers in fewer bits: W8A8 for the CPU, int4 weights, fp8 for a GPU.

Knows linear layers, and no release. What a token's values are rounded to depends on that token alone, or on a range
that was taken beforehand: never on what else stands in the batch.

- W8A8: int8 weights with one scale an output channel, products summed in int32. Activations are rounded by a scale of
  each token's own, or by one of the tensor (calibrated: finetune/calibrate_activations.py); symmetric about zero, or
  from the lowest to the highest value.
- int4: weights alone, a step and a middle for every GROUP of a row; activations in bf16.
- fp8: weights and activations in e4m3, a scale each output channel and each token; sums in float32, results in bf16.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from fraudguard.engine.precision import Precision

# Weights of a layer from which oneDNN's own layout pays: its product is twice as fast, but a call costs 20 us more.
PACKED_FROM: Final = 1 << 17
# What makes a signed byte unsigned, by flipping its first bit.
UNSIGNED: Final = 128
GROUP: Final = 32  # int4 weights that share a step: the smallest that torch has, 5 bits a weight in all
E4M3_MAX: Final = 448.0
# Of a scale: rows of zeros have none.
TINY: Final = 1e-12

Range = tuple[float, float]  # the lowest and the highest value that a layer should expect


@dataclass(frozen=True, slots=True)
class Scheme:
    """How W8A8 rounds activations. symmetric: zero is the middle level. calibrated: by a given range, not a token's."""

    symmetric: bool
    calibrated: bool


SCHEMES: Final[Mapping[Precision, Scheme]] = {
    "int8": Scheme(symmetric=True, calibrated=False),
    "int8-asymmetric": Scheme(symmetric=False, calibrated=False),
    "int8-tensor": Scheme(symmetric=True, calibrated=True),
    "int8-tensor-asymmetric": Scheme(symmetric=False, calibrated=True),
}


class Int8Linear(nn.Module):
    """y = x W^T + b for x [..., in] in float32, computed in int8; in >= 2 (torch._int_mm is wrong for 1)."""

    weight: Tensor
    scale: Tensor
    sums: Tensor
    zero: Tensor
    added: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, *, symmetric: bool = True, calibrated: Range | None = None) -> None:
        """calibrated: values of x beyond this range are rounded to its ends. None: each token has its own."""
        super().__init__()
        weight = linear.weight.detach().to(torch.float32)
        scale = weight.abs().amax(dim=1).clamp_min(TINY) / 127
        rounded = torch.round(weight / scale[:, None]).to(torch.int8)
        # Without VNNI oneDNN sums in int16, which saturates.
        self.packed = weight.numel() >= PACKED_FROM and torch.cpu._is_vnni_supported()
        packed = torch.ops.onednn.qlinear_prepack(rounded, None) if self.packed else rounded.t()  # a view: [in, out]
        bias = None if linear.bias is None else linear.bias.detach().to(torch.float32)
        self.symmetric, self.step, self.middle = symmetric, None, 0.0
        if calibrated is not None:
            self.step, self.middle = step_and_middle(*calibrated, symmetric=symmetric)
            scale = scale * self.step
        # What each level by which zero is off adds to every channel.
        sums = rounded.sum(dim=1, dtype=torch.int32) * scale
        added = None if calibrated is None else sums * -self.middle + (0.0 if bias is None else bias)
        if self.packed:
            added = sums * -UNSIGNED + (0.0 if added is None else added)
        self.register_buffer("weight", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("sums", sums)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int64))
        self.register_buffer("added", added)
        self.register_buffer("bias", bias if calibrated is None else None)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - see the class
        rows = x.reshape(-1, x.shape[-1])
        if self.step is not None:
            y = self._calibrated(rows, self.step)
        else:
            y = self._symmetric(rows) if self.symmetric else self._asymmetric(rows)
        if self.bias is not None:
            y.add_(self.bias)
        return y.reshape(*x.shape[:-1], -1)

    # In place where it can be: on small models the time goes into memory, not into products.

    def _calibrated(self, rows: Tensor, step: float) -> Tensor:
        levels = (rows * (1 / step)).round_()
        if self.middle:
            levels.add_(self.middle)
        return self._product(levels.clamp_(-128, 127).to(torch.int8))

    def _symmetric(self, rows: Tensor) -> Tensor:
        largest = torch.maximum(rows.amax(dim=1, keepdim=True), rows.amin(dim=1, keepdim=True).neg_())
        step = largest.clamp_min_(TINY).div_(127)
        return self._product((rows / step).round_().to(torch.int8)).mul_(step)

    def _asymmetric(self, rows: Tensor) -> Tensor:
        low = rows.amin(dim=1, keepdim=True).clamp_max_(0)
        # 254 steps, not 255: rounding both ends may add one.
        step = rows.amax(dim=1, keepdim=True).clamp_min_(0).sub_(low).clamp_min_(TINY).div_(254)
        middle = low.div_(step).round_().neg_().sub_(128)
        y = self._product((rows / step).round_().add_(middle).to(torch.int8))
        return y.addr_(middle[:, 0], self.sums, alpha=-1).mul_(step)

    def _product(self, levels: Tensor) -> Tensor:
        """Of int8 rows, which are lost, and the weights, times the channels' scales, and what is added to them."""
        if not self.packed:
            y = torch._int_mm(levels, self.weight).to(torch.float32).mul_(self.scale)
            return y if self.added is None else y.add_(self.added)
        # Signed levels would take a thousand times as long without AMX: VNNI's factors are unsigned.
        unsigned = levels.view(torch.uint8).bitwise_xor_(UNSIGNED)
        # It takes one activation scale for all rows: 1, since each has its own or it is in the channels'.
        scaled: Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned, 1.0, 0, self.weight, self.scale, self.zero, self.added, 1.0, 0, torch.float32, "none", [], ""
        )
        return scaled


def step_and_middle(low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    """The step between two of the levels -128..127 and the level that means zero, a whole number."""
    if symmetric:
        return max(-low, high, TINY) / 127, 0.0
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, TINY) / 255
    return step, float(-128 - round(low / step))


class Int4Linear(nn.Module):
    """y = x W^T + b for x [..., in] in bf16, W in int4. Made on the device that it shall run on, and not moved.

    in is a multiple of GROUP and out of 16.
    """

    weight: Tensor
    steps: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().to(torch.float32)
        groups = weight.view(len(weight), -1, GROUP)
        low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
        # Rounded as they are kept, before the weights are rounded to them.
        step = ((high - low).clamp_min(TINY) / 15).to(torch.bfloat16)
        middle = (low + 8 * step).to(torch.bfloat16)
        levels = ((groups - middle) / step.float()).round_().add_(8).clamp_(0, 15).view_as(weight).to(torch.int32)
        if weight.is_cuda:
            tiles = next(tiles for tiles in (8, 4, 2) if weight.shape[1] % (16 * tiles) == 0)
            pairs = (levels[:, ::2] << 4 | levels[:, 1::2]).to(torch.uint8)
            packed = torch.ops.aten._convert_weight_to_int4pack(pairs, tiles)
        else:
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
        self.register_buffer("weight", packed)
        self.register_buffer("steps", torch.cat((step, middle), dim=2).transpose(0, 1).contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - see the class
        multiply = torch.ops.aten._weight_int4pack_mm if x.is_cuda else torch.ops.aten._weight_int4pack_mm_for_cpu
        y: Tensor = multiply(x.reshape(-1, x.shape[-1]), self.weight, GROUP, self.steps)
        if self.bias is not None:
            y.add_(self.bias)
        return y.reshape(*x.shape[:-1], -1)


class Fp8Linear(nn.Module):
    """y = x W^T + b for x [..., in], computed in e4m3 and given in bf16; in and out are multiples of 16.

    On a CPU it is emulated: the same values, for tests.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().to(torch.float32)
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(TINY) / E4M3_MAX
        self.register_buffer("weight", (weight / scale).to(torch.float8_e4m3fn).t())  # [in, out], column by column
        self.register_buffer("scale", scale.reshape(1, -1))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - see the class
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(dim=1, keepdim=True).float().clamp_min_(TINY).div_(E4M3_MAX)
        levels = (rows / scale).to(torch.float8_e4m3fn)
        y = torch._scaled_mm(levels, self.weight, scale, self.scale, out_dtype=torch.bfloat16)
        if self.bias is not None:
            y.add_(self.bias)
        return y.reshape(*x.shape[:-1], -1)


def quantize(module: nn.Module, precision: Precision, ranges: Mapping[str, Range] | None = None) -> None:
    """Replace every linear layer inside the module, in place, where it is. Embeddings and norms stay as they are.

    ranges: for a calibrated precision, what each layer reads, by its name; KeyError where one is missing. The module is
    in float32 for int8, in bf16 for int4 and fp8, where layers of sizes that no kernel takes stay as they are.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and (made := _quantized(layer, name, precision, ranges or {})) is not None:
            module.set_submodule(name, made)


def _quantized(
    linear: nn.Linear, name: str, precision: Precision, ranges: Mapping[str, Range]
) -> Int8Linear | Int4Linear | Fp8Linear | None:
    scheme = SCHEMES.get(precision)
    if scheme is not None:
        calibrated = ranges[name] if scheme.calibrated else None
        return Int8Linear(linear, symmetric=scheme.symmetric, calibrated=calibrated)
    if precision == "int4" and not (linear.in_features % GROUP or linear.out_features % 16):
        return Int4Linear(linear)
    if precision == "fp8" and not (linear.in_features % 16 or linear.out_features % 16):
        return Fp8Linear(linear)
    return None
