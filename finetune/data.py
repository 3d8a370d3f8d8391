"""The training and test material as labelled lives: own stories, public dialogues, and ordinary life around both.

Knows the folders that the user's --data directory may hold (README.md lists sources and licences) and which part of
each is held out; does not know features, tokens or models. What MEASURING_ONLY names never trains what ships.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

import pandas as pd

from fraudguard.domain import Message, Screenable, Transaction, Typology
from fraudguard.events.masking import mask_event
from fraudguard.stories import generate

Part = Literal["train", "dev", "test"]
_PARTS: tuple[Part, ...] = get_args(Part)
# Sources of lives that the project's own generator tells.
OWN_SOURCES = ("story", "life")
# Sets whose licence (GPL-3.0) does not let weights trained on them ship.
MEASURING_ONLY = ("antifraud_sft",)
START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 10
# Dialogues share the ordinary lives of at most so many accounts, each under ids of its own.
ORDINARY_ACCOUNTS = 1_000
_SERVICE = ("multidogo", "taskmaster", "multiwoz", "crosswoz", "abcd", "rasa")
TURNS_MAX = 30  # of a harmless dialogue
_CUSTOMERS = ("customer", "user", "client", "B", "User 2")
TRAINING_VERSION = "eval0902"  # of zh_antifraud_sft; the other is eval0819
SHARED_CHARS_MIN = 12  # of a line that makes two windows one case; shorter ones are said by anybody
# P(fraud) to learn at the first turns of a scam dialogue: nobody can know it from a greeting.
RAMP = (0.1, 0.35, 0.65, 0.9)


@dataclass(frozen=True, slots=True)
class Told:
    """One masked event with its truth. truth: P(fraud) to learn, in [0, 1]. story: it belongs to a plot or dialogue.

    weight: how much it counts; 0 where nobody knows.
    """

    event: Screenable
    truth: float
    typology: Typology | None
    story: str | None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Life:
    """All events of one account in order. source: where its plot or dialogue is from ("life": it has none)."""

    source: str
    account_id: str
    events: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """turns: (sender, text). fraud: the other side is a scammer. group: its name in the source.

    speaker: who speaks or whose part is played, where the source says so; one speaker is in one part only. window: cut
    out of a conversation and labelled as a whole, so that a scam is known at its last turn alone.
    """

    source: str
    group: str
    part: Part
    language: str
    channel: Literal["chat", "call", "service"]
    turns: tuple[tuple[str, str], ...]
    fraud: bool
    speaker: str | None = None
    window: bool = False


def part_of(group: str) -> Part:
    """72 % train, 12 % dev, 16 % test, by the group's name alone, so that it never changes sides."""
    bucket = hashlib.sha256(group.encode()).digest()[0] % 25
    return "dev" if bucket < 3 else "test" if bucket < 7 else "train"


# ------------------------------------------------------------ lives


def story_lives(part: Part, seed: int, accounts: int, frauds: int) -> list[Life]:
    """A cast of the story generator, account by account. dev and test tell the held-out phrases, with other seeds."""
    seed = seed * 3 + _PARTS.index(part)
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


def dialogue_lives(
    dialogues: Sequence[Dialogue], part: Part, seed: int, ordinary_events_max: int = 25
) -> Iterator[Life]:
    """Each dialogue in the middle of some account's ordinary life, of which at most that many events come before it."""
    rng = Random(f"lives {part} {seed}")
    ordinary = _ordinary(part, seed, min(ORDINARY_ACCOUNTS, 20 + len(dialogues)))
    for number, dialogue in enumerate(dialogues):
        yield _life(rng, dialogue, number, rng.choice(ordinary[dialogue.language]), ordinary_events_max)


def _ordinary(part: Part, seed: int, accounts: int) -> dict[str, list[tuple[Screenable, ...]]]:
    """The events of lives without a plot, by language; no two parts share a phrase or a payment."""
    seed = 1_000 + seed * 3 + _PARTS.index(part)  # none of story_lives' own
    cast = generate(seed, accounts, START, DAYS, 0, "train" if part == "train" else "heldout")
    by_account: dict[str, list[Screenable]] = {}
    for told in cast.events:
        by_account.setdefault(told.event.account_id, []).append(mask_event(told.event))
    ordinary: dict[str, list[tuple[Screenable, ...]]] = {"zh": [], "en": []}
    for events in by_account.values():
        spoken = [event.language for event in events if isinstance(event, Message)]
        ordinary[spoken[0] if spoken and spoken[0] in ordinary else "zh"].append(tuple(events))
    return ordinary


def _life(rng: Random, dialogue: Dialogue, number: int, ordinary: tuple[Screenable, ...], most: int) -> Life:
    account_id = f"{dialogue.source}-{dialogue.part}-{number}"
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
        truth, weight = _truth(dialogue, turn)
        told.append(Told(mask_event(message), truth, Typology.SCAM if dialogue.fraud else None, story, weight))
    after = min(rng.randrange(4), most)
    told += [
        Told(_moved(event, account_id), 0.0, None, None)
        for event in ordinary[first + before : first + before + after]
        if event.event_time > when
    ]
    return Life(dialogue.source, account_id, tuple(told))


def _truth(dialogue: Dialogue, turn: int) -> tuple[float, float]:
    """What to learn at a turn, and its weight."""
    if not dialogue.fraud:
        return 0.0, 1.0
    if dialogue.window:
        return (1.0, 1.0) if turn == len(dialogue.turns) - 1 else (0.5, 0.0)
    return (RAMP[turn] if turn < len(RAMP) else 1.0), 1.0


def _moved(event: Screenable, account_id: str) -> Screenable:
    """The event as one of this account, with payees and devices that no other account has."""
    changed: dict[str, Any] = {"account_id": account_id, "event_id": f"{account_id}-{event.event_id}"}
    if isinstance(event, Transaction):
        for name in ("counterparty_id", "device_id"):
            if getattr(event, name) is not None:
                changed[name] = f"{account_id}-{getattr(event, name)}"
    return event.model_copy(update=changed)


# ------------------------------------------------------------ public dialogues


def dialogues(data: Path, source: str) -> list[Dialogue]:
    """Every dialogue of a set: one of those below, or a file of harmless/. None where the set is not there."""
    match source:
        case "teleantifraud":
            return list(_teleantifraud(data / "zh_teleantifraud"))
        case "bothbosu":
            return list(_bothbosu(data / "en_bothbosu_calls"))
        case "antifraud_sft":
            return list(_antifraud(data))
    return list(_harmless(data / "harmless", source))


def _teleantifraud(folder: Path) -> Iterator[Dialogue]:
    for row in _rows(folder / "dialogues.parquet"):
        speaker = f"{row.user_age} {row.user_awareness} {row.occupation}"  # the part that the called one was to play
        turns = _turns(row.text, {"A": "counterparty", "B": "customer"})
        part = part_of(speaker)
        yield Dialogue("teleantifraud", row.dialog_id, part, "zh", "call", turns, bool(row.label), speaker)


def _bothbosu(folder: Path) -> Iterator[Dialogue]:
    """Nothing of the official test split is trained on; calls of it with a personality that trains are left out."""
    for number, row in enumerate(_rows(folder / "dialogues.parquet")):
        group = f"{row.set}-{number}"
        speaker = row.personality if isinstance(row.personality, str) else None  # the set "single" names none
        part = part_of(speaker or group)
        if row.split == "test" and speaker is not None and part != "test":
            continue
        if speaker is None:
            part = "test" if row.split == "test" else "dev" if part == "dev" else "train"
        text = re.sub(r"\s*\b(Suspect|Innocent):\s*", r"\n\1: ", row.text)
        turns = _turns(text, {"Suspect": "counterparty", "Innocent": "customer"})
        yield Dialogue("bothbosu", group, part, "en", "call", turns, bool(row.label), speaker)


def _antifraud(data: Path) -> Iterator[Dialogue]:
    """One version to train on, the other to test on, without the windows of cases that both versions have."""
    windows = list(antifraud_windows(data))
    cases = _cases([[said for _, said in dialogue.turns] for dialogue, _, _ in windows])
    trained = {case for case, (_, version, _) in zip(cases, windows, strict=True) if version == TRAINING_VERSION}
    for case, (dialogue, version, meeting) in zip(cases, windows, strict=True):
        part: Part = "test"
        if version == TRAINING_VERSION:
            part = "dev" if part_of(f"case {case}") == "dev" else "train"
        elif case in trained:
            continue
        # Windows of meetings are easy negatives: counted and measured apart.
        source = "antifraud_meetings" if meeting else dialogue.source
        yield replace(dialogue, source=source, part=part, speaker=f"case {case}")


def antifraud_windows(data: Path) -> Iterator[tuple[Dialogue, str, bool]]:
    """All of zh_antifraud_sft: the window, its version, and whether it is of a meeting, an easy negative."""
    for number, row in enumerate(_rows(data / "zh_antifraud_sft" / "windows.parquet")):
        speakers = set(re.findall(r"^(S\d+):", row.text_masked, re.MULTILINE))
        names = {speaker: "counterparty" if speaker == "S1" else "customer" for speaker in speakers}
        turns = _turns(row.text_masked, names)
        if turns:
            dialogue = Dialogue(
                "antifraud_sft", f"w-{number}", "test", "zh", "chat", turns, bool(row.label), window=True
            )
            yield dialogue, row.split, bool(row.source_meeting)


def _cases(windows: Sequence[Sequence[str]]) -> list[int]:
    """For each window, as the lines said in it, the first that it shares one with, directly or through others."""
    first = list(range(len(windows)))

    def root(window: int) -> int:
        while first[window] != window:
            first[window] = first[first[window]]
            window = first[window]
        return window

    seen: dict[str, int] = {}
    for window, lines in enumerate(windows):
        for line in lines:
            said = re.sub(r"[\W\d_]+", "", line)
            if len(said) >= SHARED_CHARS_MIN:
                one, other = sorted((root(window), root(seen.setdefault(said, window))))
                first[other] = one
    return [root(window) for window in range(len(windows))]


def _harmless(folder: Path, name: str) -> Iterator[Dialogue]:
    frame = _frame(folder / f"{name}.parquet")
    if frame is None:
        return
    service = name.startswith(_SERVICE)
    other = "agent" if service else "counterparty"
    rows: dict[str, list[Any]] = {}
    for row in _records(frame):
        rows.setdefault(str(row.dialogue_id), []).append(row)
    for group, said in rows.items():
        turns = tuple(
            ("customer" if turn.speaker in _CUSTOMERS else other, turn.text.strip())
            for turn in said
            if turn.text.strip() and turn.text != "__SILENCE__"
        )
        if len(turns) > 1:
            channel: Literal["service", "chat"] = "service" if service else "chat"
            yield Dialogue(name, group, part_of(group), name[-2:], channel, turns[:TURNS_MAX], False)


def sentences(data: Path, source: str) -> list[Dialogue]:
    """The single sentences of a file of harmless/ that may train. None where it is not there."""
    frame = _frame(data / "harmless" / f"{source}.parquet")
    if frame is None:
        return []
    sender = "counterparty" if source.startswith("tatoeba") else "customer"
    return [
        Dialogue(source, str(row.dialogue_id), "train", source[-2:], "chat", ((sender, row.text.strip()),), False)
        for row in _records(frame)
        if row.text.strip() and part_of(str(row.dialogue_id)) == "train"
    ]


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
