"""One pass's tokens and what each of them reads: spans of timelines, gathered from the pool and padded to each other.

Knows places of a pool and scaled dot products; knows no weights and no account. engine/paged_attention.py does the same
on a GPU, without gathering.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Places = npt.NDArray[np.int64]

# Rows of a packed batch are filled up to a multiple of this: oneDNN compiles an int8 kernel for every number of rows.
ROWS_STEP: Final = 16
# New tokens of a pass: more leave the caches of a CPU core and are slower a token; a GPU is filled by then.
TOKENS_PER_PASS: Final = {"cpu": 1_024, "cuda": 8_192}
# Spans of a pass, and ends that are read in it.
REQUESTS_PER_PASS: Final = 512
# What one more attention call costs, in products of a query and a key: spans are padded to each other for less.
CALL_COST: Final = 4_096


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one timeline in a packed batch.

    past: how many tokens come before them. slots: where the keys and values of the past ones are and those of its own
    go, [past + count] places of the pool. ends: those of its own tokens whose hidden state is wanted, from 0.
    adapter: the number of the one that reads them, where the model has several.
    """

    past: int
    slots: Places
    ends: Sequence[int]
    adapter: int = 0

    @property
    def count(self) -> int:
        """How many tokens it has of its own."""
        return len(self.slots) - self.past


class Batch(Protocol):
    """What a forward pass reads, in tensors where the model is, and how what depends on the device is done there.

    ids [row]: the tokens, then filler. wanted [end]: the rows whose final hidden state is read. adapters [row]: each
    row's, where the model has several, else None.
    """

    ids: Tensor
    wanted: Tensor
    adapters: Tensor | None

    def place(self, qkv: Tensor, cosines: Tensor, sines: Tensor, kept: Tensor) -> Tensor:
        """Rotated queries [row, head, dim]; keys, rotated too, and values go to their places in one layer's pool.

        qkv [row, query, key and value heads, dim]; cosines, sines [position, dim], float32, the same in both halves;
        kept [slot, key or value, kv_head, dim].
        """
        ...

    def gated(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up [row, inner] of gate and up side by side [row, 2 * inner]."""
        ...

    def attend(self, queries: Tensor, kept: Tensor, window: int | None, *, ends: bool) -> Tensor:
        """[row, head * dim]: what the queries [row, head, dim] gather from one layer's pool.

        window: how many tokens a token sees, itself included; None: all before it. ends: ask for the wanted rows only;
        what stands in other rows is of no use then.
        """
        ...


class Gathered:
    """A Batch whose keys are copied together, layer by layer: for scaled_dot_product_attention."""

    def __init__(self, ids: Tensor, spans: Sequence[Span], like: Tensor, *, adapted: bool) -> None:
        """ids [token]: the spans' own tokens, one span after the other. like: a tensor as the model's are.

        adapted: the model has adapters beside its weights.
        """
        self._spans, self._like = spans, like
        counts = np.array([span.count for span in spans])
        self._starts = np.cumsum(counts) - counts
        self._ends = [np.array(span.ends, dtype=np.int64) for span in spans]
        self._everything = [np.arange(count) for count in counts]
        wanted = np.concatenate([start + end for start, end in zip(self._starts, self._ends, strict=True)])
        positions = np.concatenate([np.arange(span.past, len(span.slots)) for span in spans])
        device = like.device
        self.ids = _filled(ids).to(device)
        self._positions = _filled(torch.from_numpy(positions)).to(device)
        self._angles: tuple[Tensor, Tensor] | None = None
        self._slots = torch.from_numpy(np.concatenate([span.slots[span.past :] for span in spans])).to(device)
        self.wanted = _filled(torch.from_numpy(wanted)).to(device)
        self.adapters = None
        if adapted:
            # Filler goes with the last row: it shall be no adapter's more.
            numbers = np.repeat([span.adapter for span in spans], counts)
            filled = np.pad(numbers, (0, len(self.ids) - len(numbers)), mode="edge")
            self.adapters = torch.from_numpy(filled).to(device)
        self._plans: dict[tuple[int | None, bool], list[_Attention]] = {}

    def place(self, qkv: Tensor, cosines: Tensor, sines: Tensor, kept: Tensor) -> Tensor:  # noqa: D102 - see Batch
        if self._angles is None:  # every layer's
            self._angles = (_of_rows(cosines, self._positions, qkv), _of_rows(sines, self._positions, qkv))
        queries, new = rotated(qkv, *self._angles, kept.shape[2])
        kept.index_copy_(0, self._slots, new[: len(self._slots)])
        return queries

    def gated(self, gate_up: Tensor) -> Tensor:  # noqa: D102 - see Batch
        return gated(gate_up)

    def attend(self, queries: Tensor, kept: Tensor, window: int | None, *, ends: bool) -> Tensor:  # noqa: D102 - see Batch
        plan = self._plans.get((window, ends))
        if plan is None:
            asking = self._ends if ends else self._everything
            plan = self._plans[window, ends] = _plan(self._spans, asking, self._starts, self._like, window)
        attended = torch.zeros_like(queries)
        for part in plan:
            keys, values = _rows(kept, part.slots).permute(2, 0, 3, 1, 4)
            asked = _rows(queries, part.rows).transpose(1, 2)
            found = F.scaled_dot_product_attention(
                asked, keys, values, attn_mask=part.mask, is_causal=part.mask is None, enable_gqa=True
            )
            attended.index_copy_(0, part.to, found.transpose(1, 2).flatten(0, 1).index_select(0, part.real))
        return attended.flatten(1)


def rotated(qkv: Tensor, cosines: Tensor, sines: Tensor, kv_heads: int) -> tuple[Tensor, Tensor]:
    """Rotary embedding (Su et al., arXiv 2104.09864): queries [row, head, dim]; [row, key or value, kv_head, dim].

    qkv [row, query, key and value heads, dim]; cosines, sines [row, 1, dim].
    """
    rotating, values = torch.split(qkv, [qkv.shape[1] - kv_heads, kv_heads], dim=1)
    first, second = rotating.chunk(2, dim=-1)
    turned = rotating * cosines + torch.cat((-second, first), dim=-1) * sines
    queries, keys = torch.split(turned, [turned.shape[1] - kv_heads, kv_heads], dim=1)
    return queries, torch.stack((keys, values), dim=1)


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) * up [row, inner] of gate and up side by side [row, 2 * inner]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def _of_rows(table: Tensor, positions: Tensor, like: Tensor) -> Tensor:
    return table[positions][:, None].to(like.dtype)


def _filled(rows: Tensor) -> Tensor:
    return F.pad(rows, (0, -len(rows) % ROWS_STEP))


@dataclass(frozen=True, slots=True)
class _Attention:
    """Spans that attend in one call, padded to each other.

    rows [span, query]: of the packed batch; a shorter span repeats its last. slots [span, key]: of the pool. mask
    [span, 1, query, key]: a summand; None: the n-th query sees the first n keys, which the product does faster by
    itself. real: which of the flattened queries are no padding; their rows are `to`.
    """

    rows: Tensor
    slots: Tensor
    mask: Tensor | None
    real: Tensor
    to: Tensor


def _plan(
    spans: Sequence[Span],
    queries: Sequence[Places],
    starts: npt.NDArray[np.int64],
    like: Tensor,
    window: int | None,
) -> list[_Attention]:
    """Which spans attend together. queries: of each span, its tokens that ask; starts: of each span, its first row.

    like: a tensor of the kind and on the device that the mask should be.
    """
    asking = [number for number, of_span in enumerate(queries) if len(of_span)]
    asking.sort(key=lambda number: (len(queries[number]), len(spans[number].slots)))
    groups: list[list[int]] = []
    exact = widest = 0
    for number in asking:
        count, keys = len(queries[number]), len(spans[number].slots)
        exact, widest = exact + count * keys, max(widest, keys)
        if not groups or count * widest * (len(groups[-1]) + 1) > 1.5 * exact + CALL_COST * len(groups[-1]):
            groups.append([])
            exact, widest = count * keys, keys
        groups[-1].append(number)
    return [
        _attention([spans[n] for n in group], [queries[n] for n in group], starts[group], like, window)
        for group in groups
    ]


def _attention(
    spans: Sequence[Span],
    queries: Sequence[Places],
    starts: npt.NDArray[np.int64],
    like: Tensor,
    window: int | None,
) -> _Attention:
    counts = np.array([len(of_span) for of_span in queries])
    past = np.array([span.past for span in spans])
    asked = np.zeros((len(spans), counts.max()), dtype=np.int64)
    for row, of_span in enumerate(queries):
        asked[row, : len(of_span)] = of_span
        asked[row, len(of_span) :] = of_span[-1]
    positions = asked + past[:, None]
    # The first key that anybody sees.
    first = np.maximum(0, positions[:, 0] - window + 1) if window else np.zeros_like(past)
    seen = [span.slots[start:] for span, start in zip(spans, first, strict=True)]
    slots = np.zeros((len(spans), max(map(len, seen))), dtype=np.int64)
    for row, of_span in enumerate(seen):
        slots[row, : len(of_span)] = of_span
    rows = starts[:, None] + asked
    real = np.flatnonzero(np.arange(asked.shape[1]) < counts[:, None])
    mask = None
    if window is not None or past.any() or any(len(span.slots) > n for span, n in zip(spans, counts, strict=True)):
        mask = _mask(positions, first[:, None] + np.arange(slots.shape[1]), window, like)
    device = like.device
    return _Attention(
        rows=torch.from_numpy(rows).to(device),
        slots=torch.from_numpy(slots).to(device),
        mask=mask,
        real=torch.from_numpy(real).to(device),
        to=torch.from_numpy(rows.flatten()[real]).to(device),
    )


def _mask(queries: Places, keys: Places, window: int | None, like: Tensor) -> Tensor:
    """[span, 1, query, key]: minus infinity where a key is hidden. queries, keys [span, n]: their positions."""
    # How far a key stands behind a query, which sees none ahead of it; padded keys stand ahead of all.
    behind = queries[:, None, :, None] - keys[:, None, None, :]
    hidden = torch.from_numpy((behind < 0) | (behind >= window) if window else behind < 0)
    return torch.zeros(hidden.shape, dtype=like.dtype).masked_fill_(hidden, -torch.inf).to(like.device)


def _rows(source: Tensor, indices: Tensor) -> Tensor:
    """source[indices], copied row by row where indexing would go element by element."""
    return source.index_select(0, indices.flatten()).view(*indices.shape, *source.shape[1:])
