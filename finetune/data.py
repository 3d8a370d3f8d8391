"""The training and test material as labelled lives: own stories, public dialogues, and ordinary life around both.

Knows the folders that the user's --data directory may hold (README.md lists sources and licences) and which part of
each is held out; does not know features, tokens or models. zh_antifraud_sft is read for measuring only.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal

import pandas as pd

from fraudguard.domain import Message, Screenable, Typology
from fraudguard.events.masking import mask_event
from fraudguard.stories import generate

Part = Literal["train", "dev", "test"]
START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 10
# Multi-turn sets of harmless/, and how many dialogues of each are drawn at most.
HARMLESS_DIALOGUES = {
    "multidogo_en": 240, "taskmaster3_en": 30, "taskmaster4_en": 20, "multiwoz_en": 20, "crosswoz_en": 20,
    "xpersona_en": 40, "synthetic_persona_chat_en": 20, "tau2_bench_en": 20, "abcd_en": 20,
    "cpsycoun_zh": 60, "multiwoz_zh": 50, "crosswoz_zh": 50, "kdconv_zh": 60, "xpersona_zh": 50,
}  # fmt: skip
HARMLESS_UTTERANCES = {"banking77_en": 120, "clinc_oos_en": 60, "tatoeba_en": 50, "tatoeba_zh": 100}
_SERVICE = ("multidogo", "taskmaster", "multiwoz", "tau2", "abcd")
_CUSTOMERS = ("customer", "user", "client", "B", "User 2")
# P(fraud) to learn at the first turns of a scam dialogue: nobody can know it from a greeting.
RAMP = (0.1, 0.35, 0.65, 0.9)


@dataclass(frozen=True, slots=True)
class Told:
    """One masked event with its truth. truth: P(fraud) to learn, in [0, 1]. story: it belongs to a plot or dialogue."""

    event: Screenable
    truth: float
    typology: Typology | None
    story: str | None


@dataclass(frozen=True, slots=True)
class Life:
    """All events of one account in order. source: where its plot or dialogue is from ("life": it has none)."""

    source: str
    account_id: str
    events: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """turns: (sender, text). fraud: the other side is a scammer. group: its name in the source."""

    source: str
    group: str
    language: str
    channel: Literal["chat", "call", "service"]
    turns: tuple[tuple[str, str], ...]
    fraud: bool


def part_of(group: str) -> Part:
    """72 % train, 12 % dev, 16 % test, by the group's name alone, so that it never changes sides."""
    bucket = hashlib.sha256(group.encode()).digest()[0] % 25
    return "dev" if bucket < 3 else "test" if bucket < 7 else "train"


# ------------------------------------------------------------ lives


def story_lives(part: Part, seed: int, accounts: int, frauds: int) -> list[Life]:
    """A cast of the story generator, account by account. dev and test tell the held-out phrases, with other seeds."""
    seed = seed * 3 + ("train", "dev", "test").index(part)
    cast = generate(seed, accounts, START, DAYS, frauds, "train" if part == "train" else "heldout")
    typologies = {story.story_id: story.typology for story in cast.stories}
    events: dict[str, list[Told]] = {}
    for told in cast.events:
        typology = typologies[told.story_id] if told.story_id is not None and told.fraud else None
        events.setdefault(told.event.account_id, []).append(
            Told(mask_event(told.event), float(told.fraud), typology, told.story_id)
        )
    acting = {story.account_id for story in cast.stories}
    return [
        Life("story" if account_id in acting else "life", account_id, tuple(told))
        for account_id, told in events.items()
    ]


def dialogue_lives(dialogues: Sequence[Dialogue], seed: int, ordinary_events_max: int = 25) -> list[Life]:
    """Each dialogue in the middle of some account's ordinary life, of which at most that many events come before it."""
    rng = Random(f"lives {seed}")
    ordinary: dict[str, list[tuple[Screenable, ...]]] = {"zh": [], "en": []}
    cast = generate(seed, min(400, 20 + len(dialogues)), START, DAYS, 0, "train")
    by_account: dict[str, list[Screenable]] = {}
    for told in cast.events:
        by_account.setdefault(told.event.account_id, []).append(mask_event(told.event))
    for events in by_account.values():
        spoken = [event.language for event in events if isinstance(event, Message)]
        ordinary[spoken[0] if spoken and spoken[0] in ordinary else "zh"].append(tuple(events))
    return [
        _life(rng, dialogue, number, rng.choice(ordinary[dialogue.language]), ordinary_events_max)
        for number, dialogue in enumerate(dialogues)
    ]


def _life(rng: Random, dialogue: Dialogue, number: int, ordinary: tuple[Screenable, ...], most: int) -> Life:
    account_id = f"{dialogue.source}-{number}"
    before = min(rng.choice((0, rng.randrange(12), rng.randrange(25))), most, len(ordinary) - 1)
    first = rng.randrange(len(ordinary) - before)
    when = ordinary[first + before].event_time
    story = f"{dialogue.source}/{dialogue.group}"
    told = [Told(_moved(event, account_id), 0.0, None, None) for event in ordinary[first : first + before]]
    pace = 9.0 if dialogue.channel == "call" else 40.0
    for turn, (sender, text) in enumerate(dialogue.turns):
        when += timedelta(seconds=round(pace * rng.lognormvariate(0, 0.6), 3))
        message = Message.model_validate(
            {
                "type": "message", "version": 1, "event_id": f"m-{account_id}-{turn}", "account_id": account_id,
                "event_time": when, "conversation_id": f"k-{account_id}", "channel": dialogue.channel,
                "sender": sender, "language": dialogue.language, "text": text.replace("\x00", ""),
            }
        )  # fmt: skip
        truth = (RAMP[turn] if turn < len(RAMP) else 1.0) if dialogue.fraud else 0.0
        told.append(Told(mask_event(message), truth, Typology.SCAM if dialogue.fraud else None, story))
    after = min(rng.randrange(4), most)
    told += [
        Told(_moved(event, account_id), 0.0, None, None)
        for event in ordinary[first + before : first + before + after]
        if event.event_time > when
    ]
    return Life(dialogue.source, account_id, tuple(told))


def _moved(event: Screenable, account_id: str) -> Screenable:
    return event.model_copy(update={"account_id": account_id, "event_id": f"{account_id}-{event.event_id}"})


# ------------------------------------------------------------ public dialogues


def dialogues(data: Path, part: Part) -> Iterator[Dialogue]:
    """TeleAntiFraud, BothBosu and the multi-turn harmless sets, those of them that are there."""
    yield from _teleantifraud(data / "zh_teleantifraud", part)
    yield from _bothbosu(data / "en_bothbosu_calls", part)
    yield from _harmless(data / "harmless", part)


def _teleantifraud(folder: Path, part: Part) -> Iterator[Dialogue]:
    for row in _rows(folder / "dialogues.parquet"):
        if part_of(row.dialog_id) == part:
            turns = _turns(row.text, {"A": "counterparty", "B": "customer"})
            yield Dialogue("teleantifraud", row.dialog_id, "zh", "call", turns, bool(row.label))


def _bothbosu(folder: Path, part: Part) -> Iterator[Dialogue]:
    for number, row in enumerate(_rows(folder / "dialogues.parquet")):
        group = f"{row.set}-{number}"
        where: Part = "test" if row.split == "test" else "dev" if part_of(group) == "dev" else "train"
        if where == part:
            text = re.sub(r"\s*\b(Suspect|Innocent):\s*", r"\n\1: ", row.text)
            turns = _turns(text, {"Suspect": "counterparty", "Innocent": "customer"})
            yield Dialogue("bothbosu", group, "en", "call", turns, bool(row.label))


def antifraud_windows(data: Path) -> Iterator[tuple[Dialogue, str, bool]]:
    """zh_antifraud_sft, for measuring only (GPL-3.0): the window, its split, and whether it is an easy negative."""
    for number, row in enumerate(_rows(data / "zh_antifraud_sft" / "windows.parquet")):
        speakers = set(re.findall(r"^(S\d+):", row.text_masked, re.MULTILINE))
        names = {speaker: "counterparty" if speaker == "S1" else "customer" for speaker in speakers}
        turns = _turns(row.text_masked, names)
        if turns:
            dialogue = Dialogue("antifraud_sft", f"w-{number}", "zh", "chat", turns, bool(row.label))
            yield dialogue, row.split, bool(row.source_meeting)


def _harmless(folder: Path, part: Part) -> Iterator[Dialogue]:
    for name, count_max in HARMLESS_DIALOGUES.items():
        frame = _frame(folder / f"{name}.parquet")
        if frame is None:
            continue
        language = name[-2:]
        groups = [(str(key), group) for key, group in frame.groupby("dialogue_id", sort=True)]
        groups = [(key, group) for key, group in groups if part_of(key) == part and len(group) > 1]
        Random(name).shuffle(groups)
        service = name.startswith(_SERVICE)
        other = "agent" if service else "counterparty"
        for key, group in groups[: count_max if part == "train" else count_max // 4]:
            turns = tuple(
                ("customer" if turn.speaker in _CUSTOMERS else other, turn.text.strip())
                for turn in _records(group)
                if turn.text.strip() and turn.text != "__SILENCE__"
            )
            if turns:
                yield Dialogue(name, key, language, "service" if service else "chat", turns[:30], False)


def utterances(data: Path) -> Iterator[Dialogue]:
    """Single harmless sentences, for training only."""
    for name, count in HARMLESS_UTTERANCES.items():
        frame = _frame(data / "harmless" / f"{name}.parquet")
        if frame is not None:
            rng = Random(name)
            sender = "customer" if name.startswith(("banking", "clinc")) else "counterparty"
            for row in _records(frame.iloc[sorted(rng.sample(range(len(frame)), min(count, len(frame))))]):
                yield Dialogue(name, row.dialogue_id, name[-2:], "chat", ((sender, row.text.strip()),), False)


def texts(data: Path) -> Iterator[str]:
    """Every harmless line, for the tokenizer and the language model; counselling talk is thinned out."""
    for file in sorted((data / "harmless").glob("*.parquet")):
        keep = 0.25 if file.stem in ("cpsycoun_zh", "emollm_zh", "d365_finance_docs_zh") else 1.0
        rng = Random(file.stem)
        for text in pd.read_parquet(file, columns=["text"])["text"]:
            if rng.random() < keep:
                yield " ".join(text.split())[:400]


def _turns(text: str, senders: dict[str, str]) -> tuple[tuple[str, str], ...]:
    turns = []
    for line in text.splitlines():
        speaker, colon, said = line.partition(":")
        if colon and speaker.strip() in senders and said.strip():
            turns.append((senders[speaker.strip()], said.strip()[:8000]))
    return tuple(turns)


def _rows(file: Path) -> Iterator[Any]:
    frame = _frame(file)
    if frame is not None:
        yield from _records(frame)


def _records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples; Any, because a parquet file's columns are not known to the type checker."""
    return iter(frame.itertuples())


def _frame(file: Path) -> pd.DataFrame | None:
    return pd.read_parquet(file) if file.is_file() else None
