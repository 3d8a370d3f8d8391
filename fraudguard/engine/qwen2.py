"""Qwen2's forward pass over packed tokens: the new ones of many timelines, each read after what its cache holds.

Knows tensors and the architecture (Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen). No sequence is padded; query, key and
value are one product, and so are gate and up; the last layer is worked out where a verdict is read and nowhere else.
Knows no tokenizer, no head and no account.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2Model

# Rows of the packed batch are filled up to a multiple of this: oneDNN compiles an int8 kernel for every number of rows.
ROWS_STEP: Final = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of an architecture. window: how many tokens a token sees, itself included; None for all."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    positions: int
    rope_theta: float
    norm_eps: float

    @classmethod
    def of(cls, config: Qwen2Config) -> Self:
        """As a checkpoint's config.json says."""
        return cls(
            config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads,
            config.num_key_value_heads, config.hidden_size // config.num_attention_heads, config.intermediate_size,
            config.max_position_embeddings, config.rope_parameters["rope_theta"], config.rms_norm_eps,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one timeline in a packed batch.

    past: how many tokens before them `kv` holds. count: how many they are. ends: those of them whose hidden state is
    wanted, counted from the span's first. kv: [layer, key or value, kv_head, capacity, head_dim]; the new tokens' go
    behind the past ones.
    """

    past: int
    count: int
    ends: Sequence[int]
    kv: Tensor


class _Norm(nn.Module):
    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(hidden)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner = shape.heads * shape.head_dim
        self.attention_norm = _Norm(shape.hidden, shape.norm_eps)
        self.qkv = nn.Linear(shape.hidden, inner + 2 * shape.kv_heads * shape.head_dim)
        self.out = nn.Linear(inner, shape.hidden, bias=False)
        self.mlp_norm = _Norm(shape.hidden, shape.norm_eps)
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.intermediate, bias=False)
        self.down = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def feed(self, x: Tensor) -> Tensor:
        """x plus what the feed-forward half adds to it."""
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        added: Tensor = self.down(F.silu(gate).mul_(up))
        return x + added


class Qwen2(nn.Module):
    """Token ids in, final hidden states at the wanted tokens out."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        self._layers = [_Layer(shape) for _ in range(shape.layers)]
        self.layers = nn.ModuleList(self._layers)
        self.norm = _Norm(shape.hidden, shape.norm_eps)
        cosines, sines = _rotations(shape)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    @classmethod
    @torch.no_grad()
    def of(cls, source: Qwen2Model) -> Self:
        """The same body as transformers' own, its weights copied into fused ones."""
        with torch.device("meta"):
            made = cls(Shape.of(source.config))
        made.cosines, made.sines = _rotations(made.shape)
        weights = {"embedding.weight": source.embed_tokens.weight, "norm.weight": source.norm.weight}
        for number, layer in enumerate(source.layers):
            attention, mlp, prefix = layer.self_attn, layer.mlp, f"layers.{number}."
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            weights |= {
                f"{prefix}attention_norm.weight": layer.input_layernorm.weight,
                f"{prefix}qkv.weight": torch.cat([part.weight for part in parts]),
                f"{prefix}qkv.bias": torch.cat([part.bias for part in parts]),
                f"{prefix}out.weight": attention.o_proj.weight,
                f"{prefix}mlp_norm.weight": layer.post_attention_layernorm.weight,
                f"{prefix}gate_up.weight": torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
                f"{prefix}down.weight": mlp.down_proj.weight,
            }
        made.load_state_dict(weights, assign=True)
        return made.eval().requires_grad_(False)

    def new_kv(self, capacity: int) -> Tensor:
        """Room for the keys and values of so many tokens of one timeline."""
        shape = self.shape
        return self.cosines.new_empty(shape.layers, 2, shape.kv_heads, capacity, shape.head_dim)

    def forward(self, ids: Tensor, spans: Sequence[Span]) -> Tensor:
        """ids [token]: the spans' tokens, one span after the other. Gives [end, hidden]: the spans' ends in order."""
        total = len(ids)
        positions = torch.cat([torch.arange(span.past, span.past + span.count) for span in spans])
        ids, positions = (F.pad(row, (0, -total % ROWS_STEP)) for row in (ids, positions))
        x = self.embedding(ids)
        cosines, sines = self.cosines[positions][:, None], self.sines[positions][:, None]
        masks = [_mask(span, range(span.count), x.dtype) for span in spans]
        for number, layer in enumerate(self._layers[:-1]):
            x = self._layer(layer, number, x, cosines, sines, spans, masks)
        return self._last_layer(x, cosines, sines, spans)

    def _project(self, layer: _Layer, x: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [token, head, dim] and keys, and values [token, kv_head, dim]."""
        shape = self.shape
        qkv = layer.qkv(layer.attention_norm(x)).view(len(x), -1, shape.head_dim)
        rotating, values = qkv.split((shape.heads + shape.kv_heads, shape.kv_heads), dim=1)
        first, second = rotating.chunk(2, dim=-1)
        rotated = rotating * cosines + torch.cat((-second, first), dim=-1) * sines
        queries, keys = rotated.split((shape.heads, shape.kv_heads), dim=1)
        return queries, keys, values

    def _layer(
        self, layer: _Layer, number: int, x: Tensor, cosines: Tensor, sines: Tensor, spans: Sequence[Span],
        masks: Sequence[Tensor | None],
    ) -> Tensor:  # fmt: skip
        queries, keys, values = self._project(layer, x, cosines, sines)
        attended = torch.zeros_like(queries)
        start = 0
        for span, mask in zip(spans, masks, strict=True):
            stop = start + span.count
            _store(span, number, keys[start:stop], values[start:stop])
            attended[start:stop] = _attend(queries[start:stop], span, number, mask)
            start = stop
        return layer.feed(x + layer.out(attended.flatten(1)))

    def _last_layer(self, x: Tensor, cosines: Tensor, sines: Tensor, spans: Sequence[Span]) -> Tensor:
        layer, number = self._layers[-1], len(self._layers) - 1
        queries, keys, values = self._project(layer, x, cosines, sines)
        attended, wanted = [], []
        start = 0
        for span in spans:
            stop = start + span.count
            _store(span, number, keys[start:stop], values[start:stop])
            if span.ends:
                rows = [start + end for end in span.ends]
                attended.append(_attend(queries[rows], span, number, _mask(span, span.ends, x.dtype)))
                wanted += rows
            start = stop
        if not wanted:
            return x[:0]
        missing = -len(wanted) % ROWS_STEP
        ends = F.pad(torch.cat(attended).flatten(1), (0, 0, 0, missing))
        x = F.pad(x[wanted], (0, 0, 0, missing)) + layer.out(ends)
        last: Tensor = self.norm(layer.feed(x))
        return last[: len(wanted)]


def _rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines [position, head_dim] of the rotary embedding (Su et al., arXiv 2104.09864)."""
    inverse = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2, device="cpu") / shape.head_dim)
    angles = torch.outer(torch.arange(shape.positions, device="cpu"), inverse).repeat(1, 2)
    return angles.cos(), angles.sin()


def _mask(span: Span, rows: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """What each of these tokens of the span sees [row, past + count], as a summand; None where that is everything."""
    if span.count == 1:
        return None
    sees = torch.tensor(rows)[:, None] + span.past >= torch.arange(span.past + span.count)
    return torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, -torch.inf)


def _store(span: Span, layer: int, keys: Tensor, values: Tensor) -> None:
    room = span.kv[layer, :, :, span.past : span.past + span.count]
    room[0], room[1] = keys.transpose(0, 1), values.transpose(0, 1)


def _attend(queries: Tensor, span: Span, layer: int, mask: Tensor | None) -> Tensor:
    """[row, head, dim] for queries of the same shape, over the span's past and its own tokens."""
    keys, values = span.kv[layer, :, None, :, : span.past + span.count]
    rows = queries.transpose(0, 1)[None]
    return F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)
