"""`python -m benchmarks.long_timeline`: the memory that one long timeline takes, ours beside transformers.

Four layers of Qwen2.5-0.5B's shape with random weights, one thread. Each reads the same tokens in a process of its own,
ours in the engine's passes, transformers in one; prints the peak over what the weights take, and the time. Void unless
both end in the same hidden state.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2Model

from fraudguard.engine.attention import TOKENS_PER_PASS, Span
from fraudguard.engine.qwen2 import Qwen2


def peak_mib() -> int:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@torch.inference_mode()
def read(engine: str, tokens: int) -> dict[str, object]:
    """One engine's figures and the first numbers of its last hidden state."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=1_000, hidden_size=896, num_hidden_layers=4, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4_864, max_position_embeddings=tokens,
    )  # fmt: skip
    model, ids = Qwen2Model(config).eval(), torch.arange(tokens) % 1_000
    ours = Qwen2.of(model) if engine == "ours" else None
    before, began = peak_mib(), time.perf_counter()
    if ours is None:
        last = model(input_ids=ids[None], use_cache=False).last_hidden_state[0, -1]
    else:
        pool, slots = ours.new_pool(tokens), np.arange(tokens)
        for start in range(0, tokens, TOKENS_PER_PASS["cpu"]):
            part = ids[start : start + TOKENS_PER_PASS["cpu"]]
            last = ours(part, [Span(start, slots[: start + len(part)], [len(part) - 1])], pool)[0]
    seconds = time.perf_counter() - began
    return {
        "engine": engine, "mib": peak_mib() - before, "seconds": round(seconds, 1),
        "state": [round(number, 3) for number in last[:8].tolist()],
    }  # fmt: skip


def main() -> None:
    """Read with both, print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--engine", choices=("ours", "transformers"), help="in this process; without it, both")
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(read(options.engine, options.tokens)))
        return
    rows = []
    for engine in ("ours", "transformers"):
        command = [sys.executable, "-m", "benchmarks.long_timeline", "--tokens", str(options.tokens)]
        done = subprocess.run([*command, "--engine", engine], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
        print(done.stdout, end="")
    if not np.allclose(rows[0]["state"], rows[1]["state"], atol=2e-3):
        raise SystemExit("void: the hidden states differ")


if __name__ == "__main__":
    main()
