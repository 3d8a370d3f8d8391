"""Rows, conversations, early detection and groups, on examples worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_data import life, lives

from finetune.measures import CURVE, Measured, along, by_group, check, early, metrics, overall, sizes, threshold
from finetune.passages import labelled
from finetune.rows import Rows, groups, sample
from fraudguard.engine.release import STARTER
from fraudguard.engine.tokenizer import LineTokenizer
from fraudguard.errors import BadInput
from fraudguard.evaluation import average_precision

TOKENIZER = LineTokenizer(STARTER / "base")


def rows_of(*told: tuple[int, bool]) -> Rows:
    """Lives by number and whether they are a fraud's."""
    return Rows.of(labelled([life("test", number, fraud) for number, fraud in told], 0.3), TOKENIZER, 256)


def test_columns() -> None:
    """A life of seven events: a payment, five messages of which two are doubtful, a payment that is fraud."""
    rows = rows_of((0, True))
    assert len(rows) == 7
    assert rows.truth.tolist() == [0.0, pytest.approx(0.1), 0.5, 1.0, 1.0, 1.0, 1.0]
    assert rows.measured.tolist() == [True, False, False, True, True, True, True]
    assert rows.payment.tolist() == [True, False, False, False, False, False, True]
    assert rows.language.tolist() == ["", *["zh"] * 5, ""]
    assert rows.channel.tolist() == ["app", *["chat"] * 5, "app"]
    assert rows.typology.tolist() == ["", *["scam"] * 6]
    assert rows.weight.tolist() == [0.3, *[1.0] * 6]
    assert rows.numbers.shape == (7, rows.asked[0][1].numbers.size)
    assert rows.texts[2].splitlines() == [line.text for line in rows.asked[2][2].timeline.lines]
    assert {name: mask.sum() for name, mask in groups(rows.language).items()} == {"zh": 5}


def test_conversations() -> None:
    """A scam, a harmless one, and one cut off in its doubtful turns, which is neither; ordinary life is in none."""
    rows = rows_of((0, True), (1, False), (8, True))
    assert [(one.source, one.fraud, one.typology, one.rows.tolist()) for one in rows.conversations] == [
        ("calls", True, "scam", [1, 2, 3, 4, 5, 6]),
        ("story", False, "", [8, 9, 10, 11, 12, 13]),
    ]


def test_early_by_hand() -> None:
    """Of three scams one is caught at the third of six turns, one at the last; one of two harmless alarms."""
    rows = rows_of((0, True), (3, True), (5, True), (1, False), (2, False))
    risk = np.full(len(rows), 0.1)
    risk[3] = 0.8  # third turn of the first
    risk[13] = 0.8  # last turn of the second
    risk[0] = risk[21] = 0.9  # ordinary payments are no turn
    risk[24] = 0.7
    scores, fraud = along(rows, risk), [one.fraud for one in rows.conversations]
    found = early(scores, fraud, 0.7)
    assert (found.scams, found.harmless) == (3, 2)
    assert (found.by_half, found.ever, found.false_alarms) == (pytest.approx(1 / 3), pytest.approx(2 / 3), 0.5)
    assert dict(zip(CURVE, found.caught, strict=True))[0.45] == 0.0
    assert dict(zip(CURVE, found.caught, strict=True))[0.95] == pytest.approx(1 / 3)
    assert found.caught[-1] == found.ever
    assert threshold(rows, risk, 0.0) == np.nextafter(0.7, 1)
    assert threshold(rows, risk, 0.5) == np.nextafter(0.1, 1)
    assert np.isnan(early(scores[:3], fraud[:3], 0.7).false_alarms)
    assert np.isnan(early(scores[3:], fraud[3:], 0.7).ever)


def test_overall_leaves_doubt_out() -> None:
    """Doubtful turns with the highest or lowest risk change nothing; a perfect scorer is perfect."""
    rows = rows_of(*((number, number % 5 in (0, 3)) for number in range(20)))
    risk = rows.fraud * 0.9 + 0.05
    for doubt in (0.0, 1.0):
        shown = np.where(rows.measured, risk, doubt)
        found = overall(rows, shown, 2)
        assert (found["average_precision"], found["roc_auc"], found["recall_at_0.1%_fpr"]) == (1.0, 1.0, 1.0)
        assert found["calibration_error"] <= 0.05
        assert found["k"] == 2


def test_groups_by_hand() -> None:
    """A typology against everything harmless, a language among its own messages; a group of one kind has none."""
    rows = rows_of(*((number, number % 5 in (0, 3)) for number in range(20)))
    risk = np.random.default_rng(0).random(len(rows))
    found, counted = by_group(rows, risk), sizes(rows)
    mule = (rows.fraud & (rows.typology == "mule")) | (rows.truth == 0.0)
    expected = average_precision(rows.fraud[mule], risk[mule])
    assert found["by_typology"]["mule"]["average_precision"] == pytest.approx(expected)
    zh = (rows.language == "zh") & rows.measured
    assert found["by_language"]["zh"]["average_precision"] == pytest.approx(average_precision(rows.fraud[zh], risk[zh]))
    assert counted["by_language"]["zh"] == (rows.fraud[zh].sum(), (~rows.fraud[zh]).sum())
    harmless = rows_of((1, False), (0, True))
    assert set(by_group(harmless, risk[: len(harmless)])["by_source"]) == {"calls"}
    assert sizes(harmless)["by_source"]["story"] == (0, 7)


def test_metrics_without_a_conversation() -> None:
    """Payments alone: everything but how early, which the file leaves out."""
    taken = labelled(lives("test", 20), 1.0)
    alone = [
        replace(one, events=tuple(replace(event, story=None) for event in one.events if event.truth in (0.0, 1.0)))
        for one in taken
    ]
    rows = Rows.of(alone, TOKENIZER, 256)
    assert not rows.conversations
    risk = np.random.default_rng(0).random(len(rows))
    seen = early([], [], 0.5)
    named = {"name": "d", "digest": "0" * 64}
    found = metrics(rows, risk, Measured("m@1+fp32", len(rows), overall(rows, risk, 2), seen), named)
    assert "early_share" not in found.model_dump_json(exclude_none=True)
    assert found.measures.early_share is None


def test_what_cannot_be_measured() -> None:
    """No fraud, nothing harmless: each is said. Without a harmless conversation nothing alarms."""
    with pytest.raises(BadInput, match="no fraud among 14"):
        check(rows_of((1, False), (2, False)), "test.parquet")
    only = rows_of((0, True))
    with pytest.raises(BadInput, match="no harmless event"):
        check(Rows([one for one in only.asked if one[1].truth > 0]), "test.parquet")
    check(only, "test.parquet")
    assert threshold(only, np.ones(len(only)), 0.01) == np.inf


def test_a_sample_is_whole_timelines_at_one_rate() -> None:
    """About as many events as asked for, frauds' and others' shares kept, order kept, the same again."""
    timelines = labelled(lives("test", 100), 1.0)
    drawn = sample(timelines, 210, 0)
    assert drawn == sample(timelines, 210, 0) != sample(timelines, 210, 1)
    assert 210 <= sum(len(one.events) for one in drawn) <= 230
    assert [one for one in timelines if one in drawn] == drawn
    frauds = sum(any(event.truth == 1.0 for event in one.events) for one in drawn)
    assert 8 <= frauds <= 13  # 30 % of about 31
    assert sample(timelines, 0, 0) == sample(timelines, 10**6, 0) == timelines
