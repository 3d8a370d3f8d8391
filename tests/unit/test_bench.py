"""`fraudguard bench engine` on the starter, shortened: it ends, and what it says hangs together."""

import json
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from fraudguard import bench
from fraudguard.config import Settings


def test_the_report_hangs_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All loads in order, latencies in order, shares below one; JSON and picture written; a table shown."""
    monkeypatch.setattr(bench, "LOADS", (0.25, 0.5))
    console = Console(record=True, width=120)
    report = bench.bench_engine(Settings(), console, seconds=0.3, target_ms=50.0, out=tmp_path / "b")
    assert json.loads((tmp_path / "b.json").read_text()) == report
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    assert [row["share_of_capacity"] for row in report["loads"]] == [0.25, 0.25, 0.5, 0.5]
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in report["loads"])
    assert 0 < report["roofline"]["share_of_int8"] < 1
    assert len(report["turns"]["kept_ms"]) == bench.TURNS
    shown = console.export_text()
    assert report["model"] in shown
    assert "cold start" in shown


def test_arrivals_come_at_the_rate_asked_for() -> None:
    """Singly or in bursts, in order, within the time."""
    for size in (1, 16):
        due = list(bench._arrivals(Random(1), 200.0, size, 100.0))
        assert due == sorted(due)
        assert due[0] > 0
        assert due[-1] < 100
        assert abs(len(due) / 100 - 200) < 30
        assert len(set(due)) == len(due) // size
