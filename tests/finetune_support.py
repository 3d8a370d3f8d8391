"""A small DATASET of made-up talk, a small base, and lora.yaml made small: the same bytes on every machine."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from releases import make_release

from finetune import dataset
from finetune.dataset import LabelledEvent, LabelledTimeline
from fraudguard.domain import Message, Screenable, Transaction, Typology
from fraudguard.features.registry import MODEL_FEATURES

AT = datetime(2026, 11, 1, 8, tzinfo=UTC)
HARMLESS = ["晚上吃什么", "send me the photos", "明天开会", "see you at noon", "快递到了吗"]
SCAM = ["急用钱，先转到安全账户", "send the code now", "您涉嫌洗钱", "click this link", "不要告诉家人"]
LORA_YAML = Path("finetune/lora.yaml")


def make_timelines(count: int, seed: int) -> list[LabelledTimeline]:
    """Every third a scam from its middle on; numbers that go with it, some missing."""
    rng = Random(seed)
    return [_timeline(number, fraud=number % 3 == 0, rng=rng) for number in range(count)]


def _timeline(number: int, *, fraud: bool, rng: Random) -> LabelledTimeline:
    account, events = f"a-{number}", []
    for turn in range(rng.randrange(4, 9)):
        bad = fraud and turn >= 3
        event = _event(account, turn, rng.choice(SCAM if bad else HARMLESS), bad=bad, rng=rng)
        numbers = np.full(len(MODEL_FEATURES), np.nan, dtype=np.float32)
        for name, value in (("amount_base", rng.random() * (900 if bad else 90)), ("transfers_1d", rng.randrange(5))):
            if rng.random() < 0.8:
                numbers[MODEL_FEATURES.index(name)] = value
        kind = (Typology.SCAM, Typology.MULE)[number % 2] if bad else None
        story = f"s-{number}" if fraud else None
        events.append(LabelledEvent(event, numbers, float(bad), 1.0 if bad else 0.5, kind, story, "own"))
    return LabelledTimeline("calls" if fraud else "life", account, tuple(events))


def _event(account: str, turn: int, text: str, *, bad: bool, rng: Random) -> Screenable:
    envelope: dict[str, Any] = {
        "version": 1, "event_id": f"{account}-{turn}", "account_id": account,
        "event_time": AT + timedelta(minutes=turn),
    }  # fmt: skip
    if rng.random() < 0.3:
        return Transaction(
            **envelope, type="transaction", direction="debit", kind="transfer", channel="app",
            amount=f"{rng.randrange(100, 900 if bad else 200)}.00", currency="CNY",
        )  # fmt: skip
    sender: Any = rng.choice(["customer", "counterparty"])
    return Message(**envelope, type="message", conversation_id="c", channel="chat", sender=sender, text=text)


def make_dataset(folder: Path) -> Path:
    """train and dev."""
    dataset.write(folder, "train", make_timelines(15, 1))
    dataset.write(folder, "dev", make_timelines(9, 2))
    return folder


def make_base(folder: Path, shape: str = "qwen25") -> Path:
    """A checkpoint with random weights and its tokenizer; shapes as in tests/releases.py."""
    made = make_release(folder.with_name(folder.name + ".release"), shape)
    shutil.move(made / "base", folder)
    return folder


def lora_settings(**changes: Any) -> dict[str, Any]:
    """lora.yaml made small. changes: of the adapter's settings, or of the whole where it has such a name."""
    content: dict[str, Any] = yaml.safe_load(LORA_YAML.read_text(encoding="utf-8"))
    content |= {"name": "tiny", "version": "0.0.1", "threads": 1, "device": "cpu", "save_every": 2}
    content["adapter"] |= {
        "rank": 4, "alpha": 8, "dropout": 0.1, "epochs": 2, "batch_tokens": 256, "row_tokens": 128,
        "rate": 0.01, "tokens_max": 96, "prefix": "Watch. 急用钱\n", "patience": None,
    }  # fmt: skip
    content["head"] |= {"width": 16, "bins": 4, "rate": 0.01}
    for name, value in changes.items():
        (content if name in content else content["adapter"])[name] = value
    return content


def write_recipe(file: Path, **changes: Any) -> Path:
    """It, in a file."""
    file.write_text(yaml.safe_dump(lora_settings(**changes), allow_unicode=True), encoding="utf-8")
    return file
