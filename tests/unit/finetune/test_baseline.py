"""What a release was trained on, in the form in which drift compares with it."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
import pytest
from packs import message, payment

from finetune import dataset
from finetune.baseline import baseline_of
from finetune.dataset import LabelledEvent, LabelledTimeline
from fraudguard.baseline import BASELINE, read_baseline, write_baseline
from fraudguard.errors import BadInput
from fraudguard.features.registry import MODEL_FEATURES
from fraudguard.stability import bin_of, psi

AMOUNT = MODEL_FEATURES.index("amount_base")


def timelines(count: int) -> list[LabelledTimeline]:
    """Payments of 9.9, which no float32 is, and of other amounts; messages without any."""
    rng = Random(3)
    events = []
    for n in range(count):
        numbers = np.full(len(MODEL_FEATURES), np.nan, dtype=np.float32)
        if n % 4:
            numbers[AMOUNT] = 9.9 if n % 4 == 1 else rng.lognormvariate(5, 1)
        event = payment(f"t-{n}", minute=n) if n % 4 else message(f"m-{n}", "你好", minute=n)
        events.append(LabelledEvent(event, numbers, 0.0, 0.3, None, None, "own", datetime(2026, 1, 1, tzinfo=UTC)))
    return [LabelledTimeline("story", "a-1", tuple(events))]


def test_a_baseline_is_what_screening_sees_of_the_same_events(tmp_path: Path) -> None:
    """Every event once, by type; 9.9 as it is sent falls into the bin of 9.9 as it was stored."""
    dataset.write(tmp_path, "train", timelines(400))
    baseline = baseline_of(tmp_path)
    assert baseline.name.startswith(f"{tmp_path.name} (train, ")
    amounts = baseline.variables["transaction"]["amount_base"]
    assert (amounts.total, amounts.counts[-1]) == (300, 0)
    assert amounts.counts[bin_of(amounts.cuts, 9.9)] == 100
    assert psi(amounts.counts, amounts.counts) == 0
    messages = baseline.variables["message"]
    assert messages.keys() == set(MODEL_FEATURES)
    assert messages["amount_base"].counts == (0, 100)
    assert read_baseline(write_baseline(tmp_path, baseline)) == baseline
    assert read_baseline(tmp_path) == baseline


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Invalid JSON"),
        ('{"name": "x", "variables": {}, "format": 2}', "format"),
        ('{"name": "x", "variables": {"label": {}}}', "label"),
        ('{"name": "x", "variables": {"message": {"hour": {"cuts": [2, 1], "counts": [0, 0, 0, 0]}}}}', "rise"),
        ('{"name": "x", "variables": {"message": {"hour": {"cuts": [NaN], "counts": [0, 0, 0]}}}}', "cuts"),
        ('{"name": "x", "variables": {"message": {"hour": {"cuts": [1], "counts": [0, 0]}}}}', "one for each bin"),
    ],
)
def test_a_damaged_baseline_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """With the file, the place in it, and how one is made."""
    (tmp_path / BASELINE).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=said) as refused:
        read_baseline(tmp_path)
    assert str(tmp_path / BASELINE) in str(refused.value)
    assert "finetune.publish" in str(refused.value)


@pytest.mark.parametrize("name", ["", "没有", "a\0b"])
def test_a_missing_baseline_is_refused(tmp_path: Path, name: str) -> None:
    """No file in the folder, no folder, no path at all."""
    with pytest.raises(BadInput, match="cannot be read"):
        read_baseline(tmp_path / name if name else tmp_path)
