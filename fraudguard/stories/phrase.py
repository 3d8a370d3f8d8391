"""Phrases with alternatives and slots: `<急|特别急>，转$amt到$card`.

Knows how a phrase is written and said. Does not know what a slot holds: that is the caller's lookup.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

_TOKEN = re.compile(r"\$[a-z_]+\d?|[<|>]")
HELD_OUT_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Slot:
    """A value looked up by name when the phrase is said."""

    name: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """Parts said one after the other; a tuple of phrases is a choice between them."""

    parts: tuple["str | Slot | tuple[Phrase, ...]", ...]

    def say(self, rng: Random, lookup: Callable[[str], str]) -> str:
        """One way to say it."""
        said = []
        for part in self.parts:
            if isinstance(part, str):
                said.append(part)
            elif isinstance(part, Slot):
                said.append(lookup(part.name))
            else:
                said.append(rng.choice(part).say(rng, lookup))
        return "".join(said)

    def slots(self) -> set[str]:
        """The names it may look up."""
        names: set[str] = set()
        for part in self.parts:
            if isinstance(part, Slot):
                names.add(part.name)
            elif isinstance(part, tuple):
                names.update(*(choice.slots() for choice in part))
        return names


def parse(text: str) -> Phrase:
    """Read one phrase; raises ValueError where `<` and `>` do not pair."""
    phrase, end = _sequence(text, 0, nested=False)
    if end != len(text):
        raise ValueError(f"unpaired > at {end} in {text!r}")
    return phrase


def _sequence(text: str, at: int, nested: bool) -> tuple[Phrase, int]:
    parts: list[str | Slot | tuple[Phrase, ...]] = []
    while True:
        token = _TOKEN.search(text, at)
        if token is None:
            if nested:
                raise ValueError(f"unpaired < in {text!r}")
            return Phrase((*parts, text[at:])), len(text)
        if token.start() > at:
            parts.append(text[at : token.start()])
        at = token.end()
        if token[0] == "<":
            choices, at = _choices(text, at)
            parts.append(choices)
        elif token[0].startswith("$"):
            parts.append(Slot(token[0][1:]))
        elif nested:
            return Phrase(tuple(parts)), token.start()
        else:
            raise ValueError(f"{token[0]} outside < > in {text!r}")


def _choices(text: str, at: int) -> tuple[tuple[Phrase, ...], int]:
    choices = []
    while True:
        choice, at = _sequence(text, at, nested=True)
        choices.append(choice)
        at += 1
        if text[at - 1] == ">":
            return tuple(choices), at


def share_out(variants: Sequence[str], held_out: bool) -> list[str]:
    """The variants of one split: disjoint, stable under reordering, never empty for two or more variants."""
    ranked = sorted(variants, key=lambda text: hashlib.sha256(text.encode()).digest())
    kept = max(1, int(len(ranked) * HELD_OUT_SHARE))
    return ranked[:kept] if held_out else ranked[kept:]
