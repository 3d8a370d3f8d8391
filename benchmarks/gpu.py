"""`python -m benchmarks.gpu`: the engine beside its peers on one GPU, in some minutes; the tables come last.

Qwen2.5's true shapes with random weights in bf16. Workload A, the product's: accounts with 256 tokens each that a
cache may have read (untimed), 32 new ones an event, in batches of 1 to 256. Workload B: timelines never seen, of 256
tokens or of mixed lengths. Open loop: A's events at Poisson times through fraudguard's own Batcher, for a peer through
a queue that batches whatever waits; the highest rate at which 99 of 100 are answered within 50 ms of being due.

A time is the host's, from a synchronized device to the states back on the host. Every row is held against transformers
in float32, one timeline at a time: a row out of tolerance is void. Shares: what the workload's products, and its
weights and keys and values, would take at the peaks that this device showed at the start, of the time taken.

`--device cpu --models tiny` rehearses all of it without a GPU; its figures mean nothing.
"""

import argparse
import asyncio
import copy
import gc
import itertools
import json
import platform
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2Model
from transformers.utils import logging as transformers_logging

from benchmarks.gpu_peers import MODELS, PEERS, Kept, Sizes, build
from benchmarks.limits import Body, Peaks, measure_peaks, need, synchronize
from benchmarks.open_loop import QUANTILE, Offered, Serve, Waiting, goodput
from benchmarks.peers import Ours, Peer, Transformers
from benchmarks.workloads import LENGTH_MAX, NEW_MAX, Batch, Event, Ids, cold, parity
from fraudguard.engine.batcher import Batcher

FULL = Sizes(accounts=1_024, cached=256, new=32)
REHEARSAL = Sizes(accounts=8, cached=256, new=32)
BATCHES: Final = (1, 8, 64, 256)  # of workload A, as far as there are accounts
COLD_BATCH: Final = 64  # events that come together in workload B
VARIANTS: Final = 2  # of every account's event
SAMPLE: Final = 4  # events of a row whose states are compared
PASS_S: Final = 0.020  # of the Batcher: two passes and what it takes to hand over stay below 50 ms
WAITING_MAX: Final = 64  # events of a peer's batch in the open loop
QUEUE_MAX: Final = 8_192
FP8_COSINE_MIN: Final = 0.95  # three bits of mantissa are too few for COSINE_MIN where weights are random

BASELINE: Final = next(iter(PEERS))
# Of the largest model, what fits into some minutes.
SMALL_CHOICE: Final = {"7b": (BASELINE, "ours bf16, graphs", "ours fp8")}
COLUMNS = (
    "model", "engine", "workload", "batch", "per s", "faster", "p50 ms", "p99 ms", "of compute", "of memory",
    "bound by", "cosine", "difference", "parity",
)  # fmt: skip

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Workload:
    """Batches that are read over and over. held: how many first tokens of its events a cache has read."""

    name: str
    batches: list[Batch]
    held: int

    @property
    def sample(self) -> list[Event]:
        """Those whose states are compared."""
        return self.batches[0].events[:SAMPLE]


@dataclass(slots=True)
class Timing:
    """What came of a workload. spans: of each batch, its events' held and new tokens. states: of the sample."""

    events: int = 0
    wall_s: list[float] = field(default_factory=list)
    spans: list[list[tuple[int, int]]] = field(default_factory=list)
    states: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """What every peer of one model is measured with. reference: the sampled events' states, by their ids."""

    name: str
    device: torch.device
    sizes: Sizes
    body: Body
    peaks: Peaks
    workloads: list[Workload]
    arrivals: list[Event]
    reference: dict[Ids, Tensor]
    seconds: float
    latency_max_s: float


def workloads(sizes: Sizes, vocabulary: int) -> tuple[list[Workload], list[Event]]:
    """A in every batch size, B even and mixed; and A's events one by one."""
    random = np.random.default_rng(1)
    # The last id is nobody's: CrossEncoder pads with it.
    drawn = random.integers(vocabulary - 1, size=(sizes.accounts, sizes.cached + VARIANTS * sizes.new)).tolist()
    before: list[Event] = []
    variants: list[list[Event]] = [[] for _ in range(VARIANTS)]
    for number, ids in enumerate(drawn):
        held = [tuple(ids[k : min(k + NEW_MAX, sizes.cached)]) for k in range(0, sizes.cached, NEW_MAX)]
        before.append(Event.of(f"account-{number}", held))
        for variant, events in enumerate(variants):
            start = sizes.cached + variant * sizes.new
            events.append(Event.of(f"account-{number}", [*held, tuple(ids[start : start + sizes.new])]))
    made = []
    for size in (size for size in BATCHES if size <= sizes.accounts):
        starts = range(0, sizes.accounts - size + 1, size)
        batches = [Batch(events[k : k + size], before[k : k + size]) for events in variants for k in starts]
        made.append(Workload("A", batches, sizes.cached))
    size = min(COLD_BATCH, sizes.accounts)
    even = [Batch(before[k : k + size], []) for k in range(0, sizes.accounts - size + 1, size)]
    made.append(Workload(f"B, {sizes.cached} tokens", even, 0))
    made.append(Workload("B, mixed lengths", list(cold(2, 4, size, vocabulary - 1, LENGTH_MAX)), 0))
    return made, [event for events in variants for event in events]


def strangers(batch: Batch, numbers: Iterator[int]) -> Batch:
    """The same timelines of accounts that nobody has seen."""
    requests = [
        replace(event.request, timeline=replace(event.request.timeline, account_id=f"stranger-{next(numbers)}"))
        for event in batch.events
    ]
    return Batch([replace(event, request=given) for event, given in zip(batch.events, requests, strict=True)], [])


def timed(peer: Peer, workload: Workload, course: Course, numbers: Iterator[int]) -> tuple[Timing, float]:
    """Read batch after batch for course.seconds; and the seconds that the first two took, which are not counted."""

    def read(batch: Batch) -> tuple[Tensor, float]:
        if not workload.held:
            batch = strangers(batch, numbers)
        elif peer.keeps:
            peer.read(batch.before)
        synchronize(course.device)
        began = time.perf_counter()
        states = peer.read(batch.events)
        synchronize(course.device)
        return states, time.perf_counter() - began

    began = time.perf_counter()
    for batch in (workload.batches * 2)[:2]:
        read(batch)
    first_s = time.perf_counter() - began
    found = Timing()
    until = time.perf_counter() + 4 * course.seconds  # what is not counted takes time too
    for batch in itertools.cycle(workload.batches):
        states, wall_s = read(batch)
        found.states = states[:SAMPLE] if found.states is None else found.states
        found.events += len(batch.events)
        found.wall_s.append(wall_s)
        found.spans.append([(workload.held, len(event.ids) - workload.held) for event in batch.events])
        if sum(found.wall_s) >= course.seconds or time.perf_counter() > until:
            break
    return found, first_s


def row(
    course: Course, engine: str, workload: str, batch: object, per_s: float, latencies_s: Sequence[float],
    spans: Sequence[Sequence[tuple[int, int]]], seconds: float, sample: Sequence[Event], states: Tensor, *, exact: bool,
) -> Row:  # fmt: skip
    """A line of the table. spans: of what was read within these seconds, by pass."""
    fp8 = "fp8" in engine
    shares = [
        course.peaks.shares(need(course.body, part, 1 if fp8 else 2), seconds, fp8=fp8) for part in spans
    ]  # fmt: skip
    compute, memory = (sum(part) for part in zip(*shares, strict=True)) if shares else (0.0, 0.0)
    agreement = parity(states, torch.stack([course.reference[event.ids] for event in sample]))
    p50, p99 = (
        round(1000 * float(np.quantile(latencies_s, quantile, method="higher")), 2) if len(latencies_s) else "-"
        for quantile in (0.5, QUANTILE)
    )
    values = (
        course.name, engine, workload, batch, round(per_s, 1), "", p50, p99 if len(latencies_s) >= 100 else "-",
        f"{compute:.1%}", f"{memory:.1%}", "compute" if compute > memory else "memory",
        round(agreement.cosine, 5), float(f"{agreement.difference:.1e}"),
        "void",
    )  # fmt: skip
    line: Row = dict(zip(COLUMNS, values, strict=True))
    if agreement.holds(exact=exact):
        line["parity"] = "equal"
    elif fp8 and agreement.cosine >= FP8_COSINE_MIN:
        line["parity"] = "equal for fp8"
    return line


def measure(engine: str, peer: Peer, course: Course, rows: list[Row]) -> float:
    """Append the peer's rows as they come; gives the seconds of all first passes: compiling and capturing."""
    numbers = itertools.count()
    first_s = 0.0
    full_rate = 0.0
    for workload in course.workloads:
        if isinstance(peer, Kept) and not workload.held:
            continue  # it knows its accounts only
        found, took_s = timed(peer, workload, course, numbers)
        first_s += took_s
        wall_s = sum(found.wall_s)
        if workload.held:
            full_rate = max(full_rate, found.events / wall_s)
        assert found.states is not None
        rows.append(
            row(
                course, engine, workload.name, len(workload.batches[0].events), found.events / wall_s, found.wall_s,
                found.spans, wall_s, workload.sample, found.states, exact=peer.exact,
            )
        )  # fmt: skip
    if engine == BASELINE or isinstance(peer, Ours):
        rows.append(open_loop(engine, peer, course, full_rate))
    return first_s


def open_loop(engine: str, peer: Peer, course: Course, full_rate: float) -> Row:
    """The row of the highest rate that is answered in time; 0 if none is. Parity is looked at afterwards."""
    if peer.keeps:
        for batch in [workload for workload in course.workloads if workload.held][-1].batches:
            peer.read(batch.before)
    found = asyncio.run(_goodput(peer, course, full_rate))
    rate = found.rate if found else 0.0
    sample = course.arrivals[:SAMPLE]
    states = peer.read(sample)
    # All that comes in a second as one pass: how many passes it will be is the queue's choice.
    a_second = [[(course.sizes.cached, course.sizes.new)] * round(rate)] if found else []
    latencies = found.latencies_s.tolist() if found else []
    return row(
        course, engine, "A, open loop", "-", rate, latencies, a_second, 1.0, sample, states, exact=peer.exact
    )  # fmt: skip


async def _goodput(peer: Peer, course: Course, full_rate: float) -> Offered | None:
    serving: Batcher | Waiting
    serve: Serve
    if isinstance(peer, Ours):
        serving = batcher = Batcher(peer.engine, pass_s=PASS_S, queue_max=QUEUE_MAX)

        async def serve(events: Sequence[Event]) -> Sequence[bool]:
            scores = await batcher.score([event.request for event in events])
            return [score is not None for score in scores]
    else:
        serving = waiting = Waiting(peer, WAITING_MAX)
        serve = waiting.serve
    try:
        return await goodput(serve, course.arrivals, full_rate, course.seconds, course.latency_max_s)
    finally:
        serving.close()


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after so long; a call that never comes back to Python is not stopped."""

    def late(*_: object) -> None:
        raise TimeoutError(f"over {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining)
        signal.signal(signal.SIGALRM, before)


def competitor(
    engine: str, make: Callable[[Qwen2Model, Sizes], Peer], model: Qwen2Model, course: Course, limit_s: float
) -> tuple[list[Row], str]:
    """One engine's rows and a line about its start. What goes wrong with it becomes its last row."""
    rows: list[Row] = []
    began = time.perf_counter()
    note = f"{course.name} {engine}: "
    try:
        with limit(limit_s):
            peer = make(model, course.sizes)
            made_s = time.perf_counter() - began
            first_s = measure(engine, peer, course, rows)
        note += f"made in {made_s:.1f} s, first passes {first_s:.1f} s, "
    except ImportError as error:
        rows.append(_failed(course.name, engine, f"not installed ({error.name})"))
    except Exception as error:  # an engine that cannot run here must not cost the others their rows
        rows.append(_failed(course.name, engine, f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"))
    return rows, f"{note}{time.perf_counter() - began:.1f} s in all"


def _failed(model: str, engine: str, why: str) -> Row:
    blank: Row = dict.fromkeys(COLUMNS, "-")
    return blank | {"model": model, "engine": engine, "parity": why}


def run_model(
    name: str,
    words: Sequence[str],
    device: torch.device,
    peaks: Peaks,
    seconds: float,
    latency_max_s: float,
    limit_s: float,
) -> tuple[list[Row], list[str]]:
    """All rows of one model, and a line about each engine's start."""
    model = build(name, device)
    sizes = REHEARSAL if name == "tiny" else FULL
    made, arrivals = workloads(sizes, model.config.vocab_size)
    plain = Transformers(copy.deepcopy(model).float(), padded=False, exact=True)
    sample = [*arrivals[:SAMPLE], *(event for workload in made for event in workload.sample)]
    reference = {event.ids: plain.read([event])[0] for event in sample}
    del plain
    course = Course(name, device, sizes, Body.of(model), peaks, made, arrivals, reference, seconds, latency_max_s)
    rows: list[Row] = []
    notes = []
    for engine, make in PEERS.items():
        if not any(engine.startswith(word) for word in words or SMALL_CHOICE.get(name, ("",))):
            continue
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        found, note = competitor(engine, make, model, course, limit_s)
        rows += found
        notes.append(note)
        print(note, *(" | ".join(str(line[column]) for column in COLUMNS) for line in found), sep="\n", flush=True)
    _compare(rows)
    return rows, notes


def _compare(rows: Sequence[Row]) -> None:
    """Fill in how many times faster than the first engine a row is."""
    first = {(row["workload"], row["batch"]): row["per s"] for row in rows if row["engine"] == BASELINE}
    for line in rows:
        base, per_s = first.get((line["workload"], line["batch"])), line["per s"]
        if isinstance(base, float) and isinstance(per_s, float) and base:
            line["faster"] = f"{per_s / base:.2f}x"


def best(rows: Sequence[Row], column: str, choose: Callable[[list[float]], float], **wanted: str) -> float | None:
    """Of the rows within tolerance whose columns begin as wanted."""
    values = [
        value
        for line in rows
        if str(line["parity"]).startswith("equal")
        and all(str(line[name]).startswith(word) for name, word in wanted.items())
        if isinstance(value := line[column], float)
    ]
    return choose(values) if values else None


def aims(rows: Sequence[Row]) -> list[dict[str, object]]:
    """What was aimed at on an H200, and what these rows show of it."""

    def most(model: str, engine: str, workload: str) -> float | None:
        return best(rows, "per s", max, model=model, engine=engine, workload=workload)

    def at_one(column: str, engine: str) -> float | None:
        choose = min if column == "p50 ms" else max
        return best([line for line in rows if line["batch"] == 1], column, choose, model="0.5b", engine=engine)

    def ratio(over: float | None, under: float | None) -> float | None:
        return over / under if over is not None and under else None

    wanted: list[tuple[str, float | None, float]] = [
        ("0.5b bf16, A: events/s", most("0.5b", "ours bf16", "A"), 12_000),
        ("0.5b bf16, A, batches of 1: p50 ms", at_one("p50 ms", "ours bf16"), -2),
        ("0.5b bf16, A, batches of 1: graphs over eager",
         ratio(at_one("per s", "ours bf16, graphs"), at_one("per s", "ours bf16, eager")), 3),
        ("0.5b, open loop: ours over transformers",
         ratio(most("0.5b", "ours", "A, open"), most("0.5b", BASELINE, "A, open")), 5),
        ("7b fp8, A: events/s", most("7b", "ours fp8", "A"), 1_200),
        ("0.5b bf16, B of 256 tokens: /s", most("0.5b", "ours bf16", "B, 256"), 2_500),
        ("7b fp8, B of 256 tokens: /s", most("7b", "ours fp8", "B, 256"), 165),
    ]  # fmt: skip
    lines: list[dict[str, object]] = []
    for text, found, aim in wanted:
        line: dict[str, object] = {"aim": f"{text} {'<=' if aim < 0 else '>='} {abs(aim):,}", "found": "-", "": "-"}
        if found is not None:
            reached = found <= -aim if aim < 0 else found >= aim
            line |= {"found": round(found, 2), "": "reached" if reached else "missed"}
        lines.append(line)
    return lines


def table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(line[column]) for column in columns] for line in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print what comes as it comes and the tables at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["0.5b", "7b"])
    parser.add_argument("--peers", nargs="*", default=[], help="how the names begin; all, of 7b three")
    parser.add_argument("--seconds", type=float, default=1.0, help="of every row, and of every rate in the open loop")
    parser.add_argument("--deadline", type=float, default=50.0, help="ms that 99 of 100 must hold in the open loop")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds of each engine and model")
    parser.add_argument("--json", type=Path, help="a file for the same figures")
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU; --device cpu --models tiny rehearses without one")
    transformers_logging.disable_progress_bar()
    began = time.perf_counter()
    peaks = measure_peaks(options.device)
    gpu = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "no GPU"
    machine = f"{gpu}, {platform.platform()}, torch {torch.__version__}"
    print(machine, peaks, sep="\n", flush=True)
    rows: list[Row] = []
    notes: list[str] = []
    for name in options.models:
        found, lines = run_model(
            name, options.peers, options.device, peaks, options.seconds, options.deadline / 1000, options.limit
        )
        rows += found
        notes += lines
    reached = aims(rows)
    if options.json:
        report = {"machine": machine, "peaks": asdict(peaks), "start": notes, "rows": rows, "aims": reached}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    fp8 = f"fp8 {peaks.fp8 / 1e12:,.1f} TFLOP/s, " if peaks.fp8 else ""
    print(
        f"\n{machine}; {time.perf_counter() - began:.0f} s in all\n"
        f"Peaks: bf16 {peaks.bf16 / 1e12:,.1f} TFLOP/s, {fp8}memory {peaks.bandwidth / 1e12:,.3f} TB/s. Open loop: "
        f"the highest rate with p99 <= {options.deadline:g} ms.\n\n{table(rows)}\n\n{table(reached)}"
    )


if __name__ == "__main__":
    main()
