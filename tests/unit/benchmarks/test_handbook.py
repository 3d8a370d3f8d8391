"""The handbook's protocol on made data: what is known when, which cards are left out, and that nothing looks ahead."""

from datetime import date

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.handbook import (
    DELAY_DAYS,
    FEEDBACK,
    LATENESS_S,
    NUMBERS,
    PACK,
    SHARES,
    TOKENS_MAX,
    ZONE,
    Table,
    by_hits,
    counts,
    day_number,
    fold,
    hits,
    payment,
    play,
)
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.registry import FEATURES
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState
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


class _Characters:
    id = "characters"

    def count(self, line: str) -> int:
        return len(line)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60 * 24 * 45), st.integers(0, 2), st.integers(0, 2), st.integers(1, 9), st.booleans()),
        min_size=1,
        max_size=80,
        unique_by=lambda row: row[0],
    )
)
def test_playing_accounts_apart_is_the_stream_in_event_time(rows: list[tuple[int, int, int, int, bool]]) -> None:
    """Complete counters and accounts apart give what one pass gives that learns of each fraud seven days after it."""
    minutes, customer, terminal, amount, fraud = (list(column) for column in zip(*sorted(rows), strict=True))
    times = pd.Timestamp("2018-04-01") + pd.to_timedelta(minutes, unit="min")
    stream = pd.DataFrame(
        {
            "time": times, "customer": customer, "terminal": terminal, "amount": amount, "fraud": fraud,
            "day": times.to_numpy().astype("datetime64[D]").astype(np.int64),
        }
    )  # fmt: skip
    complete = [FeedbackView(counts(stream, stream["fraud"].to_numpy()), DELAY_DAYS) for _ in range(2)]
    played = {}
    for one in range(3):
        played |= dict(play(stream[stream["customer"] == one], complete, first_day=0))

    view, states, rates = FeedbackView((), DELAY_DAYS), {}, load_rates("USD")
    unlabelled = []
    for row in stream.itertuples():
        event = payment(row.Index, row.time, row.customer, row.terminal, row.amount)
        while unlabelled and unlabelled[0][0] + pd.Timedelta(days=DELAY_DAYS) <= row.time:
            view.mark(unlabelled.pop(0)[1], +1)
        state = states.setdefault(
            row.customer,
            AccountState(
                event.account_id,
                _Characters(),
                rates=rates,
                tokens_max=TOKENS_MAX,
                lateness_s=LATENESS_S,
                zone=ZONE,
                windows=(),
            ),
        )
        features = state.take(event, view, SharedWindows((), ())).features
        view.count(event)
        if row.fraud:
            unlabelled.append((row.time, event))
        wanted = [np.nan if features[name] is None else float(features[name]) for name in NUMBERS]
        np.testing.assert_array_equal(played[row.Index][: len(NUMBERS)], wanted)
        shares = [np.nan if features[name] is None else float(features[name]) for name in SHARES]
        np.testing.assert_array_equal(played[row.Index][len(NUMBERS) :], shares)


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
