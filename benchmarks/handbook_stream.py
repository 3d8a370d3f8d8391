"""The Fraud Detection Handbook's stream in event time, through the service's own features.

Knows FOLDER/handbook/raw.parquet (never part of this project) and labels; no rule, no model and no protocol. A customer
is an account, a terminal a merchant. Every payment is taken by its account's state in the stream's order, and a fraud
is marked when its label comes, seven days after it. The whole stream is played, 2018-04-01 to 09-30. Payments of 0.00,
which the service refuses, are sent as 0.01.

Features take some ten minutes of one core and are kept in a temporary file, by what they depend on; it holds numbers,
no rows of the stream.
"""

import hashlib
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from decimal import Decimal
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from fraudguard.domain import Transaction
from fraudguard.features import facts
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.registry import FEATURES
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState

LABELS_AFTER: Final = np.timedelta64(7, "D")
DELAY_DAYS: Final = 7  # the service's default: every day that is read has all its labels
SOON_DAYS: Final = 6  # one more day, whose labels have come up to the payment's own time of day
CURRENCY: Final = "USD"  # the simulator's has no name
ZONE: Final = ZoneInfo("UTC")
LATENESS_S: Final = 3_600
TOKENS_MAX: Final = 64
# Every number that can differ between two card payments of this stream.
NUMBERS: Final = tuple(
    f.name
    for f in FEATURES
    if f.type == "number"
    and f.group in {"event", "velocity", "profile", "feedback"}
    and not f.name.startswith(("counterparty", "device", "ip_", "in_", "messages", "hours_since_message", "transfers"))
)
FEEDBACK: Final = tuple(name for name in NUMBERS if name.startswith("merchant_"))
SHARES: Final = tuple(name for name in FEEDBACK if "_fraud_share_" in name)
Numbers = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


class _Characters:
    """The timeline is not read here; any count will do."""

    id = "characters"

    def count(self, line: str) -> int:
        """Characters of the line."""
        return len(line)


def read_stream(path: Path) -> pd.DataFrame:
    """In order of time: time, day (since 1970-01-01), customer, terminal, amount, fraud, scenario (0 for none)."""
    names = {
        "TX_DATETIME": "time",
        "CUSTOMER_ID": "customer",
        "TERMINAL_ID": "terminal",
        "TX_AMOUNT": "amount",
        "TX_FRAUD": "fraud",
        "TX_FRAUD_SCENARIO": "scenario",
    }
    raw = pd.read_parquet(path, columns=list(names)).rename(columns=names)
    raw["day"] = raw["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    raw["fraud"] = raw["fraud"].astype(bool)
    return raw.sort_values("time", kind="stable").reset_index(drop=True)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - date(1970, 1, 1)).days


def payment(number: int, time: pd.Timestamp, customer: int, terminal: int, amount: float) -> Transaction:
    """A row of the stream as the service takes it."""
    return Transaction(
        version=1,
        type="transaction",
        event_id=str(number),
        account_id=str(customer),
        event_time=time.to_pydatetime().replace(tzinfo=UTC),
        direction="debit",
        kind="card",
        channel="card_present",
        amount=max(Decimal(f"{amount:.2f}"), Decimal("0.01")),
        currency=CURRENCY,
        merchant_id=str(terminal),
    )


@dataclass(frozen=True, slots=True)
class Labelling:
    """What is taken for fraud, and the setting `label_delay_days` with which the service reads it."""

    fraud: Flags
    label_delay_days: int


def play(stream: pd.DataFrame, labellings: Sequence[Labelling]) -> Iterator[list[float | None]]:
    """Each row's features in the stream's order: NUMBERS by the first labelling, then FEEDBACK by each further one."""
    rates = load_rates(CURRENCY)
    nothing_declared = SharedWindows((), ())
    states: dict[int, AccountState] = {}
    views = [FeedbackView((), labelling.label_delay_days) for labelling in labellings]
    to_come: deque[tuple[pd.Timestamp, Transaction, list[FeedbackView]]] = deque()
    for row in stream.itertuples():
        while to_come and to_come[0][0] <= row.time:
            _, labelled, its = to_come.popleft()
            for view in its:
                view.mark(labelled, +1)
        event = payment(row.Index, row.time, row.customer, row.terminal, row.amount)
        state = states.get(row.customer)
        if state is None:
            state = states[row.customer] = AccountState(
                event.account_id,
                _Characters(),
                rates=rates,
                tokens_max=TOKENS_MAX,
                lateness_s=LATENESS_S,
                zone=ZONE,
                windows=(),
            )
        features = state.take(event, views[0], nothing_declared).features
        values = [features[name] for name in NUMBERS]
        for view in views[1:]:
            shares = view.shares(event)
            values += [shares[name] for name in FEEDBACK]
        for view in views:
            view.count(event)
        its = [view for view, labelling in zip(views, labellings, strict=True) if labelling.fraud[row.Index]]
        if its:
            to_come.append((row.time + LABELS_AFTER, event, its))
        yield [value if value is None else float(value) for value in values]


@dataclass(frozen=True, slots=True)
class Table:
    """The played rows: when, who, the truth and the features. columns: by name, float32 with NaN for missing."""

    day: npt.NDArray[np.int64]
    customer: npt.NDArray[np.int64]
    fraud: Flags
    columns: Mapping[str, Numbers]

    def between(self, first: date, last: date) -> npt.NDArray[np.intp]:
        """The numbers of the rows of those days and the days between."""
        return np.flatnonzero((self.day >= day_number(first)) & (self.day <= day_number(last)))

    def at(self, rows: npt.NDArray[np.intp]) -> "Table":
        """These rows alone."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Table(self.day[rows], self.customer[rows], self.fraud[rows], columns)


@dataclass(frozen=True, slots=True)
class Played:
    """The payments by three feedbacks: as the service reads it, a day sooner, and of labels dealt out at random."""

    whole_days: Table
    soon: Table
    dealt: Table


def played(path: Path) -> Played:
    """All rows of the stream, played, or from the temporary file of an earlier run."""
    stream = read_stream(path)
    fraud = stream["fraud"].to_numpy()
    dealt = np.random.default_rng(0).permutation(fraud)
    file = Path(tempfile.gettempdir()) / f"fraudguard-handbook-{_key(path)}.npy"
    if not file.exists():
        labellings = [Labelling(fraud, DELAY_DAYS), Labelling(fraud, SOON_DAYS), Labelling(dealt, DELAY_DAYS)]
        values = np.empty((len(stream), len(NUMBERS) + 2 * len(FEEDBACK)), dtype=np.float32, order="F")
        for row, numbers in enumerate(play(stream, labellings)):
            values[row] = numbers
        half = file.with_suffix(".half.npy")
        np.save(half, values)
        half.replace(file)
    values = np.load(file)
    parts = np.split(values.T, [len(NUMBERS), len(NUMBERS) + len(FEEDBACK)])
    columns = dict(zip(NUMBERS, parts[0], strict=True))
    day, customer = stream["day"].to_numpy(), stream["customer"].to_numpy().astype(np.int64)
    soon, of_dealt = (columns | dict(zip(FEEDBACK, part, strict=True)) for part in parts[1:])
    return Played(
        Table(day, customer, fraud, columns),
        Table(day, customer, fraud, soon),
        Table(day, customer, dealt, of_dealt),
    )


def _key(path: Path) -> str:
    """Of everything that the features depend on, the code of the features room and of this file included."""
    code = [file.read_bytes() for file in (*sorted(Path(facts.__file__).parent.glob("*.py")), Path(__file__))]
    return hashlib.sha256(repr((str(path), path.stat().st_size, code)).encode()).hexdigest()[:12]
