"""The handbook's protocol and rules on made data: what is known when, which cards are left out, what labels tell."""

from datetime import date

import numpy as np
import pandas as pd

from benchmarks.handbook import PACK, by_hits, hits
from benchmarks.handbook_protocol import fold, foreseeable, render
from benchmarks.handbook_stream import FEEDBACK, NUMBERS, Table, day_number
from fraudguard.features.registry import FEATURES
from fraudguard.rules.registry import load_rules

START = date(2018, 7, 25)
FIRST = day_number(START)


def table(rows: list[tuple[int, int, bool]], **columns: list[float]) -> Table:
    """Rows of (days after START, card, fraud)."""
    day, card, fraud = (np.array(column) for column in zip(*rows, strict=True))
    return Table(FIRST + day, card, fraud, {name: np.array(values) for name, values in columns.items()})


def test_a_fold_is_a_week_a_delay_and_a_week() -> None:
    """Days 0-6 train, 7-13 are the delay, 14-20 test."""
    rows = table([(day, day, False) for day in range(-3, 25)])
    train, test = fold(rows, START)
    assert rows.day[train].tolist() == list(range(FIRST, FIRST + 7))
    assert rows.day[test].tolist() == list(range(FIRST + 14, FIRST + 21))


def test_a_longer_fold_ends_with_the_same_week() -> None:
    """28 days of labels: days -21 to 6; the test week stays."""
    rows = table([(day, day, False) for day in range(-30, 25)])
    train, test = fold(rows, START, days=28)
    assert rows.day[train].tolist() == list(range(FIRST - 21, FIRST + 7))
    assert rows.day[test].tolist() == rows.day[fold(rows, START)[1]].tolist()


def test_cards_known_to_be_compromised_are_not_tested() -> None:
    """Known: a fraud in the training week, or up to eight days before the test day; seven days before is not yet."""
    rows = table(
        [(3, 1, True), (6, 2, True), (7, 3, True), (8, 4, True), (9, 5, False)]
        + [(15, card, False) for card in range(1, 6)]
        + [(16, card, False) for card in range(1, 6)]
    )
    _, test = fold(rows, START)
    assert [(day - FIRST, card) for day, card in zip(rows.day[test], rows.customer[test], strict=True)] == [
        (15, 4), (15, 5), (16, 5),
    ]  # fmt: skip


def test_a_rule_weighs_what_the_training_week_taught() -> None:
    """One that hit frauds lifts, one that hit others sinks, one that never hit does nothing."""
    found = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]] * 2, dtype=bool)
    fraud = np.array([True, True, False, False, False, True] * 2)
    asked = np.vstack([found, np.eye(3, dtype=bool), np.zeros((1, 3), dtype=bool)])
    scores = by_hits(asked, fraud, np.arange(12), np.arange(12, 16))
    assert scores[0] > 0 > scores[1]
    assert scores[2] == scores[3] == 0.0


def test_the_pack_hits_what_it_says() -> None:
    """Hits come by rule in the files' order; what is missing hits nothing."""
    rules = load_rules(PACK, FEATURES)
    columns = {name: [np.nan] * 3 for name in NUMBERS}
    columns["amount_base"] = [230.0, 120.0, np.nan]
    columns |= {
        name: [np.nan, 0.9, np.nan] if name == "merchant_fraud_share_7d" else columns[name] for name in FEEDBACK
    }
    found = hits(table([(0, 1, False)] * 3, **columns), rules)
    names = [{rules.rules[at].id for at in np.flatnonzero(row)} for row in found]
    assert names[0] == {"amount-over-220", "amount-over-150", "amount-over-100"}
    assert names[1] == {"amount-over-100", "terminal-fraud-7d"}
    assert names[2] == set()
    rules.close()


def test_labels_tell_of_a_terminal_once_one_has_come() -> None:
    """Of scenario 2 what lies seven days after another of the same 28 days; the others always; harmless never."""
    days, hours = [0, 7, 7, 8, 35, 36, 0, 0, 0], [12, 11, 12, 0, 0, 12, 1, 1, 1]
    stream = pd.DataFrame(
        {
            "time": pd.Timestamp("2018-07-01") + pd.to_timedelta(np.array(days) * 24 + hours, unit="h"),
            "day": days,
            "terminal": [1] * 6 + [2, 3, 4],
            "scenario": [2, 2, 2, 2, 2, 2, 1, 3, 0],
        }
    )
    by_second, by_day = (foreseeable(stream, whole_days=whole_days) for whole_days in (False, True))
    assert by_second.tolist() == [False, False, True, True, True, False, True, True, False]
    assert by_day.tolist() == [False, False, False, True, True, False, True, True, False]


def test_a_table_has_means_over_folds_and_deviations_between_seeds() -> None:
    """Chapter 3 takes the first fold alone; one seed has no deviation."""
    text = render(
        {
            "two seeds": [[(0.8, 0.4, 0.2), (0.6, 0.2, 0.1)], [(0.9, 0.6, 0.2), (0.7, 0.4, 0.1)]],
            "one": [[(1, 1, 1)] * 2],
        }
    )
    assert "| two seeds | 0.850 ± 0.050 | 0.500 ± 0.100 | 0.200 ± 0.000 |" in text
    assert "| two seeds | 0.750 ± 0.050 | 0.400 ± 0.100 | 0.150 ± 0.000 |" in text
    assert text.count("| one | 1.000 | 1.000 | 1.000 |") == 2
