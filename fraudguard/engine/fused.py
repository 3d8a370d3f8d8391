"""What lies between a pass's products on a GPU, in one kernel each instead of several: less memory is walked over.

Knows Triton kernels for GPUs; knows no model. Sums are in float32, whatever the tensors are. Twins: attention.py's
rotation, and silu(gate) * up.
"""

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS: Final = 1_024  # of one program of `gated`


def place(qkv: Tensor, positions: Tensor, slots: Tensor, cosines: Tensor, sines: Tensor, kept: Tensor) -> Tensor:
    """Rotated queries [row, head, dim]; keys, rotated too, and values go to their slots of one layer's pool.

    qkv [row, query, key and value heads, dim]; positions, slots [row]; cosines, sines [position, dim], float32, the
    same in both halves (Su et al., arXiv 2104.09864); kept [slot, key or value, kv_head, dim].
    """
    rows, heads, dim = qkv.shape
    kv_heads = kept.shape[2]
    queries = torch.empty((rows, heads - 2 * kv_heads, dim), dtype=qkv.dtype, device=qkv.device)
    _place[(rows,)](
        qkv, positions, slots, cosines, sines, queries, kept, qkv.stride(0), kept.stride(0), kept.stride(1),
        HEADS=heads, HEADS_FILLED=int(triton.next_power_of_2(heads)), KV_HEADS=kv_heads,
        HALF=dim // 2, HALF_FILLED=int(triton.next_power_of_2(dim // 2)), num_warps=4,
    )  # fmt: skip
    return queries


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) * up [row, inner] of gate and up side by side [row, 2 * inner]."""
    rows, width = gate_up.shape
    inner = width // 2
    found = torch.empty((rows, inner), dtype=gate_up.dtype, device=gate_up.device)
    _gated[(rows, triton.cdiv(inner, NUMBERS))](gate_up, found, inner, NUMBERS=NUMBERS, num_warps=4)
    return found


@triton.jit  # type: ignore[untyped-decorator]  # triton ships no types
def _place(  # type: ignore[no-untyped-def]  # pointers and constants of another language
    qkv, positions, slots, cosines, sines, queries, kept, qkv_row, kept_slot, kept_value,
    HEADS: tl.constexpr, HEADS_FILLED: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr,
    HALF_FILLED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    heads, dims = tl.arange(0, HEADS_FILLED), tl.arange(0, HALF_FILLED)
    real = (heads < HEADS)[:, None] & (dims < HALF)[None, :]
    source = qkv + row * qkv_row + heads[:, None] * 2 * HALF + dims[None, :]
    first = tl.load(source, real, 0.0).to(tl.float32)
    second = tl.load(source + HALF, real, 0.0).to(tl.float32)
    angle = tl.load(positions + row).to(tl.int64) * 2 * HALF + dims
    cosine, sine = tl.load(cosines + angle, dims < HALF, 0.0), tl.load(sines + angle, dims < HALF, 0.0)
    turns = (heads < HEADS - KV_HEADS)[:, None]
    turned = tl.where(turns, first * cosine[None, :] - second * sine[None, :], first)
    second = tl.where(turns, second * cosine[None, :] + first * sine[None, :], second)
    asking: tl.constexpr = HEADS - 2 * KV_HEADS
    asks = real & (heads < asking)[:, None]
    target = queries + (row * asking + heads[:, None]) * 2 * HALF + dims[None, :]
    tl.store(target, turned.to(queries.dtype.element_ty), asks)
    tl.store(target + HALF, second.to(queries.dtype.element_ty), asks)
    stays = real & (heads >= asking)[:, None]
    slot, number = tl.load(slots + row).to(tl.int64), tl.maximum(heads - asking, 0)
    places = number // KV_HEADS * kept_value + number % KV_HEADS * 2 * HALF
    target = kept + slot * kept_slot + places[:, None] + dims[None, :]
    tl.store(target, turned.to(kept.dtype.element_ty), stays)
    tl.store(target + HALF, second.to(kept.dtype.element_ty), stays)


@triton.jit  # type: ignore[untyped-decorator]  # triton ships no types
def _gated(gate_up, found, inner, NUMBERS: tl.constexpr):  # type: ignore[no-untyped-def]  # as above
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    real = columns < inner
    gate = tl.load(gate_up + row * 2 * inner + columns, real, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * inner + inner + columns, real, 0.0).to(tl.float32)
    tl.store(found + row * inner + columns, (gate / (1 + tl.exp(-gate)) * up).to(found.dtype.element_ty), real)
