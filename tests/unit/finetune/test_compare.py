"""compare: a row each, measured through the engine; what is counted is what is there."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from finetune import compare, dataset, measures, scored
from finetune.compare import CompareRun, bytes_on_disk, parameters, split_name, table
from finetune.evaluate import engine_model
from fraudguard.engine.engine import Engine
from fraudguard.engine.head import load_head
from fraudguard.engine.loader import load_base
from fraudguard.engine.release import open_release
from fraudguard.errors import BadInput

SETTINGS: dict[str, Any] = yaml.safe_load(Path("finetune/compare.yaml").read_text()) | {"speed_events": 40}


@pytest.fixture(scope="module")
def rows(tuned: Path, labelled: Path) -> list[compare.Row]:
    """The tuned release twice and once in int8."""
    names = [f"{tuned}+fp32", f"{tuned}+int8", f"{tuned}+fp32"]
    return compare.compare(names, labelled, CompareRun.model_validate(SETTINGS))


def test_quality_is_what_the_engine_scores(rows: list[compare.Row], tuned: Path, labelled: Path) -> None:
    """Over the test split, by evaluate's own measures; the same release twice differs in nothing but time."""
    for row, precision in zip(rows, ("fp32", "int8", "fp32"), strict=True):
        engine = Engine.load(tuned, precision, 1)  # type: ignore[arg-type]  # of the tuple above
        test = scored.rows_of(engine, dataset.read(labelled, "test"))
        wanted = measures.overall(test, engine_model(engine)(test), 1)
        assert row.quality == {name: pytest.approx(wanted[name], abs=1e-6) for name in row.quality}
        assert row.name == engine.name
        assert row.memory == engine.weight_bytes
    assert rows[0].quality == rows[2].quality
    assert rows[1].memory < rows[0].memory
    assert all(row.ms > 0 for row in rows)


def test_size_is_what_is_there(rows: list[compare.Row], tuned: Path) -> None:
    """Parameters by the modules themselves; bytes by the folder."""
    release = open_release(tuned)
    body = load_base(release.base).model.num_parameters()
    head = sum(one.numel() for one in load_head(release.head).state_dict().values())
    assert rows[0].parameters == parameters(release) == body + head
    parts = ("base", "adapter", "head")
    files = [file for part in parts for file in (tuned / part).rglob("*") if file.is_file()]
    assert rows[0].disk == bytes_on_disk(release) == sum(file.stat().st_size for file in files)


def test_the_table_tells_what_differs_from_the_first(rows: list[compare.Row]) -> None:
    """A line each; the first has no differences, and time 1."""
    first, second, _ = table(rows)[2:]
    assert "1.00x" in first
    assert "(+" not in first
    apart = rows[1].quality["roc_auc"] - rows[0].quality["roc_auc"]
    assert f"{rows[1].quality['roc_auc']:.4f} ({apart:+.4f})" in second
    assert "+int8 |" in second


def test_the_command(tuned: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """int8 where no precision is named; another word is refused."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    threads = torch.get_num_threads()
    compare.main([str(tmp_path / "tiny.yaml"), str(tuned), "--dataset", str(labelled)])
    torch.set_num_threads(threads)
    assert "| tiny@0.0.1+int8 |" in capsys.readouterr().out
    assert split_name("a/b+c+int4") == ("a/b+c", "int4")
    with pytest.raises(BadInput, match="'int3' is no precision"):
        split_name("a+int3")
