"""The LoRA benchmark, rehearsed on a CPU: every kind of adapter takes its steps and learns."""

import json
from pathlib import Path

import pytest

from benchmarks import lora
from benchmarks.limits import Body, need


def test_a_rehearsal_gives_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With layers worked out again; the loss falls from about that of a coin; the table comes last, and as JSON."""
    work = ["--passages", "3", "--length", "64", "--row-tokens", "128", "--steps", "1", "--checkpointing"]
    file = tmp_path / "lora.json"
    lora.main(["--device", "cpu", "--models", "tiny", "--kinds", *lora.KINDS, *work, "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert [row["kind"] for row in rows] == ["lora", "dora", "qlora"]
    for row in rows:
        assert row["tokens/s"] > 0 < row["MFU"]
        assert 0.5 < row["last loss"] < row["first loss"] < 1.2
    assert capsys.readouterr().out.endswith(f"{lora.table(rows)}\n")


def test_a_step_of_the_true_shape_needs_what_is_counted() -> None:
    """0.36 billion parameters outside the embedding: 4 flops each a token, beside attention."""
    body = Body(parameters=357_897_600, layers=24, inner=896, kv_bytes=0)
    one = 2 * need(body, [(0, 512)], 2).flops / 512
    assert one == pytest.approx(4 * 357_897_600 + 8 * 24 * 896 * 513 / 2)


def test_rows_hold_what_they_may() -> None:
    """Passages of 64 tokens in rows of 128, the last one shorter; a reading every 32."""
    rows = lora.Work(passages=3, length=64, row_tokens=128).rows(512)
    assert [len(row) for row in rows] == [2, 1]
    assert rows[0][0].ends.tolist() == [31, 63]
