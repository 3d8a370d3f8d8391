"""Qwen2's forward pass over packed tokens: the new ones of many timelines, each read after what its cache holds.

Knows tensors and the architecture (Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen). No sequence is padded; query, key and
value are one product, and so are gate and up; the last layer is worked out where a verdict is read and nowhere else.
Knows no tokenizer, no head and no account.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2Model

from fraudguard.engine.adapters import Adapted, AdaptedEmbedding, LowRank, Mix, product
from fraudguard.engine.attention import ROWS_STEP, Batch, Gathered, Span, gated, rotated

# Rows that the feed-forward half takes at once: what lies between its products shall stay in the CPU's caches.
ROWS_FED: Final = 512


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of an architecture. windows: of each layer, how many tokens a token sees, itself included."""

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
    windows: tuple[int | None, ...]  # None: all of them

    @classmethod
    def of(cls, config: Qwen2Config) -> Self:
        """As a checkpoint's config.json says."""
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        windows = (config.sliding_window if kind == "sliding_attention" else None for kind in config.layer_types)
        return cls(
            config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads,
            config.num_key_value_heads, head_dim, config.intermediate_size,
            config.max_position_embeddings, config.rope_parameters["rope_theta"], config.rms_norm_eps,
            tuple(windows),
        )  # fmt: skip


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

    def fed(self, x: Tensor, gated: Callable[[Tensor], Tensor], mix: Mix | None = None) -> Tensor:
        """What the feed-forward half adds to x."""
        return product(self.down, gated(product(self.gate_up, self.mlp_norm(x), mix)), mix)

    def feed(self, x: Tensor, batch: Batch, mix: Mix | None) -> Tensor:
        """x, to which the feed-forward half has been added in place."""
        if x.is_cuda:
            return x.add_(self.fed(x, batch.gated, mix))
        parts = max(1, round(len(x) / ROWS_FED))
        step = ROWS_STEP * -(-len(x) // (parts * ROWS_STEP))
        for number, rows in enumerate(torch.split(x, step)):
            mix_of_rows = None if mix is None else mix[number * step : (number + 1) * step]
            rows.add_(self.fed(rows, batch.gated, mix_of_rows))
        return x


class Qwen2(nn.Module):
    """Token ids in, final hidden states at the wanted tokens out."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding: nn.Module = nn.Embedding(shape.vocabulary, shape.hidden)
        self._layers = [_Layer(shape) for _ in range(shape.layers)]
        self.layers = nn.ModuleList(self._layers)
        self.norm = _Norm(shape.hidden, shape.norm_eps)
        self.adapters = 0  # how many are beside the weights, unmerged
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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    def adapt(self, adapters: Sequence[Mapping[str, LowRank]]) -> None:
        """Put adapters beside the weights; a span names its own by number.

        adapters: by the names of a checkpoint's modules, such as `layers.0.mlp.up_proj` or `embed_tokens`.
        """
        shape, like = self.shape, self.norm.weight
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        fused = {
            "qkv": {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys},
            "out": {"self_attn.o_proj": shape.hidden},
            "gate_up": {"mlp.gate_proj": shape.intermediate, "mlp.up_proj": shape.intermediate},
            "down": {"mlp.down_proj": shape.hidden},
        }
        as_here = [
            {name: LowRank(part.down.to(like), part.up.to(like)) for name, part in adapter.items()}
            for adapter in adapters
        ]
        for number, layer in enumerate(self._layers):
            for name, widths in fused.items():
                of_layer = [[adapter.get(f"layers.{number}.{part}") for part in widths] for adapter in as_here]
                if any(part is not None for parts in of_layer for part in parts):
                    setattr(layer, name, Adapted(getattr(layer, name), list(widths.values()), of_layer))
        of_embedding = [[adapter.get("embed_tokens")] for adapter in as_here]
        if any(part is not None for (part,) in of_embedding):
            self.embedding = AdaptedEmbedding(self.embedding, [shape.hidden], of_embedding)
        self.adapters = len(adapters)

    def new_pool(self, slots: int) -> Tensor:
        """Room for the keys and values of so many tokens: [layer, slot, key or value, kv_head, head_dim]."""
        shape, weight = self.shape, self.norm.weight
        size = (shape.layers, slots, 2, shape.kv_heads, shape.head_dim)
        # Zeros: what stands in a padded key's place is read, though it weighs nothing.
        if weight.is_cuda or not slots:
            return weight.new_zeros(size)
        # numpy's take no memory before they are written, and most of a pool seldom is.
        zeros = np.zeros(math.prod(size) * weight.element_size(), dtype=np.uint8)
        return torch.from_numpy(zeros).view(weight.dtype).view(size)

    def forward(self, ids: Tensor, spans: Sequence[Span], pool: Tensor) -> Tensor:
        """ids [token]: the spans' own tokens, one span after the other. Gives [end, hidden]: the spans' ends in order.

        ids may be anywhere; the states are where the model is. A span may continue an earlier one of the same batch.
        """
        batch = Gathered(ids, spans, self.norm.weight, adapted=self.adapters > 0)
        return self.read(batch, pool)[: sum(len(span.ends) for span in spans)]

    def read(self, batch: Batch, pool: Tensor) -> Tensor:
        """[wanted, hidden]: the final hidden states. Fills the batch's places of the pool."""
        mix = None
        if batch.adapters is not None:
            mix = Mix.of(batch.adapters, self.adapters, masked=batch.adapters.is_cuda)
        x = product(self.embedding, batch.ids, mix)
        tables = self.cosines, self.sines
        *windows, last_window = self.shape.windows
        for layer, kept, window in zip(self._layers[:-1], pool[:-1], windows, strict=True):
            queries = batch.place(self._qkv(layer, x, mix), *tables, kept)
            x = layer.feed(x + product(layer.out, batch.attend(queries, kept, window, ends=False), mix), batch, mix)
        layer, kept = self._layers[-1], pool[-1]
        queries = batch.place(self._qkv(layer, x, mix), *tables, kept)
        if not len(batch.wanted):
            return x[:0]
        attended = batch.attend(queries, kept, last_window, ends=True)[batch.wanted]
        mix = None if mix is None else mix[batch.wanted]
        last: Tensor = self.norm(layer.feed(x[batch.wanted] + product(layer.out, attended, mix), batch, mix))
        return last

    def extend(self, ids: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One timeline's next tokens, without spans or a pool: what can be traced into a graph.

        ids [new]; past [layer, past, key or value, kv_head, head_dim]. Gives the final hidden state at the last token
        [1, hidden] and the new tokens' keys and values, shaped like the past ones.
        """
        positions = torch.arange(ids.shape[0]) + past.shape[1]
        behind = positions[:, None] - torch.arange(past.shape[1] + ids.shape[0])  # how far a key stands behind a query
        cosines, sines = self.cosines[positions][:, None], self.sines[positions][:, None]
        x: Tensor = self.embedding(ids)
        added = []
        for layer, kept, window in zip(self._layers, past, self.shape.windows, strict=True):
            queries, new = rotated(self._qkv(layer, x), cosines, sines, self.shape.kv_heads)
            seen = behind >= 0 if window is None else (behind >= 0) & (behind < window)
            if layer is self._layers[-1]:
                x, queries, seen = x[-1:], queries[-1:], seen[-1:]
            keys, values = torch.cat((kept, new)).permute(1, 2, 0, 3)[:, None]
            asked = queries.transpose(0, 1)[None]
            found = F.scaled_dot_product_attention(asked, keys, values, attn_mask=seen, enable_gqa=True)
            x = x + layer.out(found[0].transpose(0, 1).flatten(1))
            x = x + layer.fed(x, gated)
            added.append(new)
        return self.norm(x), torch.stack(added)

    def _qkv(self, layer: _Layer, x: Tensor, mix: Mix | None = None) -> Tensor:
        """[token, query, key and value heads, dim]."""
        shape = self.shape
        qkv = product(layer.qkv, layer.attention_norm(x), mix)
        return qkv.view(-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)


def _rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines [position, head_dim] of the rotary embedding (Su et al., arXiv 2104.09864)."""
    inverse = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2, device="cpu") / shape.head_dim)
    angles = torch.outer(torch.arange(shape.positions, device="cpu"), inverse).repeat(1, 2)
    return angles.cos(), angles.sin()
