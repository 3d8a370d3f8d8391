"""What the hardware would allow: the work that a workload asks for, and the device's own peaks, measured on the spot.

Knows floating-point operations, bytes and a device; knows no engine.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import torch
from transformers import Qwen2Model

PEAK_SIZE = {"cuda": 8_192, "cpu": 512}  # of the square matrices
COPY_BYTES = {"cuda": 4 << 30, "cpu": 64 << 20}
CALLS, ROUNDS = 10, 5


@dataclass(frozen=True, slots=True)
class Body:
    """What counts of a model. parameters: those of its products, without the embedding, which is only looked up."""

    parameters: int
    layers: int
    inner: int  # heads * head_dim
    kv_bytes: int  # a token's keys and values, in bf16

    @classmethod
    def of(cls, model: Qwen2Model) -> Self:
        """Of these weights."""
        config = model.config
        head_dim = config.hidden_size // config.num_attention_heads
        return cls(
            sum(weight.numel() for weight in model.parameters()) - model.embed_tokens.weight.numel(),
            config.num_hidden_layers, config.num_attention_heads * head_dim,
            config.num_hidden_layers * 2 * config.num_key_value_heads * head_dim * 2,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Need:
    """The least that a batch asks for: flops, and bytes that must come from memory or go there."""

    flops: float
    bytes: float


def need(body: Body, spans: Iterable[tuple[int, int]], weight_bytes: int) -> Need:
    """Of a batch's events (tokens held, new tokens), read in one pass.

    2 flops a parameter and new token, 4 a head's number for each key that a token sees; the weights once, in
    weight_bytes a parameter, the held keys and values once, the new ones written. The last layer is counted in full,
    though a verdict needs its last token only.
    """
    flops = moved = 0.0
    for held, new in spans:
        seen = new * held + new * (new + 1) / 2
        flops += 2.0 * body.parameters * new + 4.0 * body.layers * body.inner * seen
        moved += (held + new) * body.kv_bytes
    return Need(flops, moved + body.parameters * weight_bytes)


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of the device: products in FLOP/s (fp8 None: it has none), bytes/s read and written together."""

    bf16: float
    fp8: float | None
    bandwidth: float

    def shares(self, needed: Need, seconds: float, *, fp8: bool) -> tuple[float, float]:
        """How much of the seconds the products alone, and the memory alone, would have taken at the peaks."""
        flops = self.fp8 if fp8 and self.fp8 else self.bf16
        return needed.flops / flops / seconds, needed.bytes / self.bandwidth / seconds


def measure_peaks(device: torch.device) -> Peaks:
    """Large square products in bf16 and fp8, and a large copy; the best round of a few."""
    size, bytes_ = PEAK_SIZE[device.type], COPY_BYTES[device.type]
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    bf16 = 2 * size**3 / _best_s(lambda: left @ right, device)
    fp8 = None
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):  # emulated elsewhere
        left8, right8 = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).t()
        one = torch.ones((), device=device)
        fp8_s = _best_s(lambda: torch._scaled_mm(left8, right8, one, one, out_dtype=torch.bfloat16), device)
        fp8 = 2 * size**3 / fp8_s
    source = torch.zeros(bytes_, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Peaks(bf16, fp8, 2 * bytes_ / _best_s(lambda: target.copy_(source), device))


def synchronize(device: torch.device) -> None:
    """Wait for what was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best_s(call: Callable[[], object], device: torch.device) -> float:
    """A call's seconds, in the best of the rounds; the first is warm-up."""
    rounds = []
    for _ in range(1 + ROUNDS):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        synchronize(device)
        rounds.append((time.perf_counter() - began) / CALLS)
    return min(rounds[1:])
