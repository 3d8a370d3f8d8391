"""W8A8 on the CPU: int8 weights with one scale an output channel, int8 activations with one scale a token.

Knows linear layers. A token's scale comes from that token alone and products are summed in int32, so what else stands
in the batch cannot change its values. (Scales for a whole tensor would, and lose most: docs/model-card.md.)
"""

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """y = x W^T + b for x [..., in] in float32, computed in int8; in >= 2 (torch._int_mm is wrong for 1)."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().to(torch.float32)
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("weight", torch.round(weight / scale).to(torch.int8).t())  # a view: [in, out]
        self.register_buffer("scale", scale.t().contiguous())
        self.bias = None if linear.bias is None else linear.bias.detach().to(torch.float32)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - see the class
        rows = x.reshape(-1, x.shape[-1])
        # In place where it can be: on small models the time goes into memory, not into products.
        largest = torch.maximum(rows.amax(dim=1, keepdim=True), rows.amin(dim=1, keepdim=True).neg_())
        scale = largest.clamp_min_(1e-12).div_(127)
        product = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight)
        y = product.to(torch.float32).mul_(scale).mul_(self.scale)
        if self.bias is not None:
            y.add_(self.bias)
        return y.reshape(*x.shape[:-1], -1)


def to_int8(module: nn.Module) -> None:
    """Replace every linear layer inside the module, in place. Embeddings and norms stay as they are."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            to_int8(child)
