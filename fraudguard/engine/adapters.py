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
        down = given[0].down.new_zeros(len(adapters), columns, given[0].down.shape[1])
        up = given[0].up.new_zeros(len(adapters), columns, sum(widths))
        self._places: list[list[tuple[slice, slice]]] = []  # by adapter: columns and outputs of a projection
        for number, parts in enumerate(adapters):
            places, column, output = [], 0, 0
            for width, part in zip(widths, parts, strict=True):
                if part is not None:
                    place = slice(column, column + len(part.down)), slice(output, output + width)
                    down[number, place[0]] = part.down
                    up[number][place] = part.up.T
                    places.append(place)
                    column = place[0].stop
                output += width
            self._places.append(places)
        self.register_buffer("down", down)  # [adapter, column, in]
        self.register_buffer("up", up)  # [adapter, column, out]

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        """The base's y for x [row, in], plus what the adapter of each row adds."""
        y: Tensor = self.base(x)
        if mix.mask is not None:
            inner = self._inner(x, None).view(len(x), *self.up.shape[:2]) * mix.mask[:, :, None]
            return y.addmm_(inner.flatten(1), self.up.flatten(0, 1))
        for adapter, start, stop in mix.runs:
            if places := self._places[adapter]:
                inner = self._inner(x[start:stop], adapter)
                for columns, outputs in places:
                    y[start:stop, outputs].addmm_(inner[:, columns], self.up[adapter, columns, outputs])
        return y

    def _inner(self, x: Tensor, adapter: int | None) -> Tensor:
        """x in the columns of one adapter, or of all of them side by side."""
        return F.linear(x, self.down.flatten(0, 1) if adapter is None else self.down[adapter])


class AdaptedEmbedding(Adapted):
    """The same of an embedding: x [row] are ids, and a row of the table is what they look up."""

    def __init__(self, base: nn.Module, width: int, adapters: Sequence[LowRank | None]) -> None:
        """width: of an embedding."""
        super().__init__(base, [width], [[part] for part in adapters])
        self.down = self.down.flatten(0, 1).T.contiguous()  # [id, adapter and column]

    def _inner(self, x: Tensor, adapter: int | None) -> Tensor:
        columns = F.embedding(x, self.down)
        return columns if adapter is None else columns.chunk(len(self.up), dim=1)[adapter]


def product(layer: nn.Module, x: Tensor, mix: Mix | None) -> Tensor:
    """What the layer makes of x, with the adapters if it has any beside it."""
    y: Tensor = layer(x, mix) if isinstance(layer, Adapted) else layer(x)
    return y
