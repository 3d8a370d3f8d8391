"""Lives to labelled timelines: every event with the numbers that screening would have given it.

Uses the service's own account state, so lines, cuts and numeric features are exactly those of screening.
"""

from collections.abc import Iterable, Iterator, Sequence
from zoneinfo import ZoneInfo

from finetune.data import OWN_SOURCES, Life, Told
from finetune.dataset import LabelledEvent, LabelledTimeline
from fraudguard.domain import Snapshot
from fraudguard.engine.head_spec import as_numbers
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.registry import MODEL_FEATURES
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState
from fraudguard.features.timeline import TokenCounter

LABEL_DELAY_DAYS = 7
LATENESS_S = 3_600
TOKENS_MAX = 2_000  # characters, here: lines are not kept, only numbers are


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
    """Counts characters: the lines are not kept here, so no tokenizer is asked."""

    id = "characters"

    def count(self, line: str) -> int:
        """Characters of the line."""
        return len(line)


def labelled(lives: Iterable[Life], ordinary_weight: float) -> list[LabelledTimeline]:
    """The lives as timelines of a DATASET. ordinary_weight: of events outside every plot and dialogue."""
    lives = list(lives)
    taken: dict[str, list[LabelledEvent]] = {life.account_id: [] for life in lives}
    for life, told, snapshot in snapshots(lives, _Characters(), TOKENS_MAX):
        known = "public" if told.story and life.source not in OWN_SOURCES else "own"
        numbers = as_numbers(MODEL_FEATURES, [snapshot.features])[0]
        weight = told.weight if told.story else ordinary_weight
        taken[life.account_id].append(
            LabelledEvent(told.event, numbers, told.truth, weight, told.typology, told.story, known)
        )
    return [LabelledTimeline(life.source, life.account_id, tuple(taken[life.account_id])) for life in lives]
