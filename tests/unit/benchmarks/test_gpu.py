"""The GPU benchmark, rehearsed on a CPU: all but CUDA itself runs, and what is wrong is called so."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import gpu, open_loop
from benchmarks.gpu_peers import Sizes, build, ours
from benchmarks.limits import Body, Peaks, need
from benchmarks.peers import Ours
from benchmarks.workloads import Event
from fraudguard.errors import BadModel

CPU = torch.device("cpu")
PEAKS = Peaks(bf16=790e12, fp8=1_580e12, bandwidth=4.8e12)


@pytest.fixture(autouse=True)
def few_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of events for each rate of the open loop: enough for every step, too few for a p99."""
    monkeypatch.setattr(open_loop, "EVENTS_MIN", 10)


def test_a_rehearsal_gives_every_row_with_parity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Caches, packed timelines, the open loop: each agrees with transformers; the tables come last, and as JSON."""
    file = tmp_path / "gpu.json"
    peers = ["transformers, padded", "ours bf16", "transformers, D", "transformers, S", "transformers, packed"]
    options = ["--device", "cpu", "--models", "tiny", "--seconds", "0.02", "--deadline", "60000"]
    gpu.main([*options, "--json", str(file), "--peers", *peers])
    report = json.loads(file.read_text())
    assert {line["parity"] for line in report["rows"]} == {"equal"}
    measured = {name: [line["workload"] for line in report["rows"] if line["engine"] == name] for name in gpu.PEERS}
    everything = ["A", "A", "B, 256 tokens", "B, mixed lengths"]
    for name in ("transformers, padded", "ours bf16, graphs", "ours bf16, eager"):
        assert measured[name] == [*everything, "A, open loop"]
    assert measured["transformers, packed"] == everything
    assert measured["transformers, DynamicCache"] == measured["transformers, StaticCache, graphs"] == ["A", "A"]
    assert all(line["per s"] > 0 for line in report["rows"])
    assert len(report["aims"]) == 7
    assert capsys.readouterr().out.endswith(f"{gpu.table(report['rows'])}\n\n{gpu.table(report['aims'])}\n")


def test_the_timed_part_of_workload_a_is_its_new_tokens() -> None:
    """What is read before leaves 32 tokens of an event, every time anew; a stranger's timeline is read whole."""
    made, _ = gpu.workloads(gpu.REHEARSAL, 512)
    peer = ours(build("tiny", CPU), gpu.REHEARSAL, "bf16", graphs=False)
    assert isinstance(peer, Ours)
    for batch in [*made[1].batches, *made[1].batches]:
        peer.read(batch.before)
        assert [peer.engine.new_tokens(event.request) for event in batch.events] == [32] * 8
        peer.read(batch.events)
    whole = gpu.strangers(made[2].batches[0], iter(range(8)))
    assert [peer.engine.new_tokens(event.request) for event in whole.events] == [256] * 8


class Zeros:
    """An engine that reads nothing."""

    exact = keeps = False

    def read(self, events: Sequence[Event]) -> Tensor:
        """Nothing."""
        return torch.zeros(len(events), 64)


def failing(_model: object, _sizes: Sizes) -> Zeros:
    """An engine that cannot be made."""
    raise BadModel("no such\nkernel")


def missing(_model: object, _sizes: Sizes) -> Zeros:
    """An engine whose package is not there."""
    raise ImportError("No module named 'fast'", name="fast")


def test_what_is_wrong_or_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Void, the error, the missing package; each costs only itself."""
    makers = {"zeros": lambda _model, _sizes: Zeros(), "failing": failing, "missing": missing}
    monkeypatch.setattr(gpu, "PEERS", makers)
    rows, notes = gpu.run_model("tiny", (), CPU, PEAKS, seconds=0.01, latency_max_s=1.0, limit_s=60.0)
    *zeros, failed, absent = rows
    assert len(zeros) == 4
    assert {line["parity"] for line in zeros} == {"void"}
    assert failed["parity"] == "BadModel: no such kernel"
    assert absent["parity"] == "not installed (fast)"
    assert len(notes) == 3


def test_the_limit_ends_what_does_not_end() -> None:
    """By an exception, which the engine's row then tells."""

    def endless() -> None:
        while True:
            pass

    with pytest.raises(TimeoutError, match=r"over 0\.01 s"), gpu.limit(0.01):
        endless()


@pytest.mark.parametrize(("model", "published"), [("0.5b", 4_246), ("1.5b", 1_168), ("7b", 236)])
def test_the_physical_limit_is_that_of_the_shape(model: str, published: int) -> None:
    """Timelines/s of 256 tokens at 790 TFLOP/s, worked out elsewhere; products bind, not memory."""
    body = Body.of(build(model, torch.device("meta")))
    compute, memory = PEAKS.shares(need(body, [(0, 256)] * 64, 2), 64 / published, fp8=False)
    assert compute == pytest.approx(1.0, rel=0.005)
    assert memory < compute


def test_one_event_is_bound_by_memory() -> None:
    """32 new tokens on 256 held: 0.36e9 weights in bf16 and 288 tokens' keys and values of 12 KiB."""
    body = Body.of(build("0.5b", torch.device("meta")))
    needed = need(body, [(256, 32)], 2)
    assert needed.bytes == pytest.approx(2 * 357.9e6 + 288 * 12_288, rel=1e-3)
    compute, memory = PEAKS.shares(needed, 1e-3, fp8=False)
    assert memory > compute
    assert PEAKS.shares(needed, 1e-3, fp8=True)[0] == pytest.approx(compute / 2)


def goodput(serve: open_loop.Serve) -> open_loop.Offered | None:
    """Of A's events, at up to 15,000 a second."""
    _, events = gpu.workloads(gpu.REHEARSAL, 512)
    return asyncio.run(open_loop.goodput(serve, events, 10_000, 0.001, latency_max_s=30.0))


def test_goodput_is_the_highest_rate_in_time() -> None:
    """Who answers at once holds every rate; who answers nobody none."""

    async def at_once(events: Sequence[Event]) -> list[bool]:
        return [True] * len(events)

    async def refuse(events: Sequence[Event]) -> list[bool]:
        return [False] * len(events)

    found = goodput(at_once)
    assert found is not None
    assert found.rate == 10_000 * open_loop.STEPS[-1]
    assert 0 <= found.quantile_s(0.5) <= found.quantile_s(0.99) < 30
    assert goodput(refuse) is None


def test_an_engine_that_fails_is_not_slow() -> None:
    """Its error comes out of the open loop."""

    class Broken(Zeros):
        def read(self, events: Sequence[Event]) -> Tensor:
            raise BadModel("broken")

    waiting = open_loop.Waiting(Broken(), batch_max=4)
    with pytest.raises(BadModel, match="broken"):
        goodput(waiting.serve)
    waiting.close()


def test_aims_count_only_rows_with_parity() -> None:
    """Reached, missed, and a dash where no valid row tells."""
    row = dict.fromkeys(gpu.COLUMNS, "-") | {"model": "0.5b", "workload": "A", "batch": 1, "parity": "equal"}
    rows = [
        row | {"engine": "ours bf16, graphs", "per s": 900.0, "p50 ms": 1.5},
        row | {"engine": "ours bf16, eager", "per s": 450.0, "p50 ms": 2.5},
        row | {"engine": "ours fp8, graphs", "model": "7b", "per s": 5_000.0, "parity": "void"},
    ]
    events, p50, graphs, _, fp8, *_ = gpu.aims(rows)
    assert (events["found"], events[""]) == (900.0, "missed")
    assert (p50["found"], p50[""]) == (1.5, "reached")
    assert (graphs["found"], graphs[""]) == (2.0, "missed")
    assert (fp8["found"], fp8[""]) == ("-", "-")
