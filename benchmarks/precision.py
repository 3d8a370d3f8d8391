"""`python -m benchmarks.precision`: what each precision of a release costs and gives, in one run, as a Markdown table.

Held-out stories, played through the features room, are scored once with each precision, account by account (the cold
column reads whole timelines, the kept one only what is new). Drift and AUC loss are against fp32's; "kept from
cold" is the most that a risk differs between those two; the quality columns are those of docs/model-card.md. A
precision that this machine or release cannot run says why.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import torch

from finetune.data import story_lives
from finetune.passages import snapshots
from fraudguard.domain import ScoreRequest
from fraudguard.engine.engine import Engine
from fraudguard.engine.precision import Precision
from fraudguard.errors import BadInput
from fraudguard.evaluation import average_precision, roc_auc
from fraudguard.features.registry import MODEL_FEATURES

COLUMNS = (
    "precision", "weights, MiB", "events/s, kept", "events/s, cold", "drift, mean / max", "kept from cold", "AUC",
    "AUC loss", "AP",
)  # fmt: skip
BATCH = 64
CACHE_BYTES = 512 << 20
COLD = 1_000  # events of the cold column


def held_out(accounts: int, tokens_max: int, engine: Engine) -> tuple[list[ScoreRequest], np.ndarray]:
    """Every event of a cast that no training saw, in event-time order over all accounts, and whether it is fraud."""
    lives = story_lives("test", 1_000, accounts, accounts // 5)
    requests, truth = [], []
    for _, told, snapshot in snapshots(lives, engine.tokenizer, tokens_max):
        features = {name: snapshot.features[name] for name in MODEL_FEATURES}
        requests.append(ScoreRequest(snapshot.timeline, features))
        truth.append(told.truth == 1.0)
    return requests, np.array(truth)


def score(engine: Engine, requests: Sequence[ScoreRequest]) -> tuple[np.ndarray, float]:
    """The risks, and events/s."""
    risks = []
    began = time.perf_counter()
    for start in range(0, len(requests), BATCH):
        risks += [given.risk for given in engine.score(requests[start : start + BATCH])]
    return np.array(risks), len(requests) / (time.perf_counter() - began)


def row(
    engine: Engine, requests: Sequence[ScoreRequest], truth: np.ndarray, full: np.ndarray
) -> tuple[str, np.ndarray]:
    """The table's cells after the precision, and the risks. full: fp32's risks, empty for itself."""
    score(engine, requests[: 10 * BATCH])  # kernels are compiled for each number of tokens that is new
    # The same timelines under other accounts: nothing of them is kept.
    strangers = [
        replace(request, timeline=replace(request.timeline, account_id=f"{number}"))
        for number, request in enumerate(requests)
    ]
    step = max(1, len(strangers) // COLD)
    anew, cold = score(engine, strangers[::step])
    risks, kept = score(engine, requests)
    full = full if len(full) else risks
    drift, moved = np.abs(risks - full), np.abs(risks[::step] - anew)
    return (
        f"{engine.weight_bytes / 2**20:.1f} | {kept:,.0f} | {cold:,.0f} | {drift.mean():.5f} / {drift.max():.3f} | "
        f"{moved.max():.0e} | "
        f"{roc_auc(truth, risks):.4f} | {roc_auc(truth, full) - roc_auc(truth, risks):+.4f} | "
        f"{average_precision(truth, risks):.4f} |"
    ), risks


def main() -> None:
    """Load each precision in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", default="starter")
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    requests: list[ScoreRequest] = []
    truth = full = np.empty(0)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for precision in get_args(Precision):
        try:
            engine = Engine.load(options.release, precision, options.threads, CACHE_BYTES, options.device)
        except BadInput as error:
            print(f"| {precision} | {error} |{' - |' * (len(COLUMNS) - 2)}")
            continue
        if not requests:
            requests, truth = held_out(options.accounts, engine.tokens_max, engine)
        cells, risks = row(engine, requests, truth, full)
        full = full if len(full) else risks
        print(f"| {precision} | {cells}", flush=True)
    print(f"\n{len(truth)} events, {truth.sum()} frauds; {options.device}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
