"""The handbook's stream: what a payment's features know of labels, against counting them by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.handbook_stream import FEEDBACK, LABELS_AFTER, NUMBERS, Labelling, play

DAY = np.timedelta64(1, "D")


def made(rows: list[tuple[int, int, int, int, bool]]) -> pd.DataFrame:
    """A stream of (minute, customer, terminal, amount, fraud)."""
    minutes, customer, terminal, amount, fraud = (list(column) for column in zip(*sorted(rows), strict=True))
    times = pd.Timestamp("2018-04-01") + pd.to_timedelta(minutes, unit="min")
    return pd.DataFrame(
        {
            "time": times, "customer": customer, "terminal": terminal, "amount": amount, "fraud": fraud,
            "day": times.to_numpy().astype("datetime64[D]").astype(np.int64),
        }
    )  # fmt: skip


def counted(stream: pd.DataFrame, row: int, fraud: np.ndarray, delay: int) -> dict[str, float]:
    """FEEDBACK of a row, from all rows and when their labels come."""
    day, now = stream["day"][row], stream["time"][row].to_numpy()
    same = (stream["terminal"] == stream["terminal"][row]).to_numpy()
    known = fraud & (stream["time"].to_numpy() + LABELS_AFTER <= now)
    found = {}
    for days in (1, 7, 30):
        inside = same & (stream["day"] >= day - delay - days).to_numpy() & (stream["day"] < day - delay).to_numpy()
        total = inside.sum()
        found[f"merchant_transactions_{days}d"] = total
        found[f"merchant_fraud_share_{days}d"] = (inside & known).sum() / total if total else np.nan
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60 * 24 * 45), st.integers(0, 2), st.integers(0, 2), st.integers(1, 9), st.booleans()),
        min_size=1,
        max_size=80,
        unique_by=lambda row: row[0],
    )
)
def test_feedback_knows_what_had_come(rows: list[tuple[int, int, int, int, bool]]) -> None:
    """Transactions of whole days, and of their frauds those labelled by then; with seven days that is all of them."""
    stream = made(rows)
    fraud = stream["fraud"].to_numpy()
    played = np.array(list(play(stream, [Labelling(fraud, 7), Labelling(fraud, 6)])), dtype=np.float64)
    whole = dict(zip(NUMBERS, played.T, strict=False))
    for row in range(len(stream)):
        by_hand = counted(stream, row, fraud, 7)
        assert {name: whole[name][row] for name in FEEDBACK} == pytest.approx(by_hand, nan_ok=True)
        sooner = dict(zip(FEEDBACK, played[row, len(NUMBERS) :], strict=True))
        assert sooner == pytest.approx(counted(stream, row, fraud, 6), nan_ok=True)


def test_a_label_counts_from_its_second_on() -> None:
    """One fraud a week ago at noon: with six days its share is read at noon, and not a minute before."""
    noon = 12 * 60
    stream = made([(noon, 0, 0, 5, True), (7 * 1440 + noon - 1, 1, 0, 5, False), (7 * 1440 + noon, 2, 0, 5, False)])
    fraud = stream["fraud"].to_numpy()
    played = np.array(list(play(stream, [Labelling(fraud, 6)])), dtype=np.float64)
    shares = played[:, NUMBERS.index("merchant_fraud_share_1d")]
    assert shares[1:].tolist() == [0.0, 1.0]


def test_an_account_knows_only_its_own_past() -> None:
    """Customers' numbers do not depend on whom else the stream holds."""
    rows = [(60 * hour, hour % 2, hour % 3, 1 + hour % 7, False) for hour in range(40)]
    stream = made(rows)
    nobody = np.zeros(len(stream), dtype=bool)
    both = np.array(list(play(stream, [Labelling(nobody, 7)])), dtype=np.float64)
    one = (stream["customer"] == 1).to_numpy()
    alone = stream[one].reset_index(drop=True)
    by_itself = np.array(list(play(alone, [Labelling(nobody[one], 7)])), dtype=np.float64)
    own = [column for column, name in enumerate(NUMBERS) if name not in FEEDBACK]
    np.testing.assert_array_equal(both[one][:, own], by_itself[:, own])
