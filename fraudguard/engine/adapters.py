"""LoRA adapters beside the weights, unmerged: one packed pass reads the timelines of many tenants, each with its own.

Knows linear layers of any kind, an embedding, and which adapter reads which row. Knows no checkpoint and no tenant. The
layers inside stay as they are, quantized or not: an adapter only adds to what they give (Hu et al., arXiv 2106.09685).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one projection of a checkpoint: x down^T up^T.

    down [rank, in]; up [out, rank], the adapter's scaling in it.
    """

    down: Tensor
    up: Tensor


class Mix:
    """Which adapter reads each row of a pass, in the form that the device multiplies fast.

    On the CPU each adapter multiplies its own rows: `runs` are (adapter, first row, row behind the last). A GPU
    multiplies all rows by all adapters and then by `mask` [row, adapter]: no shape depends on who is in the batch, so
    the pass can be captured.
    """

    def __init__(self, adapters: Tensor, mask: Tensor | None) -> None:
        self._adapters, self.mask = adapters, mask
        self.runs: list[tuple[int, int, int]] = []
        if mask is None:
            numbers, counts = torch.unique_consecutive(adapters, return_counts=True)
            stops = counts.cumsum(0)
            self.runs = list(zip(numbers.tolist(), (stops - counts).tolist(), stops.tolist(), strict=True))

    @classmethod
    def of(cls, adapters: Tensor, count: int, *, masked: bool) -> Self:
        """adapters [row]: the number of each row's, below count."""
        numbers = torch.arange(count, device=adapters.device)
        return cls(adapters, adapters[:, None] == numbers if masked else None)

    def __getitem__(self, rows: slice | Tensor) -> "Mix":
        """Of these rows alone."""
        return Mix(self._adapters[rows], None if self.mask is None else self.mask[rows])


class Adapted(nn.Module):
    """A linear layer, perhaps of several projections side by side, and what each adapter adds to each of them."""

    down: Tensor
    up: Tensor

    def __init__(self, base: nn.Module, widths: Sequence[int], adapters: Sequence[Sequence[LowRank | None]]) -> None:
        """widths: how many outputs each projection has. adapters: by number, what each adds to each projection."""
        super().__init__()
        self.base = base
        given = [part for parts in adapters for part in parts if part is not None]
        # Padded to the largest with zeros, which add nothing.
        columns = max(sum(len(part.down) for part in parts if part is not None) for parts in adapters)
        down = given[0].down.new_zeros(given[0].down.shape[1], len(adapters), columns)
        up = given[0].up.new_zeros(len(adapters), columns, sum(widths))
        # By adapter, for the runs of a CPU: its part of `down`, and for each projection columns, outputs, part of `up`.
        self._own: list[tuple[Tensor, list[tuple[slice, slice, Tensor]]]] = []
        for number, parts in enumerate(adapters):
            places, column, output = [], 0, 0
            for width, part in zip(widths, parts, strict=True):
                if part is not None:
                    of_part, outputs = slice(column, column + len(part.down)), slice(output, output + width)
                    down[:, number, of_part] = part.down.T
                    up[number, of_part, outputs] = part.up.T
                    places.append((of_part, outputs, up[number, of_part, outputs]))
                    column = of_part.stop
                output += width
            self._own.append((down[:, number, :column], places))
        self.register_buffer("down", down)  # [in, adapter, column]
        self.register_buffer("up", up)  # [adapter, column, out]

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        """The base's y for x [row, in], plus what the adapter of each row adds."""
        y: Tensor = self.base(x)
        if mix.mask is not None:
            inner = self._inner(x, self.down.flatten(1)).view(len(x), *self.up.shape[:2]) * mix.mask[:, :, None]
            return y.addmm_(inner.flatten(1), self.up.flatten(0, 1))
        for adapter, start, stop in mix.runs:
            down, places = self._own[adapter]
            if places:
                inner, rows = self._inner(x[start:stop], down), y[start:stop]
                for columns, outputs, up in places:
                    rows[:, outputs].addmm_(inner[:, columns], up)
        return y

    def _inner(self, x: Tensor, down: Tensor) -> Tensor:
        """x [row, in] in the columns of down [in, column]."""
        return x @ down


class AdaptedEmbedding(Adapted):
    """The same of an embedding: x [row] are ids, and a row of `down` is what they look up."""

    def _inner(self, x: Tensor, down: Tensor) -> Tensor:
        return F.embedding(x, down)


def product(layer: nn.Module, x: Tensor, mix: Mix | None) -> Tensor:
    """What the layer makes of x, with the adapters if it has any beside it."""
    y: Tensor = layer(x, mix) if isinstance(layer, Adapted) else layer(x)
    return y
