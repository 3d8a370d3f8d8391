"""Attention over keys and values where they lie in the pool: one kernel launch for a layer, whatever the batch.

Knows places, tiles and one Triton kernel for GPUs; knows no model. A tile is a few consecutive tokens of one span with
all query heads that share a key/value head, so that each key is fetched once for them (GQA); it walks over the keys
with a running softmax (Dao et al., arXiv 2205.14135, algorithm 1). A row's sum runs in the order of its own keys, so it
does not depend on the batch. engine/attention.py is its twin.
"""

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERY_ROWS: Final = 64  # of a tile: tokens times query heads of a key/value head, filled up to a power of two
KEYS_AT_ONCE: Final = 64
WARPS: Final = 4
STAGES: Final = 2
TILE_FIELDS: Final = 4  # row of its first token, how many tokens, the first's position, where its span's places begin


def tile_tokens(heads: int, kv_heads: int) -> int:
    """How many tokens a tile holds."""
    return max(1, QUERY_ROWS // int(triton.next_power_of_2(heads // kv_heads)))


def attend(queries: Tensor, kept: Tensor, tiles: Tensor, places: Tensor, tokens: int, window: int | None) -> Tensor:
    """[row, head * dim]: what the tiles' queries gather; rows of no tile are undefined.

    queries [row, head, dim]; kept [slot, key or value, kv_head, dim]; tiles [n, TILE_FIELDS], int32, of up to `tokens`
    tokens, those of none are skipped; places [any], int32: of the pool, each span's in the order of its positions.
    window: how many tokens a token sees, itself included.
    """
    _, heads, dim = queries.shape
    kv_heads = kept.shape[2]
    found = torch.empty_like(queries, memory_format=torch.contiguous_format)
    _kernel[(len(tiles), kv_heads)](
        queries, kept, found, tiles, places, dim**-0.5, window or 0, queries.stride(0), queries.stride(1),
        kept.stride(0), kept.stride(1), kept.stride(2), heads * dim,
        **constants(heads, kv_heads, dim, tokens, queries.dtype, window), num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return found.flatten(1)


def constants(
    heads: int, kv_heads: int, dim: int, tokens: int, dtype: torch.dtype, window: int | None
) -> dict[str, int | bool]:
    """What the kernel is compiled for. Triton's products want at least 16 in every direction, and powers of two."""
    group = heads // kv_heads
    group_filled = int(triton.next_power_of_2(group))
    return {
        "GROUP": group, "GROUP_FILLED": group_filled, "ROWS": max(16, tokens * group_filled), "DIM": dim,
        "DIM_FILLED": max(16, int(triton.next_power_of_2(dim))), "KEYS": KEYS_AT_ONCE, "WINDOWED": window is not None,
        "EXACT": dtype == torch.float32,
    }  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]  # triton ships no types
def _kernel(  # type: ignore[no-untyped-def]  # pointers and constants of another language
    queries, kept, found, tiles, places, scale, window,
    query_row, query_head, kept_slot, kept_value, kept_head, found_row,
    GROUP: tl.constexpr, GROUP_FILLED: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
    DIM_FILLED: tl.constexpr, KEYS: tl.constexpr, WINDOWED: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    first_row, count = tl.load(tiles + 4 * tile), tl.load(tiles + 4 * tile + 1)
    position, start = tl.load(tiles + 4 * tile + 2), tl.load(tiles + 4 * tile + 3)
    if count == 0:
        return
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    member, token = tl.arange(0, ROWS) % GROUP_FILLED, tl.arange(0, ROWS) // GROUP_FILLED
    dims = tl.arange(0, DIM_FILLED)
    real = (token < count) & (member < GROUP)
    heads = kv_head * GROUP + member
    rows = (first_row + token).to(tl.int64)
    within = real[:, None] & (dims < DIM)[None, :]
    asked = tl.load(queries + rows[:, None] * query_row + heads[:, None] * query_head + dims[None, :], within, 0.0)
    # In powers of two: exp2 is what the hardware has.
    asked = (asked.to(tl.float32) * (scale * 1.4426950408889634)).to(asked.dtype)
    stands = position + token
    end = position + count
    begin = 0
    if WINDOWED:
        begin = tl.maximum(position - window + 1, 0) // KEYS * KEYS
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    gathered = tl.zeros([ROWS, DIM_FILLED], tl.float32)
    for at in range(begin, end, KEYS):
        keys = at + tl.arange(0, KEYS)
        there = keys < end
        place = tl.load(places + start + keys, there, 0).to(tl.int64)
        pointers = kept + place[:, None] * kept_slot + kv_head * kept_head + dims[None, :]
        filled = there[:, None] & (dims < DIM)[None, :]
        key = tl.load(pointers, filled, 0.0)
        value = tl.load(pointers + kept_value, filled, 0.0)
        likeness = tl.dot(asked, tl.trans(key), input_precision=precision)
        behind = stands[:, None] - keys[None, :]
        seen = behind >= 0
        if WINDOWED:
            seen = seen & (behind < window)
        likeness = tl.where(seen, likeness, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(likeness, 1))
        # A row may see nothing yet: -inf less -inf is not a number.
        shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        share = tl.exp2(likeness - shift[:, None])
        decay = tl.exp2(largest - shift)
        weight = weight * decay + tl.sum(share, 1)
        gathered = gathered * decay[:, None] + tl.dot(share.to(value.dtype), value, input_precision=precision)
        largest = new_largest
    gathered = gathered / weight[:, None]
    pointers = found + rows[:, None] * found_row + heads[:, None] * DIM + dims[None, :]
    tl.store(pointers, gathered.to(found.dtype.element_ty), within)
