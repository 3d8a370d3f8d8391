"""`python -m benchmarks.edge`: the starter on one core, torch and onnxruntime side by side; no Kafka, no database.

For each engine, over timelines of some 110 tokens, each of its own account:
1. new: an account that was never seen, all its tokens.
2. event: one line of a dozen tokens more, the others in the key/value cache. 3. the same in batches of 8, an event.
Rounds alternate between the engines, so that what else the machine does meets all of them. Prints medians in ms, and
how far the risks are from torch's in fp32.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from fraudguard.domain import Line, Score, ScoreRequest, Timeline
from fraudguard.engine.engine import Engine
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.onnx_export import export
from fraudguard.features.registry import MODEL_FEATURES

ACCOUNTS, ROUNDS, BATCH = 200, 3, 8
CACHE_BYTES = 256 << 20
AT = datetime(2026, 10, 1, 9, tzinfo=UTC)
TEXTS = (
    "customer: 急用钱，先转到安全账户 {}",
    "[pay out CNY {} transfer new payee]",
    "agent: how can I help you today? {}",
)


class Scorer(Protocol):
    """Engine or OnnxEngine."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request."""
        ...


def request(account: str, number: int, count: int) -> ScoreRequest:
    """A timeline of so many lines; another number has other amounts and features."""
    lines = tuple(Line("message", AT, TEXTS[k % 3].format(number * 37 + k)) for k in range(count))
    given = {"amount_base": 250.0 * number, "transfers_1d": number % 12, "is_new_counterparty": True}
    return ScoreRequest(Timeline(account, 1, lines), dict.fromkeys(MODEL_FEATURES) | given)


def timed(engine: Scorer, requests: Sequence[ScoreRequest], took_ms: list[float]) -> list[float]:
    """The risks; into took_ms, the time an event."""
    began = time.perf_counter()
    scores = engine.score(requests)
    took_ms.append((time.perf_counter() - began) * 1000 / len(requests))
    return [score.risk for score in scores]


def main() -> None:
    """Export, measure, print a table."""
    torch_fp32 = Engine.load("starter", "fp32", 1, CACHE_BYTES)
    engines: dict[str, Scorer] = {
        "torch fp32": torch_fp32,
        "torch int8": Engine.load("starter", "int8", 1, CACHE_BYTES),
    }
    with tempfile.TemporaryDirectory() as directory:
        for precision in ("fp32", "int8"):
            export("starter", Path(directory) / precision, precision)
            engines[f"onnx {precision}"] = OnnxEngine.load(Path(directory) / precision, 1, CACHE_BYTES)
    took: dict[str, list[list[float]]] = {name: [[], [], []] for name in engines}
    risks: dict[str, list[float]] = defaultdict(list)
    for round_ in range(ROUNDS):
        for name, engine in engines.items():
            new, event, batched = took[name]
            for number in range(ACCOUNTS):
                account = f"{round_}-{number}"
                timed(engine, [request(account, number, 9)], new)
                risks[name] += timed(engine, [request(account, number, 10)], event)
            for first in range(0, ACCOUNTS, BATCH):
                numbers = range(first, min(first + BATCH, ACCOUNTS))
                timed(engine, [request(f"{round_}-{number}", number, 11) for number in numbers], batched)
    tokens = [torch_fp32.tokenizer.count(line.text) for line in request("a", 0, 10).timeline.lines]
    print(f"{sum(tokens[:9])} tokens, then {tokens[9]}")
    print(
        "| engine | new, ms | event, ms | event in a batch of 8, ms | risk moved: most, mean |\n|---|---|---|---|---|"
    )
    for name, (new, event, batched) in took.items():
        moved = np.abs(np.array(risks[name]) - risks["torch fp32"])
        times = " | ".join(f"{np.median(part):.2f}" for part in (new, event, batched))
        print(f"| {name} | {times} | {moved.max():.0e}, {moved.mean():.0e} |")


if __name__ == "__main__":
    main()
