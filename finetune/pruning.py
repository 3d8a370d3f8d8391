"""Takes layers, heads, neurons and hidden dimensions out of a Qwen2: what is left is a plain, smaller Qwen2.

What goes is what did least on the tokens that were read: a layer by how little it turned what goes through it (block
influence, Men et al., arXiv 2403.03853), a neuron or a head by how large it was, times the weights behind it (Sun et
al., arXiv 2306.11695), a dimension by how large it was (Muralidharan et al., arXiv 2407.14679). Knows transformers'
Qwen2; trains nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune.recipe import Settings
from fraudguard.engine.head import FusionHead

# What is left of neurons and of dimensions is a multiple of it: int4's groups, and fast for everything else.
STEP = 32

_Share = Annotated[float, Field(ge=0, lt=1)]


class Shares(Settings):
    """Of each kind, the share that goes. heads: of the query heads, the same number in every group that shares keys."""

    layers: _Share
    heads: _Share
    intermediate: _Share
    hidden: _Share


@dataclass(frozen=True, slots=True)
class Importance:
    """How much each did. layers [layer]; heads [layer, head]; neurons [layer, neuron]; hidden [dimension]."""

    layers: Tensor
    heads: Tensor
    neurons: Tensor
    hidden: Tensor


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays, by number, ascending. heads, groups (of heads, with their key and value), neurons: of each layer."""

    layers: list[int]
    heads: list[Tensor]
    groups: list[Tensor]
    neurons: list[Tensor]
    hidden: Tensor


class _Mean:
    """Over tokens."""

    def __init__(self) -> None:
        self._total, self._count = torch.zeros((), dtype=torch.float64), 0

    def add(self, rows: Tensor) -> None:
        """rows [token, ...]."""
        self._total = self._total + rows.double().sum(0).cpu()
        self._count += len(rows)

    @property
    def value(self) -> Tensor:
        return self._total / self._count


def _squares(to: _Mean) -> Callable[[Any, tuple[Tensor, ...]], None]:
    """A hook for what a module reads."""
    return lambda _, arguments: to.add(arguments[0][0].float().square())


def _turning(to: _Mean, size: _Mean) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
    """A hook for how far a layer turns what goes through it, and how large each dimension is behind it."""

    def hook(_: Any, arguments: tuple[Tensor, ...], made: Tensor) -> None:
        after = made[0].float()
        to.add(1 - F.cosine_similarity(arguments[0][0].float(), after, dim=1))
        size.add(F.rms_norm(after, after.shape[1:]).square())

    return hook


@torch.no_grad()
def importance(model: Qwen2ForCausalLM, passages: Iterable[Tensor]) -> Importance:
    """Over the tokens of the passages, each [token], at least one."""
    layers = list(model.model.layers)
    turned, mixed, fed = ([_Mean() for _ in layers] for _ in range(3))
    size = _Mean()
    handles = []
    for layer, *means in zip(layers, turned, mixed, fed, strict=True):
        handles.append(layer.register_forward_hook(_turning(means[0], size)))
        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(_squares(means[1])))
        handles.append(layer.mlp.down_proj.register_forward_pre_hook(_squares(means[2])))
    try:
        for ids in passages:
            model.model(input_ids=ids[None].to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()

    def behind(weight: Tensor) -> Tensor:
        return weight.double().square().sum(0).cpu()

    heads = [mean.value * behind(layer.self_attn.o_proj.weight) for layer, mean in zip(layers, mixed, strict=True)]
    neurons = [mean.value * behind(layer.mlp.down_proj.weight) for layer, mean in zip(layers, fed, strict=True)]
    return Importance(
        torch.stack([mean.value for mean in turned]),
        torch.stack(heads).view(len(layers), model.config.num_attention_heads, -1).sum(2),
        torch.stack(neurons),
        size.value,
    )


def choose(found: Importance, groups: int, shares: Shares) -> Kept:
    """What stays. groups: of query heads that share a key and a value."""
    layers = _largest(found.layers, _left(len(found.layers), shares.layers)).tolist()
    in_groups = found.heads.view(len(found.heads), groups, -1)[layers]  # [layer, group, head]
    each = in_groups.shape[2]
    heads_left = _left(each, shares.heads) if each > 1 else 1
    groups_left = groups if each > 1 else _left(groups, shares.heads)
    kept_groups = [_largest(of_layer.sum(1), groups_left) for of_layer in in_groups]
    return Kept(
        layers,
        [
            torch.cat([int(group) * each + _largest(of_layer[group], heads_left) for group in of_layer_kept])
            for of_layer, of_layer_kept in zip(in_groups, kept_groups, strict=True)
        ],
        kept_groups,
        [_largest(of_layer, _left(len(of_layer), shares.intermediate, STEP)) for of_layer in found.neurons[layers]],
        _largest(found.hidden, _left(len(found.hidden), shares.hidden, STEP)),
    )


def _left(count: int, share: float, step: int = 1) -> int:
    """How many of `count` stay: the nearest multiple of the step, at least one; all of them where nothing goes."""
    return max(step, round(count * (1 - share) / step) * step) if share else count


def _largest(values: Tensor, count: int) -> Tensor:
    return values.topk(min(count, len(values))).indices.sort().values


@torch.no_grad()
def pruned(model: Qwen2ForCausalLM, kept: Kept, found: Importance) -> Qwen2ForCausalLM:
    """A model of what stays, in float32 on the CPU."""
    config, dim = model.config, model.model.layers[0].self_attn.head_dim
    made = Qwen2ForCausalLM(
        Qwen2Config.from_dict(
            config.to_dict()
            | {
                "num_hidden_layers": len(kept.layers),
                "layer_types": [config.layer_types[number] for number in kept.layers],
                "num_attention_heads": len(kept.heads[0]),
                "num_key_value_heads": len(kept.groups[0]),
                "head_dim": dim,
                "intermediate_size": len(kept.neurons[0]),
                "hidden_size": len(kept.hidden),
            }
        )
    ).float()
    hidden = kept.hidden
    # Norms divide by the size of what is left, which is larger than that of all.
    scale = found.hidden[hidden].mean().div(found.hidden.mean()).sqrt().float()
    weights = model.cpu().float().state_dict()
    taken = {
        "model.embed_tokens.weight": weights["model.embed_tokens.weight"][:, hidden],
        "model.norm.weight": weights["model.norm.weight"][hidden] * scale,
        "lm_head.weight": weights["lm_head.weight"][:, hidden],
    }
    for number, old in enumerate(kept.layers):
        queries, keys = _rows(kept.heads[number], dim), _rows(kept.groups[number], dim)
        neurons = kept.neurons[number]
        before, after = f"model.layers.{old}.", f"model.layers.{number}."
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            name = f"self_attn.{part}_proj."
            taken[f"{after}{name}weight"] = weights[f"{before}{name}weight"][rows][:, hidden]
            taken[f"{after}{name}bias"] = weights[f"{before}{name}bias"][rows]
        taken[f"{after}self_attn.o_proj.weight"] = weights[f"{before}self_attn.o_proj.weight"][hidden][:, queries]
        for name in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
            taken[after + name] = weights[before + name][neurons][:, hidden]
        taken[f"{after}mlp.down_proj.weight"] = weights[f"{before}mlp.down_proj.weight"][hidden][:, neurons]
        for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            taken[after + name] = weights[before + name][hidden] * scale
    made.load_state_dict(taken)
    return made.eval()


def _rows(numbers: Tensor, width: int) -> Tensor:
    """The rows of heads that have so many each."""
    return (numbers[:, None] * width + torch.arange(width)).flatten()


@torch.no_grad()
def pruned_head(head: FusionHead, hidden: Tensor) -> FusionHead:
    """The head that reads only these dimensions of the hidden state."""
    made = FusionHead(head.spec.model_copy(update={"hidden_size": len(hidden)}))
    made.lexicon = head.lexicon
    weights = dict(head.state_dict())
    first = weights["mlp.0.weight"]
    weights["mlp.0.weight"] = torch.cat([first[:, hidden], first[:, head.spec.hidden_size :]], dim=1)
    made.load_state_dict(weights)
    return made.eval()
