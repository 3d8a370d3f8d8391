"""An evaluation from the command line: its report as people read it (golden), its metrics.json, its errors.

FRAUDGUARD_RECORD=1 writes golden/report.md anew; review the difference.
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from evaluation_data import RULE, write
from releases import make_release
from sklearn.metrics import average_precision_score, roc_auc_score

from finetune import dataset, evaluate
from finetune.evaluate import read_settings
from fraudguard.engine.engine import Engine
from fraudguard.errors import BadInput
from fraudguard.measures import parse_metrics

GOLDEN = Path(__file__).parent / "golden" / "report.md"
SETTINGS = Path(evaluate.__file__).parent / "evaluate.yaml"
SMALL = {
    "capacity": 3, "false_alarms": 0.1, "attack_events_max": 60, "zero_shot_events_max": 100, "train_events_max": 150,
    "tf_idf": {"ngrams": [1, 3], "features_max": 2000, "penalties": [1, 10]}, "boosting": {"rounds": 20, "rate": 0.1},
    "bootstrap_rounds": 50,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATASET, RELEASE and settings."""
    folder = tmp_path_factory.mktemp("evaluation")
    write(folder / "dataset")
    make_release(folder / "release")
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(RULE)
    settings = yaml.safe_load(SETTINGS.read_text()) | SMALL | {"rules": str(folder / "rules")}
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(settings))
    return folder


def run(folder: Path, data: Path, out: Path) -> None:
    """The command."""
    evaluate.main(
        [
            str(folder / "evaluate.yaml"), "--dataset", str(data), "--release", str(folder / "release"),
            "--precision", "fp32", "--out", str(out),
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The REPORT."""
    out = tmp_path_factory.mktemp("report") / "report"
    run(folder, folder / "dataset", out)
    return out


def test_the_report_is_as_recorded(report: Path) -> None:
    """Golden, but for the digest of a file whose bytes depend on the library that wrote it; its pictures are there."""
    text = re.sub(r"sha256 `\w{16}`", "sha256 `DIGEST`", (report / "report.md").read_text())
    if os.environ.get("FRAUDGUARD_RECORD"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    for picture in re.findall(r"\]\((\w+\.png)\)", text):
        assert (report / picture).read_bytes().startswith(b"\x89PNG")


def test_metrics_are_those_of_the_engine(folder: Path, report: Path) -> None:
    """metrics.json has the registry's form; scikit-learn on the engine's own answers finds the same numbers."""
    metrics = parse_metrics((report / "metrics.json").read_text(), report)
    engine = Engine.load(folder / "release", "fp32", 1)
    truth, risks, typologies = [], [], []
    for _, labelled, request in dataset.requests(
        dataset.read(folder / "dataset", "test"), engine.tokenizer, engine.tokens_max
    ):
        if labelled.truth in (0.0, 1.0):
            truth.append(labelled.truth)
            risks.append(engine.score([request])[0].risk)
            typologies.append(labelled.typology)
    assert metrics.model == "starter@0.0.1+fp32"
    assert (metrics.events, metrics.frauds) == (len(truth), sum(truth))
    assert metrics.measures.average_precision == pytest.approx(average_precision_score(truth, risks), abs=1e-4)
    assert metrics.measures.roc_auc == pytest.approx(roc_auc_score(truth, risks), abs=1e-4)
    rows = [n for n, typology in enumerate(typologies) if typology == "mule" or truth[n] == 0.0]
    found = average_precision_score(np.array(truth)[rows], np.array(risks)[rows])
    assert metrics.by_typology["mule"].average_precision == pytest.approx(found, abs=1e-4)
    assert set(metrics.by_language) == {"zh", "en"}
    assert set(metrics.by_channel) == {"chat", "call", "sms", "app"}
    assert set(metrics.by_source) == {"story", "calls"}
    assert metrics.measures.early_share is not None


def test_the_same_again(folder: Path, report: Path, tmp_path: Path) -> None:
    """Two runs write the same numbers: seeds are fixed."""
    run(folder, folder / "dataset", tmp_path)
    assert (tmp_path / "metrics.json").read_text() == (report / "metrics.json").read_text()
    assert (tmp_path / "report.md").read_text() == (report / "report.md").read_text()


def test_there_is_no_fraud_in_the_test_part(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be measured: the file, what is missing and what to do."""
    timelines = dataset.read(folder / "dataset", "test")
    safe = [one for one in timelines if not any(event.truth > 0 for event in one.events)]
    dataset.write(tmp_path, "test", safe)
    with pytest.raises(SystemExit) as stopped:
        run(folder, tmp_path, tmp_path / "report")
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert re.search(r"test\.parquet: there is no fraud among \d+ events \(prepare a larger dataset\)", said)
    assert not (tmp_path / "report").exists()


def test_a_dataset_without_conversations(folder: Path, tmp_path: Path) -> None:
    """Payments and messages that belong to no story: events are measured, and how early is left open."""
    for split in dataset.SPLITS:
        timelines = [
            replace(one, events=tuple(replace(event, story=None) for event in one.events))
            for one in dataset.read(folder / "dataset", split)
        ]
        dataset.write(tmp_path, split, timelines)
    run(folder, tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "0 scam conversations and 0 harmless ones" in text
    assert "| starter@0.0.1+fp32 | - | - | - |" in text
    assert "early_share" not in (tmp_path / "report" / "metrics.json").read_text()
    parse_metrics((tmp_path / "report" / "metrics.json").read_text(), tmp_path)


def test_a_dataset_of_another_version(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says which file and that it must be prepared again."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "dataset" / "test.parquet")
    pq.write_table(table.replace_schema_metadata({"features": '["amount"]'}), tmp_path / "test.parquet")
    with pytest.raises(SystemExit):
        run(folder, tmp_path, tmp_path / "report")
    assert "prepare it again" in capsys.readouterr().err


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    """A word too many, a rate that is none."""
    settings = yaml.safe_load(SETTINGS.read_text())
    for wrong in ({"speed": 1}, {"false_alarms": 1}):
        (tmp_path / "evaluate.yaml").write_text(json.dumps(settings | wrong))
        with pytest.raises(BadInput, match=r"evaluate\.yaml: cannot be read"):
            read_settings(tmp_path / "evaluate.yaml")
