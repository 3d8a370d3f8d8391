"""The engines that benchmarks/gpu.py measures side by side, on the device where the model is.

As in peers.py, each reads the same token ids with the same weights and gives the final hidden states at the ends.
Knows how each is used at its best on a GPU; knows no clock. On the CPU all of it runs too, without CUDA graphs and with
another attention for packed timelines.
"""

import copy
import importlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import (
    AttentionInterface,
    DynamicCache,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2Model,
    StaticCache,
)

from benchmarks.peers import Ours, Peer, Transformers
from benchmarks.workloads import LENGTH_MAX, Event
from fraudguard.engine.kv_cache import PAGE
from fraudguard.engine.precision import Precision

PACKED_TOKENS: Final = 16_384  # of one packed pass: above what any of the models needs to keep the GPU busy
CROSS_ENCODER_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Sizes:
    """Workload A. accounts: how many keep `cached` tokens each; an event adds `new` tokens."""

    accounts: int
    cached: int
    new: int


def compiled(model: Qwen2Model, _sizes: Sizes) -> Peer:
    """torch.compile of every layer for any shape: one compilation serves them all, a second one batches of one."""
    twin = _twin(model)
    for layer in twin.layers:
        layer.compile(dynamic=True)
    return Transformers(twin, padded=True, exact=False)


def _twin(model: Qwen2Model) -> Qwen2Model:
    """Modules of its own over the same weights."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


class Kept:
    """transformers with the accounts' keys and values: gathered into a batch's cache, read on, the new ones put back.

    All timelines are either the cached part (untimed: it is read and kept) or that and the new tokens, of the account
    that was seen. graphs: StaticCache, and the whole step captured for each number of events; else DynamicCache, eager.
    """

    exact, keeps = False, True

    def __init__(self, model: Qwen2Model, sizes: Sizes, *, graphs: bool) -> None:
        config = model.config
        self._model, self._sizes, self._graphs = model, sizes, graphs
        self._kv_heads, self._head_dim = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        length = sizes.cached + sizes.new
        # [layer, key or value, account, kv_head, token, head_dim]
        self._store = torch.zeros(
            config.num_hidden_layers, 2, sizes.accounts, self._kv_heads, length, self._head_dim,
            dtype=model.dtype, device=model.device,
        )  # fmt: skip
        self._rows: dict[str, int] = {}
        behind = torch.arange(length) - torch.arange(sizes.cached, length)[:, None]
        # A summand: sdpa would make one of a mask of booleans in every layer.
        self._mask = torch.zeros(sizes.new, length).masked_fill_(behind > 0, -torch.inf).to(self._store)[None, None]
        self._positions = torch.arange(sizes.cached, length, device=model.device)[None]
        self._steps: dict[int, _Step] = {}

    @torch.inference_mode()
    def read(self, events: Sequence[Event]) -> Tensor:  # noqa: D102 - see Peer
        rows = torch.tensor([self._rows.setdefault(event.account, len(self._rows)) for event in events])
        if len(events[0].ids) == self._sizes.cached:
            return self._learn(torch.tensor([event.ids for event in events]), rows.to(self._store.device))
        step = self._steps.get(len(events)) or self._step(len(events))
        step.ids.copy_(torch.tensor([event.ids[self._sizes.cached :] for event in events]))
        step.rows.copy_(rows)
        return step.run().float().cpu()

    def _learn(self, ids: Tensor, rows: Tensor) -> Tensor:
        cache = DynamicCache()
        states: Tensor = self._model(ids.to(rows.device), past_key_values=cache, use_cache=True).last_hidden_state
        for kept, layer in zip(self._store[..., : self._sizes.cached, :], cache.layers, strict=True):
            kept.index_copy_(1, rows, torch.stack((layer.keys, layer.values)))
        return states[:, -1].float().cpu()

    def _step(self, count: int) -> "_Step":
        """The step of so many events, captured if it is to be."""
        device = self._store.device
        ids = torch.zeros(count, self._sizes.new, dtype=torch.long, device=device)
        rows = torch.arange(count, device=device)
        if not self._graphs:
            made = _Step(ids, rows, lambda: self._dynamic(ids, rows))
        else:
            cache = StaticCache(config=self._model.config, max_cache_len=self._store.shape[4])
            cache.early_initialization(count, self._kv_heads, self._head_dim, self._store.dtype, device)
            made = _Step(ids, rows, lambda: self._static(ids, rows, cache))
            if device.type == "cuda":
                made.capture()
        self._steps[count] = made
        return made

    def _dynamic(self, ids: Tensor, rows: Tensor) -> Tensor:
        held = self._store[..., : self._sizes.cached, :].index_select(2, rows)
        cache = DynamicCache((keys, values) for keys, values in held)
        states = self._forward(ids, cache)
        grown = torch.stack([torch.stack((layer.keys, layer.values)) for layer in cache.layers])
        self._put(rows, grown)
        return states

    def _static(self, ids: Tensor, rows: Tensor, cache: Any) -> Tensor:
        held = self._store.index_select(2, rows)
        for layer, (keys, values) in zip(cache.layers, held, strict=True):
            layer.keys, layer.values = keys, values
            layer.cumulative_length.fill_(self._sizes.cached)
        states = self._forward(ids, cache)
        self._put(rows, held)
        return states

    def _forward(self, ids: Tensor, cache: Any) -> Tensor:
        # The mask as a mapping: transformers takes it as it is, whether or not a graph is being captured.
        states: Tensor = self._model(
            ids, attention_mask={"full_attention": self._mask}, position_ids=self._positions,
            past_key_values=cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
        return states[:, -1]

    def _put(self, rows: Tensor, grown: Tensor) -> None:
        cached = self._sizes.cached
        self._store[..., cached:, :].index_copy_(2, rows, grown[..., cached:, :])


class _Step:
    """What is done with a number of events; its inputs are always the same tensors."""

    def __init__(self, ids: Tensor, rows: Tensor, run: Callable[[], Tensor]) -> None:
        self.ids, self.rows, self.run = ids, rows, run

    def capture(self) -> None:
        """Record `run` as a CUDA graph, after two runs on a side stream that set everything up."""
        eager = self.run
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own has no types
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            eager()
            eager()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            states = eager()

        def replay() -> Tensor:
            graph.replay()
            return states

        self.run = replay


class Packed:
    """transformers over packed timelines: first in, first out up to a token budget, flash attention by length."""

    exact = keeps = False

    def __init__(self, model: Qwen2Model, _sizes: Sizes) -> None:
        AttentionInterface.register("packed", _packed_attention)
        self._model = _twin(model)
        self._model.set_attn_implementation("packed")

    @torch.inference_mode()
    def read(self, events: Sequence[Event]) -> Tensor:  # noqa: D102 - see Peer
        passes: list[list[Event]] = [[]]
        budget = PACKED_TOKENS
        for event in events:
            if passes[-1] and len(event.ids) > budget:
                passes.append([])
                budget = PACKED_TOKENS
            passes[-1].append(event)
            budget -= len(event.ids)
        return torch.cat([self._ends(taken) for taken in passes])

    def _ends(self, events: Sequence[Event]) -> Tensor:
        device = self._model.device
        lengths = [len(event.ids) for event in events]
        ids = torch.tensor([token for event in events for token in event.ids])
        positions = torch.cat([torch.arange(length) for length in lengths])
        starts = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(torch.int32).to(device)
        states: Tensor = self._model(
            ids[None].to(device), attention_mask={"full_attention": None}, position_ids=positions[None].to(device),
            use_cache=False, cu_seq_lens_q=starts, max_length_q=max(lengths),
        ).last_hidden_state  # fmt: skip
        return states[0, starts[1:].long() - 1].float().cpu()


def _packed_attention(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: None,
    cu_seq_lens_q: Tensor, max_length_q: int, scaling: float, **_others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As transformers calls it: [1, head, token, dim] each; gives [1, token, head, dim]."""
    if query.is_cuda:
        found = varlen_attn(
            query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1),
            cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
            scale=scaling, window_size=(-1, 0), enable_gqa=True,
        )  # fmt: skip
        assert isinstance(found, Tensor)  # a pair only if more is asked for
        return found[None], None
    lengths = cu_seq_lens_q.diff().tolist()  # the CPU has no kernel for packed sequences
    parts = [
        F.scaled_dot_product_attention(asked, keys, values, is_causal=True, scale=scaling, enable_gqa=True)
        for asked, keys, values in zip(
            *(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True
        )
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


class CrossEncoded:
    """sentence-transformers' CrossEncoder by its public call, pairs of texts: the lines before, and the event's.

    As many labels as the hidden state has numbers, and the classifier that copies them: so its verdicts are the states
    (0.2 % more work). The texts are ids in decimal; splitting them is cheaper than a real tokenizer.
    """

    exact = keeps = False

    def __init__(self, model: Qwen2Model, _sizes: Sizes) -> None:
        encoder = importlib.import_module("sentence_transformers").CrossEncoder
        vocabulary, hidden = model.config.vocab_size, model.config.hidden_size
        words = {str(number): number for number in range(vocabulary - 1)} | {"[PAD]": vocabulary - 1}
        tokenizer = Tokenizer(WordLevel(words, unk_token="[PAD]"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        config = copy.deepcopy(model.config)
        config.num_labels, config.pad_token_id = hidden, vocabulary - 1
        with torch.device("meta"):
            classifier = Qwen2ForSequenceClassification(config)
        classifier.model = model
        classifier.score.weight = nn.Parameter(torch.eye(hidden, dtype=model.dtype, device=model.device))
        with tempfile.TemporaryDirectory() as folder:
            classifier.save_pretrained(folder)
            decimal = PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=LENGTH_MAX
            )
            decimal.save_pretrained(folder)
            self._encoder = encoder(
                folder, device=str(model.device), local_files_only=True,
                model_kwargs={"dtype": model.dtype, "attn_implementation": "sdpa"},
            )  # fmt: skip
        self._encoder[0].processor = decimal  # what is loaded for a Qwen2 model splits numbers into digits

    def read(self, events: Sequence[Event]) -> Tensor:  # noqa: D102 - see Peer
        texts = [[line.text for line in event.request.timeline.lines] for event in events]
        found: Tensor = self._encoder.predict(
            [(" ".join(before), last) for *before, last in texts], batch_size=CROSS_ENCODER_BATCH,
            activation_fn=nn.Identity(), convert_to_tensor=True, show_progress_bar=False,
        )  # fmt: skip
        return found.float().cpu()


def ours(model: Qwen2Model, sizes: Sizes, precision: Precision, *, graphs: bool) -> Peer:
    """Room for every account's timeline and as much again for those that come once."""
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    token_bytes = config.num_hidden_layers * 2 * config.num_key_value_heads * head_dim * model.dtype.itemsize
    tokens = 2 * sizes.accounts * (sizes.cached + sizes.new + PAGE)
    return Ours(model, precision, keeps=True, cache_bytes=tokens * token_bytes, graphs=graphs)


# The first is what the others are compared with; those that may fail or take long come last.
PEERS: dict[str, Callable[[Qwen2Model, Sizes], Peer]] = {
    "transformers, padded": lambda model, _: Transformers(model, padded=True, exact=False),
    "ours bf16, graphs": lambda model, sizes: ours(model, sizes, "bf16", graphs=True),
    "ours bf16, eager": lambda model, sizes: ours(model, sizes, "bf16", graphs=False),
    "ours fp8, graphs": lambda model, sizes: ours(model, sizes, "fp8", graphs=True),
    "transformers, DynamicCache": lambda model, sizes: Kept(model, sizes, graphs=False),
    "transformers, packed": Packed,
    "transformers, StaticCache, graphs": lambda model, sizes: Kept(model, sizes, graphs=True),
    "CrossEncoder": CrossEncoded,
    "transformers, torch.compile": compiled,
}


def config_of(layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, vocabulary: int) -> Qwen2Config:
    """Of a Qwen2.5 shape."""
    return Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=intermediate, max_position_embeddings=32_768,
        attn_implementation="sdpa", rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip


# As the published config.json files say; "tiny" is for a rehearsal.
MODELS: dict[str, Qwen2Config] = {
    "tiny": config_of(3, 64, 4, 2, 160, 512),
    "0.5b": config_of(24, 896, 14, 2, 4_864, 151_936),
    "1.5b": config_of(28, 1_536, 12, 2, 8_960, 151_936),
    "7b": config_of(28, 3_584, 28, 4, 18_944, 152_064),
}


def build(name: str, device: torch.device) -> Qwen2Model:
    """Random weights in bf16, made where they stay."""
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen2Model._from_config(MODELS[name], dtype=torch.bfloat16).eval().requires_grad_(False)
