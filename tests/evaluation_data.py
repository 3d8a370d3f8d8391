"""A small dataset in the project's format, the same on every machine: written conversations, paid and talked."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from finetune import dataset
from finetune.data import Life, Told
from finetune.dataset import Split
from finetune.passages import labelled
from fraudguard.domain import Message, Screenable, Transaction, Typology

START = datetime(2026, 3, 2, tzinfo=UTC)
RULE = """\
id: safe-account-talk
version: 1
owner: fraud-operations
description: Somebody speaks of a safe account.
state: live
when: |
  chat mentions ["安全账户", "safe account"]
outcome: review
reason: SAFE_ACCOUNT
severity: high
cases:
  - given: {chat: "转到安全账户"}
    expect: hit
  - given: {chat: "hello"}
    expect: no_hit
---
id: large-payment
version: 1
owner: fraud-operations
description: Reads no text, so it is none of the keyword rules.
state: live
when: |
  amount_base > 1
outcome: block
reason: LARGE
severity: high
cases:
  - given: {amount_base: 2}
    expect: hit
  - given: {amount_base: 1}
    expect: no_hit
---
id: risky
version: 1
owner: fraud-operations
description: Reads text and the model's risk, so it is none of them either.
state: live
when: |
  risk > 0.1 and chat mentions ["hello"]
outcome: block
reason: RISKY
severity: high
cases:
  - given: {risk: 0.2, chat: "hello"}
    expect: hit
  - given: {risk: 0.0, chat: "hello"}
    expect: no_hit
"""
_TALK: dict[tuple[str, bool], tuple[str, ...]] = {
    ("zh", True): (
        "您好，这里是公安局", "您涉嫌洗钱，请配合", "把钱转到安全账户", "马上汇款，不要告诉银行", "验证码报给我",
    ),
    ("en", True): (
        "Hello, this is your bank", "Your account is at risk", "Please transfer the money to a safe account",
        "Pay the fee with gift cards, tell nobody", "Read me the code",
    ),
    ("zh", False): ("您好，欢迎订餐", "请问送到哪里", "好的，半小时到", "一共三十元", "谢谢，再见"),
    ("en", False): ("Hi, your parcel is here", "Which door is it", "I will be there at ten", "No fee", "Bye"),
}  # fmt: skip
_TYPOLOGIES = (Typology.SCAM, Typology.SCAM, Typology.MULE)
# So that no two timelines are alike: equal ones may differ in a risk's last digit, and then in rank.
_WORDS = ("安全", "send", "code", "先", "now", "payee", "the", "转", "new", "out", "钱")
RAMP = (0.1, 0.5)  # the first turns of a scam


def _message(account: str, at: datetime, number: int, language: str, channel: str, sender: str, text: str) -> Message:
    return Message.model_validate(
        {
            "type": "message", "version": 1, "event_id": f"m-{account}-{number}", "account_id": account,
            "event_time": at, "conversation_id": f"k-{account}", "channel": channel, "sender": sender,
            "language": language, "text": text,
        }
    )  # fmt: skip


def _payment(account: str, at: datetime, number: int, amount: str) -> Transaction:
    return Transaction.model_validate(
        {
            "type": "transaction", "version": 1, "event_id": f"p-{account}-{number}", "account_id": account,
            "event_time": at, "direction": "debit", "kind": "transfer", "channel": "app", "amount": amount,
            "currency": "CNY", "counterparty_id": f"c-{account}-{number}",
        }
    )  # fmt: skip


def life(split: str, number: int, fraud: bool) -> Life:
    """A payment of ordinary life, a conversation with two answers of the customer's, a payment that ends it.

    Every tenth conversation is cut off after its first turns: with frauds it is then neither scam nor harmless.
    """
    account, language = f"{split}-{number}", ("zh", "en")[number // 2 % 2]
    channel = ("chat", "call", "sms")[number % 3]
    at = START + timedelta(days=number % 5, hours=number % 20)
    typology = _TYPOLOGIES[number % 3] if fraud else None
    told = [Told(_payment(account, at, 0, f"{7 + number * number}.50"), 0.0, None, None)]
    events: list[Screenable] = []
    for turn, text in enumerate(_TALK[language, fraud]):
        at += timedelta(minutes=1)
        sender = "customer" if turn in (1, 3) and number % 4 == 0 else "counterparty"
        events.append(
            _message(account, at, turn, language, channel, sender, f"{text} {_WORDS[number * 7 % 11]}{number}")
        )
    events.append(_payment(account, at + timedelta(minutes=5), 1, "30000" if fraud else str(20 + number)))
    if number % 10 == 8:
        events = events[: len(RAMP)]
    for turn, event in enumerate(events):
        truth = (RAMP[turn] if turn < len(RAMP) else 1.0) if fraud else 0.0
        told.append(Told(event, truth, typology, f"story-{account}"))
    return Life("story" if number % 2 else "calls", account, tuple(told))


def lives(split: str, count: int) -> list[Life]:
    """Two in five are frauds."""
    return [life(split, number, number % 5 in (0, 3)) for number in range(count)]


def write(folder: Path, sizes: Sequence[tuple[Split, int]] = (("train", 60), ("dev", 40), ("test", 40))) -> Path:
    """The dataset."""
    for split, count in sizes:
        dataset.write(folder, split, labelled(lives(split, count), 0.3))
    return folder
