"""The events of a dataset as columns to measure by, and its conversations.

Knows truth, groups and order. Knows no model: what one says of the events is an array beside these, row by row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.dataset import LabelledEvent, LabelledTimeline, requests
from fraudguard.domain import Message, ScoreRequest
from fraudguard.evaluation import Floats
from fraudguard.features.timeline import TokenCounter

Mask = npt.NDArray[np.bool_]
Asked = tuple[LabelledTimeline, LabelledEvent, ScoreRequest]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The rows of one story, dialogue or case in order: its messages and payments are its turns.

    typology: of its frauds; empty for a harmless one.
    """

    source: str
    fraud: bool
    typology: str
    rows: npt.NDArray[np.int64]


class Rows:
    """Events with what the engine is asked at each, timeline after timeline."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        """asked: as dataset.requests gives it."""
        self.asked = asked
        events = [labelled for _, labelled, _ in asked]
        self.truth = np.array([labelled.truth for labelled in events], dtype=np.float64)
        self.fraud: Mask = self.truth == 1.0
        # A truth in between is what to learn of a scam's first turns: neither verdict would be right there.
        self.measured: Mask = self.fraud | (self.truth == 0.0)
        self.payment: Mask = np.array([not isinstance(labelled.event, Message) for labelled in events], dtype=bool)
        self.source = _texts([timeline.source for timeline, _, _ in asked])
        self.channel = _texts([labelled.event.channel for labelled in events])
        self.language = _texts([_language(labelled) for labelled in events])
        self.typology = _texts([labelled.typology or "" for labelled in events])

    @classmethod
    def of(cls, timelines: Iterable[LabelledTimeline], counter: TokenCounter, tokens_max: int) -> "Rows":
        """Every event of the timelines."""
        return cls(list(requests(timelines, counter, tokens_max)))

    def __len__(self) -> int:
        return len(self.asked)

    @cached_property
    def texts(self) -> list[str]:
        """The timeline up to each event, as the model reads it."""
        return ["\n".join(line.text for line in request.timeline.lines) for _, _, request in self.asked]

    @cached_property
    def numbers(self) -> npt.NDArray[np.float32]:
        """The numeric features [row, MODEL_FEATURES], NaN for missing."""
        return np.stack([labelled.numbers for _, labelled, _ in self.asked])

    @cached_property
    def weight(self) -> Floats:
        """How much each event counts in training."""
        return np.array([labelled.weight for _, labelled, _ in self.asked], dtype=np.float64)

    @cached_property
    def days(self) -> npt.NDArray[np.int64]:
        """The UTC day of each event."""
        return np.array([labelled.event.event_time.toordinal() for _, labelled, _ in self.asked])

    @cached_property
    def accounts(self) -> npt.NDArray[np.str_]:
        """Source and account of each event."""
        return _texts([f"{timeline.source}/{timeline.account_id}" for timeline, _, _ in self.asked])

    @cached_property
    def conversations(self) -> tuple[Conversation, ...]:
        """Those that are scams (a truth of 1 somewhere) or harmless (0 everywhere); what is neither is left out."""
        found: dict[tuple[str, str | None], list[int]] = {}
        for row, (_, labelled, _) in enumerate(self.asked):
            if labelled.story is not None:
                found.setdefault((str(self.accounts[row]), labelled.story), []).append(row)
        return tuple(
            Conversation(
                str(self.source[rows[0]]),
                bool(self.fraud[rows].any()),
                max(self.typology[rows].tolist()),
                np.array(rows),
            )
            for rows in found.values()
            if self.fraud[rows].any() or not self.truth[rows].any()
        )


def _texts(values: Sequence[str]) -> npt.NDArray[np.str_]:
    return np.array(values, dtype=np.str_)


def _language(labelled: LabelledEvent) -> str:
    """Of a message; a payment has none."""
    if not isinstance(labelled.event, Message):
        return ""
    return (labelled.event.language or "unknown").partition("-")[0].lower()


def sample(timelines: Sequence[LabelledTimeline], events_max: int, seed: int) -> list[LabelledTimeline]:
    """Whole timelines, at random and in their order, until they have events_max events; all of them for 0.

    Those with fraud and those without are drawn at the same rate.
    """
    total = sum(len(timeline.events) for timeline in timelines)
    if not events_max or total <= events_max:
        return list(timelines)
    rng = Random(seed)
    kept: set[int] = set()
    for fraud in (True, False):
        part = [n for n, one in enumerate(timelines) if any(event.truth == 1.0 for event in one.events) == fraud]
        rng.shuffle(part)
        room = sum(len(timelines[n].events) for n in part) * events_max / total
        for number in part:
            if room <= 0:
                break
            room -= len(timelines[number].events)
            kept.add(number)
    return [timeline for number, timeline in enumerate(timelines) if number in kept]


def groups(column: npt.NDArray[Any]) -> dict[str, Mask]:
    """The rows of each value of a column, the empty one left out."""
    return {str(value): column == value for value in np.unique(column) if value}
