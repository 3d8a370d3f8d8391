"""`fraudguard bench engine`: what the configured model does on this machine, alone, and what the machine could do.

Timelines come from the story generator through the features room, as in screening; scores go through the same queue,
thread and cache as in the worker. Knows no Kafka and no database. Numbers are for this machine at this hour: other
work on it shows in them.
"""

import asyncio
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fraudguard.assembly import batcher_of, local_engine
from fraudguard.config import Settings
from fraudguard.domain import ScoreRequest, Screenable
from fraudguard.engine.batcher import Batcher
from fraudguard.engine.engine import Engine
from fraudguard.events.masking import mask_event
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState
from fraudguard.stories import generate

LOADS = (0.25, 0.5, 0.75, 0.9)  # of capacity
BURST = 16  # events that arrive at once
IN_FLIGHT = 32  # events sent and not yet scored while capacity is measured
TURNS = 64

Report = dict[str, Any]


def bench_engine(settings: Settings, console: Console, *, seconds: float, target_ms: float, out: Path) -> Report:
    """Measure, show a table, write `out`.json and `out`.png. seconds: of each load; target_ms: of the goodput.

    Raises BadModel.
    """
    cold_start_s = _cold_start()
    engine = local_engine(settings)
    report: Report = {
        "model": engine.name, "machine": platform.platform(), "cores": torch.get_num_threads(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cold_start_s": cold_start_s, "roofline": roofline(engine), "turns": turns(settings, engine),
    }  # fmt: skip
    requests = timeline_requests(settings, engine, 3_000)
    report |= asyncio.run(_under_load(settings, engine, requests, seconds, target_ms))
    report["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report["device_memory_mib"] = torch.cuda.max_memory_allocated() >> 20 if engine.device.type == "cuda" else 0
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    draw(report, out.with_suffix(".png"))
    _show(report, console)
    console.print(f"written: {out.with_suffix('.json')}, {out.with_suffix('.png')}", highlight=False, soft_wrap=True)
    return report


def timeline_requests(settings: Settings, engine: Engine, count: int) -> list[ScoreRequest]:
    """What scoring is asked for by the first `count` events of a generated cast, in order."""
    cast = generate(5, max(60, count // 10), datetime(2026, 10, 1, tzinfo=UTC), 3, max(4, count // 200), "train")
    states: dict[str, AccountState] = {}
    return [_taken(settings, engine, states, mask_event(told.event)) for told in cast.events[:count]]


def _taken(settings: Settings, engine: Engine, states: dict[str, AccountState], event: Screenable) -> ScoreRequest:
    if event.account_id not in states:
        states[event.account_id] = AccountState(
            event.account_id, engine.tokenizer, rates=load_rates(settings.base_currency, settings.rates_path),
            tokens_max=settings.timeline_tokens_max, lateness_s=settings.lateness_s,
            zone=ZoneInfo("UTC"), windows=(),
        )  # fmt: skip
    snapshot = states[event.account_id].take(event, FeedbackView((), settings.label_delay_days), SharedWindows((), ()))
    return ScoreRequest(snapshot.timeline, snapshot.features)


def roofline(engine: Engine) -> Report:
    """Tokens/s of whole passes, beside what the machine's products alone would allow in the kinds it is good at."""
    shape, device = engine.shape, engine.device
    layer = shape.hidden * (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    layer += shape.heads * shape.head_dim * shape.hidden + 3 * shape.hidden * shape.intermediate
    operations = 2.0 * shape.layers * layer  # of one token, attention itself left out
    kinds = {"bf16": torch.bfloat16} if device.type == "cuda" else {"fp32": torch.float32, "bf16": torch.bfloat16}
    size = 8_192 if device.type == "cuda" else 1_024
    machine = {}
    for kind, dtype in kinds.items():
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")
        machine[kind] = 2.0 * size**3 / _seconds(partial(torch.mm, a, b))
    c = torch.randint(-127, 127, (size, size), dtype=torch.int8, device=device)
    machine["int8"] = 2.0 * size**3 / _seconds(lambda: torch._int_mm(c, c))
    copied = torch.ones(1 << 26, device=device)
    memory = 2.0 * copied.nbytes / _seconds(copied.clone)
    tokens_per_s = engine.tokens_per_pass / _seconds(lambda: engine.read_cold(engine.tokens_per_pass))
    return {
        "operations_per_token": operations,
        "tokens_per_s": round(tokens_per_s),
        "memory_gb_per_s": round(memory / 1e9, 1),
        **{f"machine_{kind}_gops": round(rate / 1e9, 1) for kind, rate in machine.items()},
        **{f"share_of_{kind}": round(tokens_per_s * operations / rate, 3) for kind, rate in machine.items()},
    }


def _seconds(call: Callable[[], object]) -> float:
    """The median of some calls, after some more."""
    wait: Callable[[], None] = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for _ in range(3):
        call()
    times = []
    for _ in range(15):
        wait()
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def turns(settings: Settings, engine: Engine) -> Report:
    """Milliseconds of one event against its turn in a conversation, the timeline kept and read anew.

    slope_share: how much of what re-reading costs more by the last turn the kept timeline costs more.
    """
    cast = generate(9, 200, datetime(2026, 10, 1, tzinfo=UTC), 3, 40, "train")
    lines = [mask_event(told.event) for told in cast.events if told.event.type == "message"][:TURNS]
    states: dict[str, AccountState] = {}
    talk = [
        _taken(settings, engine, states, line.model_copy(update={"account_id": "talk", "event_time": at}))
        for line, at in zip(lines, sorted(line.event_time for line in lines), strict=True)
    ]
    for request in talk:  # kernels are compiled for each number of tokens that is new
        engine.forget("talk")
        engine.score([request])
    kept, anew = [], []
    for _ in range(3):
        engine.forget("talk")
        kept.append([_once(engine, request) for request in talk])
        row = []
        for request in talk:
            engine.forget("talk")
            row.append(_once(engine, request))
        anew.append(row)
    costs = {"kept_ms": np.median(kept, axis=0), "anew_ms": np.median(anew, axis=0)}
    slopes = {name: float(np.polyfit(np.arange(TURNS), of_turn, 1)[0]) for name, of_turn in costs.items()}
    return {
        **{name: [round(float(cost), 3) for cost in of_turn] for name, of_turn in costs.items()},
        "slope_share": round(slopes["kept_ms"] / slopes["anew_ms"], 3),
    }


def _once(engine: Engine, request: ScoreRequest) -> float:
    began = time.perf_counter()
    engine.score([request])
    return 1000 * (time.perf_counter() - began)


async def _under_load(
    settings: Settings, engine: Engine, requests: Sequence[ScoreRequest], seconds: float, target_ms: float
) -> Report:
    """Capacity, then latencies at shares of it; open loop: a latency runs from when an event was due to arrive."""
    batcher = batcher_of(settings, engine)
    try:
        await _closed_loop(batcher, requests[: len(requests) // 3])
        capacity = await _closed_loop(batcher, requests[len(requests) // 3 :])
        rows = []
        for share in track(LOADS, "loads"):
            for arrivals, size in (("poisson", 1), ("bursts", BURST)):
                rng = Random(f"{share} {arrivals}")  # noqa: S311  repeatable, not secret
                due = list(_arrivals(rng, share * capacity, size, seconds))
                lags: list[float] = []
                watching = asyncio.ensure_future(_watch_loop(lags))
                latencies = await _open_loop(batcher, requests, due)
                watching.cancel()
                p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) * 1000
                in_time = float(np.mean(np.array(latencies) * 1000 <= target_ms))
                rows.append(
                    {
                        "arrivals": arrivals, "share_of_capacity": share, "events": len(due),
                        "p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p99_ms": round(p99, 1),
                        "goodput_per_s": round(in_time * len(due) / seconds, 1),
                        "loop_lag_p99_ms": round(1000 * float(np.percentile(lags, 99)), 1),
                    }
                )  # fmt: skip
        swap = await _swap(settings, batcher, requests, capacity / 4, seconds)
    finally:
        batcher.close()
    return {"capacity_per_s": round(capacity, 1), "target_ms": target_ms, "loads": rows, "swap": swap}


async def _swap(
    settings: Settings, batcher: Batcher, requests: Sequence[ScoreRequest], rate: float, seconds: float
) -> Report:
    """Latencies at a steady rate while the same release is loaded again and takes over, as on SIGHUP."""
    load = asyncio.ensure_future(
        _open_loop(batcher, requests, list(_arrivals(Random("swap"), rate, 1, seconds)))  # noqa: S311  repeatable
    )
    began = time.perf_counter()
    batcher.swap(await asyncio.to_thread(local_engine, settings))
    loading_s = time.perf_counter() - began
    latencies = 1000 * np.array(await load)
    return {
        "loading_s": round(loading_s, 2), "scored": len(latencies),
        "p99_ms": round(float(np.percentile(latencies, 99)), 1), "worst_ms": round(float(latencies.max()), 1),
    }  # fmt: skip


async def _closed_loop(batcher: Batcher, requests: Sequence[ScoreRequest]) -> float:
    """Events/s with IN_FLIGHT of them always waiting."""
    waiting = iter(requests)

    async def sender() -> None:
        for request in waiting:
            await batcher.score([request])

    began = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))
    return len(requests) / (time.perf_counter() - began)


def _arrivals(rng: Random, rate: float, size: int, seconds: float) -> Iterable[float]:
    """When events arrive, in seconds from the start: groups of `size` at exponential distances."""
    at = rng.expovariate(rate / size)
    while at < seconds:
        yield from [at] * size
        at += rng.expovariate(rate / size)


async def _open_loop(batcher: Batcher, requests: Sequence[ScoreRequest], due: Sequence[float]) -> list[float]:
    """Seconds from when each was due to its score. The requests are played from the start, again and again."""
    began = time.perf_counter()
    latencies: list[float] = []

    async def one(request: ScoreRequest, at: float) -> None:
        await batcher.score([request])
        latencies.append(time.perf_counter() - began - at)

    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(due):
            if (wait := at - (time.perf_counter() - began)) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(requests[number % len(requests)], at))
    return latencies


async def _watch_loop(lags: list[float]) -> None:
    """How much later than asked the event loop comes back, again and again: what else it serves waits as long."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - began - 0.001)


def _cold_start() -> float:
    """Seconds from nothing to an engine that can score, in a process of its own."""
    code = (
        "from fraudguard.assembly import local_engine; from fraudguard.config import Settings; local_engine(Settings())"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  our own interpreter and code
    return round(time.perf_counter() - began, 2)


def _show(report: Mapping[str, Any], console: Console) -> None:
    limits, swap = report["roofline"], report["swap"]
    shares = ", ".join(
        f"{name.removeprefix('share_of_')} {share:.0%}"
        for name, share in limits.items()
        if name.startswith("share_of_")
    )
    table = Table(title=f"{report['model']}, {report['cores']} threads", title_justify="left")
    for heading in (
        "load",
        "arrivals",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        f"within {report['target_ms']:g} ms /s",
        "loop lag p99 ms",
    ):
        table.add_column(heading, justify="right")
    for row in report["loads"]:
        cells = (row["p50_ms"], row["p95_ms"], row["p99_ms"], row["goodput_per_s"], row["loop_lag_p99_ms"])
        table.add_row(f"{row['share_of_capacity']:.0%}", row["arrivals"], *map(str, cells))
    console.print(table)
    console.print(
        f"capacity {report['capacity_per_s']:,} events/s; {limits['tokens_per_s']:,} tokens/s in whole passes: of what "
        f"products alone allow here in {shares}\n"
        f"an event more costs {report['turns']['slope_share']:.1%} of what re-reading its timeline would cost more\n"
        f"a new release takes over in {swap['loading_s']} s under 25 % load: p99 {swap['p99_ms']} ms, "
        f"worst {swap['worst_ms']} ms, none of {swap['scored']} failed\n"
        f"cold start {report['cold_start_s']} s, memory {report['memory_mib']:,} MiB",
        highlight=False,
        soft_wrap=True,
    )


def draw(report: Mapping[str, Any], file: Path) -> None:
    """Two panels: latency under load, cost against the turn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    load, turn = figure.subplots(1, 2)
    for arrivals, style in (("poisson", "-"), ("bursts", "--")):
        rows = [row for row in report["loads"] if row["arrivals"] == arrivals]
        shares = [100 * row["share_of_capacity"] for row in rows]
        for name, colour in (("p50_ms", "tab:blue"), ("p99_ms", "tab:red")):
            values = [row[name] for row in rows]
            load.plot(shares, values, style, color=colour, marker="o", label=f"{name[:3]}, {arrivals}")
    load.set(
        xlabel=f"load, % of {report['capacity_per_s']:,} events/s", ylabel="ms from arrival to score", yscale="log"
    )
    load.legend()
    for name, label in (("anew_ms", "whole timeline read anew"), ("kept_ms", "timeline kept")):
        turn.plot(range(1, TURNS + 1), report["turns"][name], label=label)
    turn.set(xlabel="turn of the conversation", ylabel="ms an event", ylim=(0, None))
    turn.legend()
    figure.suptitle(report["model"])
    figure.savefig(file, dpi=120)
