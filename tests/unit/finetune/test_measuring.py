"""Sets that nobody trained on: read as they lie, compared on the same dialogues, alarms at a threshold given."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.baselines import Model
from finetune.measuring import Transfer, Unseen, transfer, unseen
from finetune.rows import Rows
from fraudguard.engine.release import STARTER
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.evaluation import Floats, roc_auc

TOKENIZER = LineTokenizer(STARTER / "base")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sets, twelve dialogues each."""
    folder = tmp_path_factory.mktemp("sets")
    for name in ("zh_antifraud_sft", "en_other_calls"):
        (folder / name).mkdir()
    pd.DataFrame(
        {
            "split": ["one"] * 8 + ["two"] * 4,
            "text": [f"{'甲乙丙丁'[n % 4]}: 你好\n戊: 在吗\n{'甲乙丙丁'[n % 4]}: 转账{n}" for n in range(12)],
            "text_masked": [f"S1: 你好\nS2: 在吗\nS1: {'转账' if n % 2 else '会议'}{n}" for n in range(12)],
            "label": [n % 2 for n in range(12)],
            "source_meeting": [int(n in (0, 2)) for n in range(12)],
        }
    ).to_parquet(folder / "zh_antifraud_sft" / "windows.parquet")
    pd.DataFrame(
        {
            "set": ["calls"] * 8 + ["scams"] * 4,
            "dialogue_id": [f"d-{n}" for n in range(12)],
            "text": [
                f"Suspect: Hello {n}\nInnocent: Who is it?\nnonsense\nSuspect: {'Pay now' if n % 2 or n > 7 else 'Bye'}"
                for n in range(12)
            ],
            "label": [int(n % 2 or n > 7) for n in range(12)],
        }
    ).to_parquet(folder / "en_other_calls" / "dialogues.parquet")
    return folder


def by_word(word: str, high: float) -> Model:
    """A model that alarms at a word in the newest line."""

    def risks(rows: Rows) -> Floats:
        return np.array([high if word in request.timeline.lines[-1].text else 0.1 for _, _, request in rows.asked])

    return risks


def test_what_is_there_is_read(folder: Path, tmp_path: Path) -> None:
    """Versions with and without meetings, cases by their speakers; calls by set; nothing where there is no set."""
    windows, calls = unseen(folder)
    assert {name: int(part.sum()) for name, part in windows.parts.items()} == {
        "one": 8, "one, without meetings": 6, "two": 4, "two, without meetings": 4,
    }  # fmt: skip
    assert len(set(windows.cases.tolist())) == 4
    assert windows.fraud.tolist() == [n % 2 == 1 for n in range(12)]
    assert {name: int(part.sum()) for name, part in calls.parts.items()} == {"calls": 8, "scams": 4}
    assert [sender for sender, _ in calls.dialogues[0].turns] == ["counterparty", "customer", "counterparty"]
    assert len(set(calls.cases.tolist())) == 12
    assert unseen(tmp_path) == []


def test_two_models_on_the_same_dialogues(folder: Path) -> None:
    """One that knows the word beside one that knows nothing; the alarm comes at the last turn or never."""
    windows, calls = unseen(folder)
    found = {one.part: one for one in compared(windows, "转账", 0.8)}
    one = found["one"]
    assert (one.scams, one.harmless, one.ours, one.theirs) == (4, 4, 1.0, 0.5)
    assert one.difference == (0.5, 0.5)
    assert (one.by_half, one.ever, one.false_alarms) == (0.0, 1.0, 0.0)
    found = {one.part: one for one in compared(calls, "Hello", 0.8)}
    assert found["calls"].ours == roc_auc([0, 1], [0.1, 0.1])
    assert (found["calls"].by_half, found["calls"].false_alarms) == (1.0, 1.0)
    scams = found["scams"]
    assert (scams.scams, scams.harmless, scams.ever) == (4, 0, 1.0)
    assert math.isnan(scams.ours)
    assert math.isnan(scams.difference[0])
    assert math.isnan(scams.false_alarms)


def compared(one: Unseen, word: str, high: float) -> list[Transfer]:
    """A model that knows a word beside one that knows none."""
    return transfer(one, TOKENIZER, 256, by_word(word, high), by_word("nothing", 0.5), 0.5, 20)
