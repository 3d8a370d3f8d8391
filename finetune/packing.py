"""Passages of different lengths in one row, without padding and without reading each other.

Knows token ids and lengths. Positions begin anew with every passage, and attention stops at its ends, so a passage is
read as if it were alone; tests/unit/finetune/test_packing.py holds it to that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

ATTENTION = "passages"
# Few distinct shapes: oneDNN compiles a kernel for each (bfloat16 on the CPU). What fills a row up is a passage too.
ROW_STEP = 32

Step = list[list[int]]  # rows of passages, by number


def plan(lengths: Sequence[int], batch_tokens: int, row_tokens: int, rng: Random) -> Iterator[Step]:
    """An epoch's steps: each passage once, in random order; at most batch_tokens a step, row_tokens a row.

    A passage longer than either is a step, or a row, of its own. Which passages share a step does not depend on
    row_tokens.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    for step in filled(order, lengths, batch_tokens):
        yield list(filled(step, lengths, row_tokens))


def filled(order: Sequence[int], lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The passages in this order, in groups of at most so many tokens."""
    taken: list[int] = []
    room = tokens
    for passage in order:
        if taken and lengths[passage] > room:
            yield taken
            taken, room = [], tokens
        taken.append(passage)
        room -= lengths[passage]
    if taken:
        yield taken


@dataclass(frozen=True, slots=True)
class Row:
    """ids, positions [1, token]. starts: where each passage begins, then the row's end. lengths: of each."""

    ids: Tensor
    positions: Tensor
    starts: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, passages: Sequence[Tensor], device: torch.device) -> "Row":
        """passages: the ids of each [token]."""
        lengths = [len(ids) for ids in passages]
        fill = -sum(lengths) % ROW_STEP
        if fill:
            passages, lengths = [*passages, torch.zeros(fill, dtype=torch.long)], [*lengths, fill]
        positions = torch.cat([torch.arange(length) for length in lengths])
        starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        ids = torch.cat(list(passages))[None]
        return cls(ids.to(device), positions[None].to(device), starts.to(device), tuple(lengths))


def hidden_states(model: PeftModel, row: Row) -> Tensor:
    """The last hidden state of every token of the row [token, hidden_size]."""
    body = (model.get_base_model() if isinstance(model, PeftModel) else model).model
    if body.config._attn_implementation != ATTENTION:
        body.set_attn_implementation(ATTENTION)
    states: Tensor = body(
        input_ids=row.ids,
        position_ids=row.positions,
        attention_mask={"full_attention": None, "sliding_attention": None},  # or transformers builds token by token
        use_cache=False,
        packed=row,
    ).last_hidden_state[0]
    return states


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    packed: Row,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each passage. query [1, head, token, dim], key and value [1, kv_head, token, dim]."""
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotating may have made them float32
    window = None if sliding_window is None or sliding_window >= max(packed.lengths) else sliding_window
    if value.is_cuda and value.dtype != torch.float32:
        return _on_gpu(query, key, value, scaling, packed, window), None
    lengths = list(packed.lengths)
    parts = zip(*(torch.split(part, lengths, 2) for part in (query, key, value)), strict=True)
    mixed = [
        F.scaled_dot_product_attention(
            q, k, v, _window(q, window), is_causal=window is None, scale=scaling, enable_gqa=True
        )
        for q, k, v in parts
    ]
    return torch.cat(mixed, 2).transpose(1, 2), None


def _on_gpu(query: Tensor, key: Tensor, value: Tensor, scaling: float, packed: Row, window: int | None) -> Tensor:
    """The same as one kernel, which takes 16 bits only: [1, token, head, dim]."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(packed.lengths)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # [token, head, dim]
    left = -1 if window is None else window - 1
    mixed = varlen_attn(
        q, k, v, packed.starts, packed.starts, longest, longest,
        scale=scaling, window_size=(left, 0), enable_gqa=True,
    )  # fmt: skip
    return cast(Tensor, mixed)[None]


def _window(query: Tensor, window: int | None) -> Tensor | None:
    """Which tokens [token, seen token] are seen by each, where that is not all before it."""
    if window is None:
        return None
    length = query.shape[2]
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    return seen.triu(1 - window)


AttentionInterface.register(ATTENTION, _attention)
