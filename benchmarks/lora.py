"""`python -m benchmarks.lora`: one step of finetune.lora at Qwen2.5's true shapes, with random weights, on one GPU.

The step is the recipe's own: packed passages, forward, backward, clipping, AdamW; LoRA or DoRA on every linear layer of
the body, beside a base in bf16 or, for QLoRA, in NF4. Tokens/s count the passages' tokens. MFU is what the step needs
at least, of the peak in bf16 that this device showed at the start: a forward pass and the gradients of the activations
(4 flops a parameter and token: frozen weights have no gradients), 6 a parameter of the adapter, and attention; layers
that are worked out again (checkpointing) do not count. Peak memory is what torch took at most, weights included.

`--device cpu --models tiny` rehearses all of it without a GPU; its figures mean nothing.
"""

import argparse
import gc
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import Qwen2ForCausalLM

from benchmarks.gpu_peers import MODELS, config_of
from benchmarks.limits import Body, measure_peaks, need, synchronize
from finetune.adapt import COLUMNS, TYPOLOGIES, Learner, Sample, new_adapter, new_head
from finetune.four_bit import in_four_bits
from finetune.objective import Objective
from finetune.recipe import LoraRecipe, read_settings
from fraudguard.engine.head import FusionHead

SHAPES = MODELS | {"3b": config_of(36, 2_048, 16, 2, 11_008, 151_936)}
KINDS = ("lora", "dora", "qlora")
READ_EVERY = 32  # tokens between readings, as of short lines
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Work:
    """A step: so many passages of so many tokens, in rows of at most row_tokens."""

    passages: int
    length: int
    row_tokens: int

    def rows(self, vocabulary: int) -> list[list[Sample]]:
        """Random ids, numbers and labels, always the same."""
        torch.manual_seed(0)
        ends = torch.arange(READ_EVERY - 1, self.length, READ_EVERY)
        made = [
            Sample(
                source="random", account_id=str(number), prefix=0, ids=torch.randint(vocabulary, (self.length,)),
                ends=ends, numbers=torch.rand(len(ends), len(COLUMNS)), truth=torch.randint(2, ends.shape).float(),
                typology=torch.randint(len(TYPOLOGIES), ends.shape), weight=torch.ones(len(ends)),
            )
            for number in range(self.passages)
        ]  # fmt: skip
        each = max(self.row_tokens // self.length, 1)
        return [made[start : start + each] for start in range(0, self.passages, each)]


def build(
    name: str, kind: str, recipe: LoraRecipe, rows: Sequence[Sequence[Sample]], device: torch.device
) -> tuple[PeftModel, FusionHead, Body]:
    """Base, adapter and head as finetune.lora makes them, with random weights made where they stay."""
    torch.manual_seed(0)
    with torch.device(device):
        base = Qwen2ForCausalLM._from_config(SHAPES[name], dtype=torch.bfloat16).requires_grad_(False)
    body = Body.of(base.model)
    if kind == "qlora":
        base = in_four_bits(base, torch.bfloat16, device)
    run = recipe.adapter.model_copy(update={"dora": kind == "dora"})
    adapted = new_adapter(base, run).to(device)
    head = new_head([one for row in rows for one in row], base.config.hidden_size, recipe.head, run.tokens_max)
    return adapted, head.to(device), body


def measure(
    name: str, kind: str, recipe: LoraRecipe, work: Work, steps: int, *, again: bool, device: torch.device, peak: float
) -> dict[str, Any]:
    """A row of the table. again: layers are worked out again in the backward pass. peak: FLOP/s."""
    rows = work.rows(SHAPES[name].vocab_size)
    adapted, head, body = build(name, kind, recipe, rows, device)
    if again:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    of_adapter = [one for one in adapted.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW([*of_adapter, *head.parameters()], lr=1e-4, fused=True)
    data = [one for row in rows for one in row]
    learner = Learner(adapted, head, Objective.of(data, len(TYPOLOGIES), 0.0, 0.0, 0.1), 0.1, bfloat16=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    losses, seconds = [], []
    for _ in range(WARM_UP + steps):
        synchronize(device)
        began = time.perf_counter()
        losses.append(learner.backward(rows))
        torch.nn.utils.clip_grad_norm_([*of_adapter, *head.parameters()], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    tokens, step_s = work.passages * work.length, float(np.median(seconds[WARM_UP:]))
    flops = 2 * need(body, [(0, work.length)] * work.passages, 2).flops
    flops += 6 * sum(one.numel() for one in of_adapter) * tokens
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {
        "model": name, "kind": kind, "checkpointing": again, "tokens/s": tokens / step_s, "step ms": 1e3 * step_s,
        "MFU": flops / step_s / peak, "peak GiB": memory, "first loss": losses[0], "last loss": losses[-1],
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"| {' | '.join(rows[0])} |"
    yield "|---" * len(rows[0]) + "|"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row.values()))} |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
    return "-" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["0.5b", "1.5b", "3b", "7b"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["lora", "qlora"])
    parser.add_argument("--recipe", type=Path, default=Path("finetune/lora.yaml"), help="rank, targets, head")
    parser.add_argument("--passages", type=int, default=32, help="of a step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a passage")
    parser.add_argument("--row-tokens", type=int, default=8_192)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU; --device cpu --models tiny rehearses without one")
    device, recipe = torch.device(options.device), read_settings(options.recipe, LoraRecipe)
    work, peak = Work(options.passages, options.length, options.row_tokens), measure_peaks(device).bf16
    rows = []
    for name in options.models:
        for kind in options.kinds:
            again = options.checkpointing
            rows.append(measure(name, kind, recipe, work, options.steps, again=again, device=device, peak=peak))
            print(f"{name} {kind}: {rows[-1]['tokens/s']:,.0f} tokens/s", flush=True)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"\n{what}, bf16 {peak / 1e12:,.1f} TFLOP/s, torch {torch.__version__}; {work}\n\n{table(rows)}")
    if options.json:
        options.json.write_text(json.dumps({"device": what, "peak": peak, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
