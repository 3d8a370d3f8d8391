"""The engines that are measured side by side: ours, transformers, torch.compile, ONNX Runtime, OpenVINO.

Each reads the same token ids with the same weights and gives the final hidden state at the last one. Knows how each is
used at its best on a CPU; knows no workload and no clock. A package is imported where its peer is made, so that a
missing one is missing there only.
"""

import copy
import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2Model

from benchmarks.workloads import LENGTH_MAX, Event
from fraudguard.engine.calibration import Platt
from fraudguard.engine.engine import Engine
from fraudguard.engine.head import FusionHead
from fraudguard.engine.head_spec import HeadSpec
from fraudguard.engine.loader import Loaded
from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import SCHEMES, quantize
from fraudguard.engine.qwen2 import Qwen2
from fraudguard.engine.tokenizer import LineTokenizer

CACHE_BYTES = 1 << 30
CALIBRATION_TIMELINES, CALIBRATION_TOKENS = 16, 256


class Peer(Protocol):
    """exact: claims float32's digits. keeps: what it has read of an account it does not read again."""

    exact: bool
    keeps: bool

    def read(self, events: Sequence[Event]) -> Tensor:
        """Hidden states at the timelines' ends: [event, hidden], float32."""
        ...


class Ours:
    """fraudguard's Engine by its public call: lookup of the lines' ids, forward pass, head and calibration."""

    def __init__(
        self,
        model: Qwen2Model,
        precision: Precision,
        *,
        keeps: bool,
        cache_bytes: int = CACHE_BYTES,
        graphs: bool = True,
    ) -> None:
        """model: in float32, or in bf16 already where activations are; the engine is where it is.

        graphs: see Engine.
        """
        self.exact, self.keeps = precision == "fp32", keeps
        backbone = Qwen2.of(model if precision == "fp32" or precision in SCHEMES else _bf16(model)).to(model.device)
        quantize(backbone, precision)
        self._head = SeenHead(model.config.hidden_size)
        loaded = Loaded(backbone, self._head, GivenIds())
        self.engine = Engine("benchmark", loaded, cache_bytes if keeps else 0, graphs=graphs)
        self._strangers = itertools.count()

    def read(self, events: Sequence[Event]) -> Tensor:  # noqa: D102 - see Peer
        requests = [event.request for event in events]
        if not self.keeps:
            requests = [
                replace(request, timeline=replace(request.timeline, account_id=f"stranger-{next(self._strangers)}"))
                for request in requests
            ]
        self.engine.score(requests)
        return self._head.seen


class SeenHead(FusionHead):
    """A head without numeric features, random, that shows what hidden states it was given."""

    seen: Tensor

    def __init__(self, hidden: int) -> None:
        calibration = Platt(slope=1.0, offset=0.0)
        super().__init__(
            HeadSpec(
                format=1, hidden_size=hidden, width=64, tokens_max=LENGTH_MAX, features=[], typologies=["other"],
                calibration=calibration,
            )
        )  # fmt: skip

    def forward(self, hidden: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 - see FusionHead
        self.seen = hidden
        return super().forward(hidden, numbers)


class GivenIds(LineTokenizer):
    """Lines are ids in decimal already; looked up as the real one looks up lines that it knows."""

    def __init__(self) -> None:
        self._cached = functools.lru_cache(65_536)(lambda line: tuple(map(int, line.split())))


class Transformers:
    """Reads every timeline anew. padded: as one batch, else one by one."""

    keeps = False

    def __init__(self, model: Qwen2Model, *, padded: bool, exact: bool) -> None:
        self._model, self._padded, self.exact = model, padded, exact

    @torch.inference_mode()
    def read(self, events: Sequence[Event]) -> Tensor:  # noqa: D102 - see Peer
        rows = [torch.tensor(event.ids) for event in events]
        groups = [rows] if self._padded else [[row] for row in rows]
        return torch.cat([self._ends(group) for group in groups])

    def _ends(self, rows: Sequence[Tensor]) -> Tensor:
        # No mask: a causal model never sees what stands to the right of a token, and sdpa is faster without.
        ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(self._model.device)
        states = self._model(ids, use_cache=False).last_hidden_state
        ends = torch.tensor([len(row) - 1 for row in rows]).to(states.device)
        found: Tensor = states[torch.arange(len(rows), device=states.device), ends]
        return found.float().cpu()


class TransformersCache:
    """One DynamicCache an account; an event's new tokens only, one timeline at a time."""

    keeps = True

    def __init__(self, model: Callable[..., Any], *, exact: bool) -> None:
        self._model, self.exact = model, exact
        self._held: dict[str, tuple[tuple[int, ...], Any]] = {}

    @torch.inference_mode()
    def read(self, events: Sequence[Event]) -> Tensor:  # noqa: D102 - see Peer
        return torch.cat([self._end(event) for event in events])

    def _end(self, event: Event) -> Tensor:
        held, cache = self._held.get(event.account, ((), None))
        if cache is None or event.ids[: len(held)] != held:
            held, cache = (), DynamicCache()
        new = torch.tensor(event.ids[len(held) :])[None]
        found: Tensor = self._model(new, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        self._held[event.account] = (event.ids, cache)
        return found.float()


class Exported:
    """A graph of another runtime, one timeline at a time: no padding. run: ids [1, token] to [1, hidden]."""

    exact = keeps = False

    def __init__(self, run: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]) -> None:
        self._run = run

    def read(self, events: Sequence[Event]) -> Tensor:  # noqa: D102 - see Peer
        return torch.cat([torch.from_numpy(self._run(np.array([event.ids]))).float() for event in events])


class _Last(nn.Module):
    """What is exported: the last token's hidden state."""

    def __init__(self, model: Qwen2Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        # Given a mask, transformers repeats the key/value heads, which OpenVINO's converter cannot do itself.
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()[None, None]
        states: Tensor = self.model(ids, attention_mask={"full_attention": mask}, use_cache=False).last_hidden_state
        return states[:, -1]


@functools.cache
def _program(model: Qwen2Model) -> Any:
    length = torch.export.Dim("length", min=2, max=LENGTH_MAX)
    example = torch.zeros(1, 77, dtype=torch.int64)
    with torch.no_grad():
        return torch.export.export(_Last(model), (example,), dynamic_shapes={"ids": {1: length}})


def compiled(model: Qwen2Model, _threads: int) -> Peer:
    """torch.compile of the padded batch; compiled for any shape once, in the warm-up."""
    return Transformers(torch.compile(model, dynamic=True), padded=True, exact=True)


def onnxruntime_int8(model: Qwen2Model, threads: int) -> Peer:
    """Its dynamic quantization: int8 weights by channel, int8 activations with one scale a tensor."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        full, small = Path(folder, "full.onnx"), Path(folder, "int8.onnx")
        torch.onnx.export(_program(model), f=full, dynamo=True, external_data=True, verbose=False)
        quantize_dynamic(full, small, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Exported(lambda ids: session.run(None, {name: ids})[0])


def openvino(model: Qwen2Model, threads: int, *, int8: bool = False) -> Peer:
    """Its own choice of precision (bf16 where the CPU has AMX); int8: weights and activations, by NNCF."""
    import openvino as ov

    graph = ov.convert_model(_program(model))
    if int8:
        import nncf

        random = np.random.default_rng(0)
        shape = (CALIBRATION_TIMELINES, 1, CALIBRATION_TOKENS)
        timelines = list(random.integers(model.config.vocab_size, size=shape))
        graph = nncf.quantize(
            graph, nncf.Dataset(timelines), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(timelines)
        )
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if threads == 1:  # 2026.4 divides by zero when it compiles bf16 attention for one thread
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    ready = ov.Core().compile_model(graph, "CPU", settings)
    return Exported(lambda ids: ready([ids])[0])


def _bf16(model: Qwen2Model) -> Qwen2Model:
    return model if model.dtype == torch.bfloat16 else copy.deepcopy(model).to(torch.bfloat16)


# The first is what the others are compared with. The makers take the float32 model and the number of threads.
PEERS: dict[str, Callable[[Qwen2Model, int], Peer]] = {
    "transformers fp32, padded": lambda model, _: Transformers(model, padded=True, exact=True),
    "transformers fp32, one by one": lambda model, _: Transformers(model, padded=False, exact=True),
    "transformers bf16, one by one": lambda model, _: Transformers(_bf16(model), padded=False, exact=False),
    "transformers fp32, DynamicCache": lambda model, _: TransformersCache(model, exact=True),
    "transformers bf16, DynamicCache": lambda model, _: TransformersCache(_bf16(model), exact=False),
    "torch.compile fp32, padded": compiled,
    "ONNX Runtime int8": onnxruntime_int8,
    "OpenVINO": openvino,
    "OpenVINO int8 (NNCF)": functools.partial(openvino, int8=True),
    "ours fp32, from scratch": lambda model, _: Ours(model, "fp32", keeps=False),
    "ours bf16, from scratch": lambda model, _: Ours(model, "bf16", keeps=False),
    "ours int8, from scratch": lambda model, _: Ours(model, "int8", keeps=False),
    "ours fp32, timeline cache": lambda model, _: Ours(model, "fp32", keeps=True),
    "ours bf16, timeline cache": lambda model, _: Ours(model, "bf16", keeps=True),
    "ours int8, timeline cache": lambda model, _: Ours(model, "int8", keeps=True),
}
