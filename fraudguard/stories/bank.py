"""The phrase bank: reads bank/*.yaml into plots, shared fragments, slot values and life profiles of one split.

Knows the bank's notation (bank/README.md) and refuses what does not fit it, with file and plot.
Does not know accounts or time: playing a plot is teller.py, ordinary days are life.py.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

from fraudguard.domain import Typology
from fraudguard.errors import BadInput
from fraudguard.stories.phrase import Phrase, parse, share_out
from fraudguard.stories.voice import COMPUTED

Split = Literal["train", "heldout"]
LANGUAGES = ("zh", "en")
_SPEAKERS = {"them": "counterparty", "me": "customer", "bank": "agent", "sys": "system"}
_SAY = re.compile(r"(them|me|bank|sys)(@(chat|call|sms|email|service))?(\+)?(\?)?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Say:
    """One turn of a speaker; a phrase holding ` // ` becomes several messages. several: says up to three."""

    sender: str
    channel: str | None
    several: bool
    optional: bool
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True, slots=True)
class Pay:
    """Payments of a named sum; options as bank/README.md lists them."""

    sum: str
    to: str
    way: Literal["out", "in"]
    kind: str
    channel: str
    times: tuple[int, int]
    parts: tuple[int, int] | None
    every: tuple[float, float]
    new_device: bool
    abroad: bool
    memos: tuple[Phrase, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """A pause in seconds."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Mark:
    """From here on a verdict of fraud is right."""


@dataclass(frozen=True, slots=True)
class NewPhone:
    """From here on the account's owner uses another device."""


@dataclass(frozen=True, slots=True)
class Quit:
    """The story ends here with this chance."""

    chance: float


@dataclass(frozen=True, slots=True)
class Use:
    """Play a shared fragment."""

    fragment: str


@dataclass(frozen=True, slots=True)
class Some:
    """Play at least two thirds of these groups, in any order."""

    groups: "tuple[tuple[Beat, ...], ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """Play one of these groups."""

    groups: "tuple[tuple[Beat, ...], ...]"


Beat = Say | Pay | Gap | Mark | NewPhone | Quit | Use | Some | Either


@dataclass(frozen=True, slots=True)
class Plot:
    """A story to be played. kind: a typology, `harmless` (hard) or `everyday`; sums: amounts by name, unread."""

    name: str
    kind: str
    language: str
    title: str
    channel: str
    sums: Mapping[str, str]
    beats: tuple[Beat, ...]

    @property
    def typology(self) -> Typology | None:
        """None for harmless stories."""
        return Typology(self.kind) if self.kind in list(Typology) else None


@dataclass(frozen=True, slots=True)
class Bank:
    """Everything of one split. plots by (kind, language); fragments and slots by (language, name)."""

    plots: Mapping[tuple[str, str], tuple[Plot, ...]]
    fragments: Mapping[tuple[str, str], tuple[Beat, ...]]
    slots: Mapping[tuple[str, str], tuple[str, ...]]
    profiles: Mapping[str, Any]


def span(text: str) -> tuple[float, float]:
    """Seconds: `5-20m` -> (300.0, 1200.0)."""
    low, high = text[:-1].split("-")
    return float(low) * _UNITS[text[-1]], float(high) * _UNITS[text[-1]]


def _count(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


class _Reader:
    """Reads raw YAML into the types above for one split."""

    def __init__(self, held_out: bool) -> None:
        self._held_out = held_out

    def phrases(self, raw: list[str]) -> tuple[Phrase, ...]:
        if not isinstance(raw, list) or len(raw) < 2:
            raise ValueError(f"needs a list of two variants or more, so that each split has one: {raw!r}")
        return tuple(parse(text) for text in share_out(raw, self._held_out))

    def beats(self, raw: list[Any]) -> tuple[Beat, ...]:
        return tuple(self._beat(item) for item in raw)

    def _beat(self, raw: Any) -> Beat:
        if isinstance(raw, str):
            return self._word(raw)
        if len(raw) != 1:
            raise ValueError(f"one key a beat: {raw!r}")
        key, value = next(iter(raw.items()))
        if key in ("some", "either"):
            groups = tuple(self.beats(group) for group in value)
            return Some(groups) if key == "some" else Either(groups)
        if key == "pay":
            return self._pay(dict(value))
        said = _SAY.fullmatch(key)
        if said is None:
            raise ValueError(f"unknown beat {key!r}")
        return Say(_SPEAKERS[said[1]], said[3], said[4] is not None, said[5] is not None, self.phrases(value))

    @staticmethod
    def _word(raw: str) -> Beat:
        match raw.split():
            case ["fraud"]:
                return Mark()
            case ["newphone"]:
                return NewPhone()
            case ["gap", length]:
                return Gap(*span(length))
            case ["quit", chance]:
                return Quit(float(chance))
            case ["use", fragment]:
                return Use(fragment)
        raise ValueError(f"unknown beat {raw!r}")

    def _pay(self, raw: dict[str, Any]) -> Pay:
        memos = raw.pop("memo", None)
        pay = Pay(
            sum=raw.pop("sum"),
            to=raw.pop("to", "new"),
            way=raw.pop("way", "out"),
            kind=raw.pop("kind", "transfer"),
            channel=raw.pop("channel", "app"),
            times=_count(raw.pop("times", "1")),
            parts=_count(raw.pop("parts")) if "parts" in raw else None,
            every=span(raw.pop("every", "1-8m")),
            new_device=raw.pop("device", "own") == "new",
            abroad=raw.pop("where", "home") == "abroad",
            memos=self.phrases(memos) if memos else (),
        )
        if raw:
            raise ValueError(f"unknown options of pay: {sorted(raw)}")
        return pay

    def plot(self, kind: str, raw: dict[str, Any]) -> Plot:
        return Plot(
            name=raw["name"],
            kind=kind,
            language=raw["lang"],
            title=raw["title"],
            channel=raw.get("channel", "chat"),
            sums=raw.get("sums", {}),
            beats=self.beats(raw["beats"]),
        )


def _documents() -> dict[str, Any]:
    # BaseLoader: every scalar stays a string, so that "no" and "110" are words a person says.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    folder = resources.files("fraudguard.stories") / "bank"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name: yaml.load(f.read_text("utf-8"), loader) for f in files}  # noqa: S506 - BaseLoader makes no objects


@lru_cache(maxsize=2)
def load(split: Split) -> Bank:
    """The bank of one split; raises BadInput naming file and plot."""
    held_out = split == "heldout"
    reader = _Reader(held_out)
    plots: dict[tuple[str, str], list[Plot]] = {}
    fragments: dict[tuple[str, str], tuple[Beat, ...]] = {}
    slots: dict[tuple[str, str], tuple[str, ...]] = {}
    profiles: dict[str, Any] = {}
    for name, document in _documents().items():
        profiles |= document.get("profiles", {})
        for language in LANGUAGES:
            for slot, values in document.get("slots", {}).get(language, {}).items():
                slots[language, slot] = tuple(share_out(values, held_out))
            for fragment, beats in document.get("fragments", {}).get(language, {}).items():
                fragments[language, fragment] = _at(f"{name}:{fragment}", reader.beats, beats)
        for raw in document.get("plots", []):
            plot = _at(f"{name}:{raw.get('name')}", reader.plot, document["kind"], raw)
            plots.setdefault((plot.kind, plot.language), []).append(plot)
    bank = Bank({key: tuple(found) for key, found in plots.items()}, fragments, slots, profiles)
    for plot in (plot for found in bank.plots.values() for plot in found):
        _at(plot.name, _check, bank, plot)
    return bank


def _check(bank: Bank, plot: Plot) -> None:
    """Raises ValueError for a slot, sum or fragment that nothing defines."""
    aside = bank.fragments[plot.language, "aside"]
    for beat in _every(bank, plot.language, (*plot.beats, *aside)):
        if isinstance(beat, Pay) and beat.sum not in plot.sums:
            raise ValueError(f"pay names the unknown sum {beat.sum!r}")
        phrases = beat.phrases if isinstance(beat, Say) else beat.memos if isinstance(beat, Pay) else ()
        for slot in {slot for phrase in phrases for slot in phrase.slots()} - set(plot.sums):
            base = slot.rstrip("0123456789")
            if base not in COMPUTED and (plot.language, base) not in bank.slots:
                raise ValueError(f"nothing fills ${slot}")


def _every(bank: Bank, language: str, beats: Sequence[Beat]) -> Iterator[Beat]:
    for beat in beats:
        match beat:
            case Use(fragment):
                yield from _every(bank, language, bank.fragments[language, fragment])
            case Some(groups) | Either(groups):
                for group in groups:
                    yield from _every(bank, language, group)
            case _:
                yield beat


def _at(path: str, read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(str(error), path=f"stories/bank/{path}", hint="see stories/bank/README.md") from error
