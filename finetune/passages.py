"""Lives to what a model learns from: stretches of timelines with a verdict to give at each line's end.

Uses the service's own account state, so lines, cuts and numeric features are exactly those of screening.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from finetune.data import Life, Told
from fraudguard.domain import Snapshot, Typology
from fraudguard.engine.head_spec import as_numbers
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.registry import MODEL_FEATURES
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState
from fraudguard.features.timeline import TokenCounter

LABEL_DELAY_DAYS = 7
LATENESS_S = 3_600


@dataclass(slots=True)
class Reading:
    """A verdict to learn after line number `line`. numbers: MODEL_FEATURES in order, NaN for missing."""

    line: int
    truth: float
    typology: Typology | None
    story: str | None
    numbers: npt.NDArray[np.float32]


@dataclass(slots=True)
class Passage:
    """Consecutive lines of one timeline between two cuts. source as in Life."""

    source: str
    account_id: str
    lines: tuple[str, ...] = ()
    readings: list[Reading] = field(default_factory=list)


def snapshots(lives: Sequence[Life], counter: TokenCounter, tokens_max: int) -> Iterator[tuple[Life, Told, Snapshot]]:
    """Every event of the lives as the service would take it, all accounts together in event-time order.

    Confirmed fraud counts at once: the label delay keeps it from being read before a label could have come.
    """
    rates = load_rates("CNY")
    view = FeedbackView((), LABEL_DELAY_DAYS)
    states: dict[str, AccountState] = {}
    told = [(event.event.event_time, event.event.event_id, life, event) for life in lives for event in life.events]
    for _, _, life, event in sorted(told, key=lambda entry: entry[:2]):
        state = states.setdefault(
            life.account_id,
            AccountState(
                life.account_id,
                counter,
                rates=rates,
                tokens_max=tokens_max,
                lateness_s=LATENESS_S,
                zone=ZoneInfo("UTC"),
                windows=(),
            ),
        )
        snapshot = state.take(event.event, view, SharedWindows((), ()))
        view.count(event.event)
        if event.truth == 1.0:
            view.mark(event.event, +1)
        yield life, event, snapshot


class _Characters:
    """Counts characters: for lines that are needed before there is a tokenizer."""

    id = "characters"

    def count(self, line: str) -> int:
        """Characters of the line."""
        return len(line)


def rough_lines(lives: Sequence[Life]) -> Iterator[str]:
    """Every event's line, for training a tokenizer."""
    for _, _, snapshot in snapshots(lives, _Characters(), tokens_max=2_000):
        yield snapshot.timeline.lines[-1].text


def passages(lives: Sequence[Life], counter: TokenCounter, tokens_max: int) -> list[Passage]:
    """The lives' timelines, each cut where the service cuts it, every event read once."""
    made: dict[tuple[str, int], Passage] = {}
    for life, told, snapshot in snapshots(lives, counter, tokens_max):
        key = life.account_id, snapshot.timeline.start
        passage = made.setdefault(key, Passage(life.source, life.account_id))
        passage.lines = tuple(line.text for line in snapshot.timeline.lines)
        numbers = as_numbers(MODEL_FEATURES, [snapshot.features])[0]
        passage.readings.append(Reading(len(passage.lines) - 1, told.truth, told.typology, told.story, numbers))
    return list(made.values())
