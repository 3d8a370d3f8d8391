"""`python -m benchmarks.engine`: the engine beside its peers, on the same tokens, with parity in every row.

Workload A, the product's: timelines that exist grow by one event each, many accounts interleaved; who keeps a cache
has read the timelines up to then, untimed. Workload B: timelines never seen before. Growth: one conversation of 64
turns, what an event costs at each turn, with the timeline's cache and re-read.

Everybody works on a batch before anybody sees the next, so that a noisy machine is noisy for all. A peer that has used
up --seconds stops; its times compared with the first row's are those of the batches that both did. CPU ms: of all the
process's threads. Parity: one event of each batch against transformers in float32, alone and unpadded; a row out of
tolerance is void. The starter has random token ids too: timing does not depend on them.

Left out: tokenizing, the same for all. "0.5b" is Qwen2.5-0.5B's true shape with random weights and a vocabulary of
8,192, since an embedding is only looked up. Peers need `pip install fraudguard[peers,onnx-export]`.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2Model

from benchmarks.peers import PEERS, Ours, Peer, Transformers
from benchmarks.workloads import LENGTH_MAX, Batch, Event, cold, conversation, parity, slope, warm
from fraudguard.engine.loader import load_base
from fraudguard.engine.release import open_release

ACCOUNTS, TURNS, REPEATS = 64, 64, 3
COLUMNS = ("engine", "events", "events/s", "CPU ms/event", "faster", "of CPU", "max difference", "cosine", "parity")


@dataclass(slots=True)
class Row:
    """One engine's figures. spent_s: of its budget, warming included. wall_s, cpu_s and states: by batch."""

    name: str
    peer: Peer
    spent_s: float = 0.0
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)

    def work(self, batch: Batch) -> None:
        """Read a batch, timed; what a cache should have read before it is read first, untimed."""
        began = time.perf_counter()
        if self.peer.keeps and batch.before:
            self.peer.read(batch.before)
        wall, cpu = time.perf_counter(), time.process_time()
        self.states.append(self.peer.read(batch.events))
        self.cpu_s.append(time.process_time() - cpu)
        self.wall_s.append(time.perf_counter() - wall)
        self.spent_s += time.perf_counter() - began

    def figures(self, first: "Row", batches: Sequence[Batch], reference: Sequence[Tensor]) -> dict[str, object]:
        """A line of the table. reference [batch]: hidden states of each batch's last event."""
        done = len(self.states)
        both = min(done, len(first.states))
        found = torch.stack([states[-1] for states in self.states])
        agreement = parity(found, torch.stack(list(reference[:done])))
        events = sum(len(batch.events) for batch in batches[:done])
        values = (
            self.name, events, round(events / sum(self.wall_s), 1), round(1000 * sum(self.cpu_s) / events, 1),
            f"{sum(first.wall_s[:both]) / sum(self.wall_s[:both]):.2f}x",
            f"{sum(first.cpu_s[:both]) / sum(self.cpu_s[:both]):.2f}x",
            float(f"{agreement.difference:.1e}"), round(agreement.cosine, 5),
            "equal" if agreement.holds(exact=self.peer.exact) else "void",
        )  # fmt: skip
        return dict(zip(COLUMNS, values, strict=True))


def build(name: str) -> Qwen2Model:
    """The weights that everybody gets, in float32."""
    if name == "starter":
        return load_base(open_release("starter").base).model.eval()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=8_192, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4_864, max_position_embeddings=32_768, attn_implementation="sdpa",
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    return Qwen2Model(config).eval()


def measure(
    peers: dict[str, Peer], batches: Sequence[Batch], model: Qwen2Model, seconds: float
) -> list[dict[str, object]]:
    """The table of one workload."""
    rows = [Row(name, peer) for name, peer in peers.items()]
    for batch in batches:
        for row in rows:
            if row.spent_s < seconds:
                row.work(batch)
    plain = Transformers(model, padded=False, exact=True)
    done = max((len(row.states) for row in rows), default=0)
    reference = [plain.read(batch.events[-1:])[0] for batch in batches[:done]]
    return [row.figures(rows[0], batches, reference) for row in rows]


def growth(model: Qwen2Model, turns: Sequence[Event]) -> dict[str, float]:
    """ms that a turn adds to the cost of an event, cached and re-read (every eighth turn); the best of REPEATS."""
    numbers = range(1, len(turns) + 1)
    anew, every = Ours(model, "int8", keeps=False), 8
    passes = []
    for _ in range(REPEATS):
        kept = Ours(model, "int8", keeps=True)
        passes.append([_cpu_ms(kept, turn) for turn in turns])
    cached = [min(costs) for costs in zip(*passes, strict=True)]
    again = [min(_cpu_ms(anew, turn) for _ in range(REPEATS)) for turn in turns[every - 1 :: every]]
    slopes = slope(numbers, cached), slope(numbers[every - 1 :: every], again)
    return {
        "first turn, ms": round(cached[0], 2), "last turn, ms": round(cached[-1], 2),
        "last turn re-read, ms": round(again[-1], 2), "ms a turn": round(slopes[0], 4),
        "ms a turn re-read": round(slopes[1], 4), "share": round(slopes[0] / slopes[1], 4),
    }  # fmt: skip


def _cpu_ms(peer: Peer, event: Event) -> float:
    began = time.process_time()
    peer.read([event])
    return 1000 * (time.process_time() - began)


def start(
    model: Qwen2Model, names: Sequence[str], threads: int, warm_up: Sequence[Batch]
) -> tuple[dict[str, Peer], list[str]]:
    """Peers ready to be timed, and a line on each about how long that took or why it is missing."""
    peers: dict[str, Peer] = {}
    notes, took = [], {}
    for name in names:
        began = time.perf_counter()
        try:
            peers[name] = PEERS[name](model, threads)
        except ImportError as error:
            notes.append(f"{name}: not installed ({error.name})")
        took[name] = time.perf_counter() - began
    # Not before all are made: exporting a graph makes torch.compile forget its own.
    for name, peer in peers.items():
        began = time.perf_counter()
        for batch in warm_up:
            peer.read(batch.events)
        notes.append(f"{name}: made in {took[name]:.1f} s, warmed up in {time.perf_counter() - began:.1f} s")
    return peers, notes


def table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([str(row[column]) for column in COLUMNS] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def installed() -> dict[str, str]:
    """Versions of what was compared."""
    found = {}
    for package in ("torch", "transformers", "onnxruntime", "openvino", "nncf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Run, print Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("starter", "0.5b"), default="starter")
    parser.add_argument("--events", type=int, default=256, help="of each workload")
    parser.add_argument("--batch", type=int, default=8, help="events that come together")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of each peer and workload")
    parser.add_argument("--peers", nargs="*", default=[], help="words of the names wanted; all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = build(options.model)
    vocabulary, longest = model.config.vocab_size, min(LENGTH_MAX, model.config.max_position_embeddings)
    count, size = -(-options.events // options.batch), options.batch
    names = [name for name in PEERS if not options.peers or any(word in name for word in options.peers)]
    warm_up = list(cold(0, 2, size, vocabulary, 160))
    peers, notes = start(model, names, options.threads, warm_up)
    report: dict[str, object] = {
        "machine": platform.platform(), "cpus": os.cpu_count(), "options": vars(options), "start": notes,
        "versions": installed(),
    }  # fmt: skip
    print(*notes, sep="\n", flush=True)
    for letter, batches, competing in (
        ("A", list(warm(1, ACCOUNTS, count, size, vocabulary, longest)), peers),
        ("B", list(cold(2, count, size, vocabulary, longest)), {n: p for n, p in peers.items() if not p.keeps}),
    ):
        rows = measure(competing, batches, model, options.seconds)
        report[letter] = rows
        print(f"\nWorkload {letter}\n\n{table(rows)}", flush=True)
    report["growth"] = growth(model, list(conversation(3, TURNS, vocabulary, longest)))
    print(f"\nGrowth: {report['growth']}\n\n{json.dumps(report)}")


if __name__ == "__main__":
    main()
