"""The readers that know nothing: each finds what gives the answer away, and nothing where nothing does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import pytest

from finetune import dataset, leakage
from finetune.dataset import LabelledEvent, LabelledTimeline
from fraudguard.domain import Message, Typology
from fraudguard.features.registry import MODEL_FEATURES

AT = datetime(2026, 3, 2, tzinfo=UTC)
NEUTRAL = ("好的", "明天见", "在吗", "嗯嗯", "知道了", "谢谢你", "路上小心", "吃了没")


def talk(name: str, source: str, texts: list[str], truths: list[float], channel: str = "chat") -> LabelledTimeline:
    """One dialogue in an account of its own."""
    events = []
    for turn, (text, truth) in enumerate(zip(texts, truths, strict=True)):
        event = Message.model_validate(
            {
                "type": "message", "version": 1, "event_id": f"{name}-{turn}", "account_id": name,
                "event_time": AT + timedelta(minutes=turn), "conversation_id": name, "channel": channel,
                "sender": "counterparty", "language": "zh", "text": text,
            }
        )  # fmt: skip
        numbers = np.full(len(MODEL_FEATURES), np.nan, dtype=np.float32)
        kind = Typology.SCAM if truth else None
        events.append(LabelledEvent(event, numbers, truth, 1.0, kind, name, "public"))
    return LabelledTimeline(source, name, tuple(events))


def made(folder: Path, turns: tuple[int, int], words: tuple[str, str], channels: tuple[str, str]) -> Path:
    """60 and 30 dialogues of two sources, half of them fraud; harmless and fraudulent ones differ as told."""
    rng = Random(0)
    for split, count in (("train", 60), ("test", 30), ("dev", 2)):
        timelines = []
        for number in range(count):
            fraud = number % 2
            texts = [rng.choice(NEUTRAL) for _ in range(turns[fraud])] + [words[fraud] or rng.choice(NEUTRAL)]
            source = "bothbosu" if number % 4 < 2 else "teleantifraud"
            name = f"{split}-{number}"
            timelines.append(talk(name, source, texts, [float(fraud)] * len(texts), channels[fraud]))
        dataset.write(folder, split, timelines)  # type: ignore[arg-type]  # one of SPLITS
    return folder


@pytest.mark.parametrize(
    ("turns", "words", "channels", "telling"),
    [
        ((3, 9), ("", ""), ("chat", "chat"), "length"),
        ((5, 5), ("", ""), ("chat", "call"), "channel, speakers and language"),
        ((5, 5), ("周末一起去爬山吧", "把钱转到安全账户"), ("chat", "chat"), leakage.TF_IDF),
    ],
)
def test_what_tells_is_found(
    tmp_path: Path, turns: tuple[int, int], words: tuple[str, str], channels: tuple[str, str], telling: str
) -> None:
    """The reader of what differs is right every time, across sources too where it is words; source tells nothing."""
    found = leakage.report(made(tmp_path, turns, words, channels))
    assert found["talks"]["train"] == {"frauds": 30, "harmless": 30}
    assert found["readers"][telling]["all"] > 0.99
    assert found["readers"]["source"] == {"all": 0.5, "bothbosu": 0.5, "teleantifraud": 0.5}
    for name in {"length", "channel, speakers and language"} - {telling}:
        assert found["readers"][name]["all"] < 0.8
    if telling == leakage.TF_IDF:
        assert all(auc > 0.99 for of in found["across"].values() for auc in of.values())
    assert found["across"].keys() == {"bothbosu", "teleantifraud"}


def test_where_there_is_no_fraud_nothing_is_asked(tmp_path: Path) -> None:
    """A dataset of harmless talk alone has no readers."""
    for split in dataset.SPLITS:
        dataset.write(tmp_path, split, [talk(f"{split}-{n}", "kdconv_zh", ["在吗"], [0.0]) for n in range(8)])
    found = leakage.report(tmp_path)
    assert found["talks"]["test"] == {"frauds": 0, "harmless": 8}
    assert (found["readers"], found["across"]) == ({}, {})


def test_a_verdict_of_a_whole() -> None:
    """A scam that ended in its first turns is one; a doubt without a kind is neither; unknown events say nothing."""

    def of(*events: tuple[float, float, Typology | None]) -> bool | None:
        (timeline,) = [talk("a", "x", ["在"] * len(events), [truth for truth, _, _ in events])]
        return leakage.verdict(
            [
                LabelledEvent(one.event, one.numbers, truth, weight, kind, "a", "public")
                for one, (truth, weight, kind) in zip(timeline.events, events, strict=True)
            ]
        )

    assert of((0.1, 1.0, Typology.SCAM), (0.35, 1.0, Typology.SCAM)) is True
    assert of((0.5, 0.0, Typology.SCAM), (1.0, 1.0, None)) is True
    assert of((0.0, 1.0, None), (0.5, 0.0, None)) is False
    assert of((0.5, 0.5, None)) is None
    assert of((0.5, 0.0, None)) is None
