"""A measured release is made whole: card, metrics, licence, seal; and nothing of another release or dataset gets in."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from packs import payment

from finetune import dataset, publish
from finetune.dataset import LabelledEvent, LabelledTimeline
from fraudguard.baseline import read_baseline
from fraudguard.engine.release import STARTER, SUMS, open_release, verify
from fraudguard.engine.release_metrics import read_metrics
from fraudguard.features.registry import MODEL_FEATURES

MEASURES = {
    "average_precision": 0.5, "roc_auc": 0.9, "recall_at_0.1%_fpr": 0.1, "recall_at_1%_fpr": 0.3, "precision_at_k": 0.2,
    "k": 20, "calibration_error": 0.01,
}  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A release, its dataset with a card, its report and a licence."""
    found = {name: tmp_path / name for name in ("release", "data", "report")}
    shutil.copytree(STARTER, found["release"])
    found["data"].mkdir()
    digest = hashlib.sha256(b"test").hexdigest()
    (found["data"] / "card.json").write_text(json.dumps({"name": "d", "splits": {"test": {"sha256": digest}}}))
    (found["data"] / "card.md").write_text("# Data card\n")
    numbers = np.full(len(MODEL_FEATURES), np.nan, dtype=np.float32)
    event = LabelledEvent(payment("t-1"), numbers, 0.0, 1.0, None, None, "own")
    dataset.write(found["data"], "train", [LabelledTimeline("life", "a-1", (event,))])
    found["report"].mkdir()
    made = open_release(STARTER)
    metrics = {
        "format": 1, "model": f"{made.name}@{made.version}+int8", "dataset": {"name": "d", "digest": digest},
        "events": 10, "frauds": 2, "measures": MEASURES,
    }  # fmt: skip
    (found["report"] / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "licence.md").write_text("# Apache-2.0\n")
    return found | {"licence": tmp_path / "licence.md", "out": tmp_path / "out"}


def run(folders: dict[str, Path]) -> None:
    """The command."""
    named = [
        part for name in ("dataset", "report", "licence", "out") for part in (f"--{name}", str(folders[_of(name)]))
    ]
    publish.main([str(folders["release"]), *named])


def _of(option: str) -> str:
    return "data" if option == "dataset" else option


def test_it_is_whole_and_sealed(folders: dict[str, Path]) -> None:
    """Everything that release.json names is there, and verifies; the source stays as it was."""
    before = (folders["release"] / SUMS).read_bytes()
    run(folders)
    verify(folders["out"])
    sums = (folders["out"] / SUMS).read_text()
    for name in ("data.json", "data.md", "metrics.json", "LICENCE.md", "head/head.json", "base/tokenizer.json"):
        assert f"  {name}\n" in sums
    assert read_baseline(folders["out"]).variables["transaction"].keys() == set(MODEL_FEATURES)
    found = read_metrics(open_release(folders["out"]))
    assert found is not None
    assert found.measures.average_precision == 0.5
    assert (folders["release"] / SUMS).read_bytes() == before


def test_what_was_measured_is_this_release_on_this_dataset(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model's metrics, another dataset's and missing ones are refused, and nothing is written."""
    file = folders["report"] / "metrics.json"
    metrics = json.loads(file.read_text())
    for wrong, message in (
        ({"model": "other@1+int8"}, "of other@1+int8, not of starter@"),
        ({"dataset": {"name": "d", "digest": "0" * 64}}, "another dataset"),
    ):
        file.write_text(json.dumps(metrics | wrong))
        with pytest.raises(SystemExit):
            run(folders)
        assert message in capsys.readouterr().err
    file.unlink()
    with pytest.raises(SystemExit):
        run(folders)
    assert "there is no metrics" in capsys.readouterr().err
    assert not folders["out"].exists()
