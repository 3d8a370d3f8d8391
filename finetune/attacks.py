"""What a scammer does to the words to get past a model: misspells, says it otherwise, switches language, gives orders.

Knows texts and small tables of its own (attacks.yaml); knows no model. Rewrites the counterparty's messages of frauds;
whatever the service cleans it still cleans, because the rewritten events go through the timeline again.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from finetune.dataset import LabelledEvent, LabelledTimeline
from fraudguard.domain import TEXT_CHARS_MAX, Message

TABLES = Path(__file__).parent / "attacks.yaml"
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_WORD = re.compile(r"(?<![<\w])[A-Za-z]{4,}(?![\w>])")  # not the names that masking leaves, like <PHONE>
_PAIR = re.compile(r"[\u4e00-\u9fff]{2}")
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"

Rewrite = Callable[[str, Random], str]


@cache
def _tables() -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    return loaded


def is_chinese(text: str) -> bool:
    """Whether any Chinese character stands in it."""
    return _CHINESE.search(text) is not None


# ------------------------------------------------------------ the attacks


def typos(text: str, rng: Random) -> str:
    """A third of the longer English words lose, double or swap a letter; one in five pairs of Chinese is swapped."""

    def misspelt(found: re.Match[str]) -> str:
        word = found[0]
        if rng.random() > 1 / 3:
            return word
        at = rng.randrange(1, len(word) - 1)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return rng.choice((word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], swapped))

    text = _WORD.sub(misspelt, text)
    return _PAIR.sub(lambda found: found[0][::-1] if rng.random() < 1 / 5 else found[0], text)


def homophones(text: str, rng: Random) -> str:
    """Telling words by others that sound alike."""
    return _swap(text, "homophones", rng, 0.8)


def paraphrase(text: str, rng: Random) -> str:
    """Telling words by others that mean the same, between words that mean nothing."""
    said = _swap(text, "paraphrase", rng, 0.9)
    fill = _tables()["fillers"]["zh" if is_chinese(text) else "en"]
    return f"{rng.choice(fill['before'])}{said}{rng.choice(fill['after'])}"


def code_switch(text: str, rng: Random) -> str:
    """Telling Chinese words in English and English ones in Chinese."""
    return _swap(text, "code_switch", rng, 0.8)


def injection(text: str, rng: Random) -> str:
    """An order to the model behind what is said."""
    return f"{text} {rng.choice(_tables()['injection']['zh' if is_chinese(text) else 'en'])}"


def zero_width(text: str, rng: Random) -> str:
    """Characters that nobody sees inside words."""
    return re.sub(
        r"(?<=[\w])(?=[\w])", lambda _: rng.choice(_ZERO_WIDTH) if rng.random() < 0.4 else "", text
    )  # fmt: skip


def spacing(text: str, rng: Random) -> str:
    """Telling words with marks or spaces between their letters."""
    mark = rng.choice((" ", "-", ".", "*", "_"))
    return _telling("zh").sub(lambda found: mark.join(found[0]), _telling("en").sub(lambda f: mark.join(f[0]), text))


ATTACKS: Mapping[str, Rewrite] = {
    "typos": typos, "homophones": homophones, "paraphrase": paraphrase, "code_switch": code_switch,
    "injection": injection, "zero_width": zero_width, "spacing": spacing,
}  # fmt: skip


def _swap(text: str, table: str, rng: Random, share: float) -> str:
    for language, words in _tables()[table].items():

        def other(found: re.Match[str], words: Mapping[str, list[str]] = words) -> str:
            return rng.choice(words[found[0].lower()]) if rng.random() < share else found[0]

        text = _pattern(tuple(words), language).sub(other, text)
    return text


@cache
def _pattern(words: tuple[str, ...], language: str) -> re.Pattern[str]:
    ordered = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"\b(?:{ordered})\b" if language == "en" else ordered, re.IGNORECASE)


def _telling(language: str) -> re.Pattern[str]:
    """Every word that some table knows."""
    tables = _tables()
    words = {word for table in ("homophones", "paraphrase", "code_switch") for word in tables[table].get(language, ())}
    return _pattern(tuple(sorted(words)), language)


# ------------------------------------------------------------ timelines


def speaks(timeline: LabelledTimeline) -> bool:
    """Whether a fraud of it has a message of the counterparty: whether an attack can change it."""
    frauds = _frauds(timeline)
    return any(one.story in frauds and _is_target(one) for one in timeline.events)


def attacked(timelines: Sequence[LabelledTimeline], name: str, seed: int) -> list[LabelledTimeline]:
    """The timelines with the counterparty's messages of frauds rewritten; labels and everything else stay."""
    made = []
    for timeline in timelines:
        frauds = _frauds(timeline)
        events = (_rewritten(one, name, seed) if one.story in frauds else one for one in timeline.events)
        made.append(replace(timeline, events=tuple(events)))
    return made


def _frauds(timeline: LabelledTimeline) -> set[str]:
    """Its stories with a truth of 1."""
    return {one.story for one in timeline.events if one.truth == 1.0 and one.story is not None}


def _is_target(labelled: LabelledEvent) -> bool:
    return isinstance(labelled.event, Message) and labelled.event.sender == "counterparty"


def _rewritten(labelled: LabelledEvent, name: str, seed: int) -> LabelledEvent:
    event = labelled.event
    if not isinstance(event, Message) or not _is_target(labelled):
        return labelled
    text = ATTACKS[name](event.text, Random(f"{seed} {name} {event.event_id}"))
    return replace(labelled, event=event.model_copy(update={"text": text[:TEXT_CHARS_MAX]}))
