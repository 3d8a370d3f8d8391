"""The Fraud Detection Handbook's protocol: folds, measures and the published figures.

Knows days, cards, labels and scores. A training week, a week of delay, a test week without the cards known by then to
be compromised; chapter 3 one fold, chapter 5 the mean over four. What differs from the handbook:
- features are the service's: a terminal's labels by whole UTC days (the handbook's windows end exactly seven days
  before a payment), other windows and a profile for the card;
- among the k cards of a day, equal scores go by the card's number.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.handbook_stream import DELAY_DAYS, LABELS_AFTER, Flags, Table, day_number
from fraudguard.evaluation import average_precision, card_precision_at_k, roc_auc

WEEK: Final = timedelta(days=7)
STARTS: Final = tuple(date(2018, 7, 25) + WEEK * number for number in range(4))
CARDS_A_DAY: Final = 100
PUBLISHED: Final = {
    "3": (("XGBoost", 0.862, 0.639, 0.273), ("random forest", 0.867, 0.658, 0.287)),
    "5": (("XGBoost", 0.872, 0.694, 0.304), ("balanced bagging", 0.879, 0.680, 0.305)),
}

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Measured = tuple[float, float, float]


def fold(table: Table, start: date, days: int = 7) -> tuple[Rows, Rows]:
    """Row numbers of the `days` that end with the training week from `start`, and of the test week two weeks later.

    A test day leaves out the cards that had a fraud in the training week, or since, up to eight days before.
    """
    first = day_number(start)
    week = np.flatnonzero((table.day >= first) & (table.day < first + 7))
    known = set(table.customer[week][table.fraud[week]].tolist())
    test = []
    for day in range(first + 14, first + 21):
        known |= set(table.customer[(table.day == day - 8) & table.fraud].tolist())
        today = np.flatnonzero(table.day == day)
        test.append(today[[card not in known for card in table.customer[today].tolist()]])
    train = np.flatnonzero((table.day >= first + 7 - days) & (table.day < first + 7))
    return train, np.concatenate(test)


def measures(table: Table, rows: Rows, scores: Floats) -> Measured:
    """AUC, average precision, card precision@100."""
    truth = table.fraud[rows]
    cards = card_precision_at_k(table.day[rows], table.customer[rows], truth, scores, CARDS_A_DAY)
    return roc_auc(truth, scores), average_precision(truth, scores), cards


def foreseeable(stream: pd.DataFrame, *, whole_days: bool) -> Flags:
    """The frauds that labels seven days late can tell at best, by the simulator's secrets; nothing is taught by it.

    Its scenarios 1 and 3 all, which are in amounts; of 2, a terminal whose every payment of 28 days is fraud, those
    payments before which the label of an earlier one of the same spell had come. whole_days: and was read, see
    DELAY_DAYS.
    """
    found = stream["scenario"].isin([1, 3]).to_numpy().copy()
    spells = stream[stream["scenario"] == 2]
    for _, rows in spells.groupby("terminal", sort=False):
        times, days = rows["time"].to_numpy(), rows["day"].to_numpy()
        for number, row in enumerate(rows.index):
            come = days < days[number] - DELAY_DAYS if whole_days else times <= times[number] - LABELS_AFTER
            found[row] = (come & (days > days[number] - 28)).any()
    return np.asarray(found, dtype=np.bool_)


Report = Mapping[str, Sequence[Sequence[Measured]]]  # by name: [seed][fold]


def render(report: Report) -> str:
    """A Markdown table of each chapter: the published rows, then each name's mean over folds and seeds.

    With several seeds, ± is the deviation between them of that mean over folds.
    """
    lines = []
    folds = max(len(seed) for seeds in report.values() for seed in seeds)
    for chapter, first in (("3", 1), ("5", folds)):
        lines.append(f"| chapter {chapter}, mean of {first} | AUC | average precision | card precision@{CARDS_A_DAY} |")
        lines.append("|---|---|---|---|")
        for name, *values in PUBLISHED[chapter]:
            lines.append(f"| published: {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
        for name, seeds in report.items():
            by_seed = np.array([np.mean(seed[:first], axis=0) for seed in seeds])
            spread = [f" ± {value:.3f}" for value in by_seed.std(axis=0)] if len(seeds) > 1 else [""] * 3
            cells = [f"{mean:.3f}{off}" for mean, off in zip(by_seed.mean(axis=0), spread, strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
