"""W8A8 on the CPU: int8 weights with one scale an output channel, int8 activations with one scale a token.

Knows linear layers. A token's scale comes from that token alone and products are summed in int32, so what else stands
in the batch cannot change its values. (Scales for a whole tensor would, and lose most: docs/model-card.md.)
"""

from typing import Final

import torch
from torch import Tensor, nn

# Weights of a layer from which oneDNN's own layout pays: its product is twice as fast, but a call costs 20 us more.
PACKED_FROM: Final = 1 << 18


class Int8Linear(nn.Module):
    """y = x W^T + b for x [..., in] in float32, computed in int8; in >= 2 (torch._int_mm is wrong for 1)."""

    weight: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().to(torch.float32)
        scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
        rounded = torch.round(weight / scale[:, None]).to(torch.int8)
        # Without VNNI oneDNN sums in int16, which saturates.
        self.packed = weight.numel() >= PACKED_FROM and torch.cpu._is_vnni_supported()
        packed = torch.ops.onednn.qlinear_prepack(rounded, None) if self.packed else rounded.t()  # a view: [in, out]
        self.register_buffer("weight", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int64))
        self.bias = None if linear.bias is None else linear.bias.detach().to(torch.float32)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - see the class
        rows = x.reshape(-1, x.shape[-1])
        # In place where it can be: on small models the time goes into memory, not into products.
        largest = torch.maximum(rows.amax(dim=1, keepdim=True), rows.amin(dim=1, keepdim=True).neg_())
        scale = largest.clamp_min_(1e-12).div_(127)
        y = self._product((rows / scale).round_().to(torch.int8)).mul_(scale)
        if self.bias is not None:
            y.add_(self.bias)
        return y.reshape(*x.shape[:-1], -1)

    def _product(self, rows: Tensor) -> Tensor:
        """Of int8 rows and the weights, times the channels' scales."""
        if not self.packed:
            return torch._int_mm(rows, self.weight).to(torch.float32).mul_(self.scale)
        # It takes one activation scale for all rows: 1, since each has its own.
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self.weight, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y


def to_int8(module: nn.Module) -> None:
    """Replace every linear layer inside the module, in place. Embeddings and norms stay as they are."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            to_int8(child)
