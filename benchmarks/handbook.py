"""`python -m benchmarks.handbook --data FOLDER`: rules and label feedback, on the fraud handbook's stream.

The stream of the Fraud Detection Handbook (FOLDER/handbook/raw.parquet, never part of this project) is played in event
time through the service's own features: a customer is an account, a terminal a merchant, counters are by UTC day, and a
label is read seven whole days late. The rules of benchmarks/handbook/ are evaluated by `RuleSet.evaluate`. No model and
no text. What is fitted sees the labels of a fold's training week alone, which are all known before its test week.

Protocol of the handbook: a training week, a week of delay, a test week without the cards known by then to be
compromised; chapter 3 one fold, chapter 5 the mean over four. What differs from the handbook:
- features are the service's: a terminal's labels by whole UTC days (the handbook's windows end exactly seven days
  before a payment), other windows and a profile for the card;
- payments of 0.00, which the service refuses, are sent as 0.01;
- among the k cards of a day, equal scores go by the card's number.

Features take minutes and are kept in a temporary file, by what they depend on; it holds numbers, no rows of the stream.
"""

import argparse
import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraudguard.domain import EntityCount, Scalar, Transaction
from fraudguard.evaluation import average_precision, card_precision_at_k, roc_auc
from fraudguard.features import facts
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.registry import FEATURES
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState
from fraudguard.rules.registry import RuleSet, load_rules

DELAY_DAYS: Final = 7
WEEK: Final = timedelta(days=7)
STARTS: Final = tuple(date(2018, 7, 25) + WEEK * number for number in range(4))
CARDS_A_DAY: Final = 100
CURRENCY: Final = "USD"  # the simulator's has no name
ZONE: Final = ZoneInfo("UTC")
LATENESS_S: Final = 3_600
TOKENS_MAX: Final = 64
PACK: Final = Path(__file__).parent / "handbook"
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
PUBLISHED: Final = {
    "3": (("XGBoost", 0.862, 0.639, 0.273), ("random forest", 0.867, 0.658, 0.287)),
    "5": (("XGBoost", 0.872, 0.694, 0.304), ("balanced bagging", 0.879, 0.680, 0.305)),
}

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Inputs = dict[str, Scalar]


class _Characters:
    """The timeline is not read here; any count will do."""

    id = "characters"

    def count(self, line: str) -> int:
        """Characters of the line."""
        return len(line)


def read_stream(path: Path, until: date) -> pd.DataFrame:
    """Up to the day `until` in order of time: time, day (since 1970-01-01), customer, terminal, amount, fraud."""
    raw = pd.read_parquet(path, columns=["TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"])
    raw.columns = ["time", "customer", "terminal", "amount", "fraud"]
    raw["day"] = raw["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    raw["fraud"] = raw["fraud"].astype(bool)
    return raw[raw["day"] <= day_number(until)].sort_values("time", kind="stable").reset_index(drop=True)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - date(1970, 1, 1)).days


def counts(stream: pd.DataFrame, fraud: Flags) -> list[EntityCount]:
    """What the store holds of every terminal once every label has come."""
    days = pd.DataFrame({"terminal": stream["terminal"], "day": stream["day"], "fraud": fraud})
    totals = days.groupby(["terminal", "day"], sort=True)["fraud"].agg(["size", "sum"])
    return [
        EntityCount("merchant", str(terminal), int(day), int(size), int(frauds))
        for (terminal, day), size, frauds in zip(totals.index, totals["size"], totals["sum"], strict=True)
    ]


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


def play(stream: pd.DataFrame, views: Sequence[FeedbackView], first_day: int) -> Iterator[tuple[int, list[float]]]:
    """From first_day on, each row's number and features: NUMBERS by the first view, then SHARES by each further one.

    Rows of an account must be in order. Views are complete: days that a label could not have reached are not read.
    """
    rates = load_rates(CURRENCY)
    nothing_declared = SharedWindows((), ())
    states: dict[int, AccountState] = {}
    for row in stream.itertuples():
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
        if row.day >= first_day:
            values = [features[name] for name in NUMBERS]
            for view in views[1:]:
                shares = view.shares(event)
                values += [shares[name] for name in SHARES]
            yield row.Index, [np.nan if value is None else float(value) for value in values]


@dataclass(frozen=True, slots=True)
class Work:
    """What every process reads; given to them by fork, because it is large."""

    stream: pd.DataFrame
    views: list[FeedbackView]
    first_day: int
    parts: int

    def part(self, number: int) -> tuple[list[int], list[list[float]]]:
        """The rows of one share of the accounts."""
        rows = self.stream[self.stream["customer"] % self.parts == number]
        played = list(play(rows, self.views, self.first_day))
        return [index for index, _ in played], [values for _, values in played]


_work: list[Work] = []  # in a process of the pool: the one piece


def _part(number: int) -> tuple[list[int], list[list[float]]]:
    return _work[0].part(number)


@dataclass(frozen=True, slots=True)
class Table:
    """The played rows: when, who, the truth and the features. columns: by name, float64 with NaN for missing."""

    day: npt.NDArray[np.int64]
    customer: npt.NDArray[np.int64]
    fraud: Flags
    columns: Mapping[str, Floats]

    def with_labels(self, fraud: Flags, columns: Mapping[str, Floats]) -> "Table":
        """The same payments with other labels and what follows from them."""
        return Table(self.day, self.customer, fraud, {**self.columns, **columns})


def features(path: Path, starts: Sequence[date], processes: int) -> tuple[Table, Table]:
    """The rows of the folds' weeks, with the true labels and with all labels of the stream dealt out at random."""
    stream = read_stream(path, max(starts) + 3 * WEEK - timedelta(days=1))
    first_day = day_number(min(starts))
    dealt = np.random.default_rng(0).permutation(stream["fraud"].to_numpy())
    kept = stream[stream["day"] >= first_day]
    file = Path(tempfile.gettempdir()) / f"fraudguard-handbook-{_key(path, starts)}.npy"
    if not file.exists():
        labels = (stream["fraud"].to_numpy(), dealt)
        views = [FeedbackView(counts(stream, fraud), DELAY_DAYS) for fraud in labels]
        work = Work(stream, views, first_day, parts=8 * processes)
        values = np.full((len(stream), len(NUMBERS) + len(SHARES)), np.nan)
        with multiprocessing.get_context("fork").Pool(processes, _work.append, (work,)) as pool:
            for numbers, played in pool.imap_unordered(_part, range(work.parts)):
                values[numbers] = played
        half = file.with_suffix(".half.npy")
        np.save(half, values[kept.index])
        half.replace(file)
    values = np.load(file)
    columns = dict(zip(NUMBERS, values.T, strict=False))
    customer, day = kept["customer"].to_numpy().astype(np.int64), kept["day"].to_numpy()
    table = Table(day, customer, kept["fraud"].to_numpy(), columns)
    return table, table.with_labels(dealt[kept.index], dict(zip(SHARES, values.T[len(NUMBERS) :], strict=True)))


def _key(path: Path, starts: Sequence[date]) -> str:
    """Of everything that the features depend on, the code of the features room and of this file included."""
    code = [file.read_bytes() for file in (*sorted(Path(facts.__file__).parent.glob("*.py")), Path(__file__))]
    return hashlib.sha256(repr((str(path), path.stat().st_size, list(starts), code)).encode()).hexdigest()[:12]


def hits(table: Table, rules: RuleSet) -> Flags:
    """Whether each live rule holds for each row: [row, rule]."""
    order = {rule.id: number for number, rule in enumerate(rules.rules)}
    found = np.zeros((len(table.day), len(order)), dtype=bool)
    names = list(table.columns)
    for number, row in enumerate(np.column_stack([table.columns[name] for name in names]).tolist()):
        inputs: Inputs = {name: None if value != value else value for name, value in zip(names, row, strict=True)}
        inputs |= {"event_type": "transaction", "direction": "debit", "kind": "card", "channel": "card_present"}
        for hit in rules.evaluate(inputs):
            found[number, order[hit.rule]] = True
    return found


def fold(table: Table, start: date) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row numbers of the training week from `start` and of the test week two weeks later.

    A test day leaves out the cards that had a fraud in the training week, or since, up to eight days before.
    """
    first = day_number(start)
    train = np.flatnonzero((table.day >= first) & (table.day < first + 7))
    known = set(table.customer[train][table.fraud[train]].tolist())
    test = []
    for day in range(first + 14, first + 21):
        known |= set(table.customer[(table.day == day - 8) & table.fraud].tolist())
        today = np.flatnonzero(table.day == day)
        test.append(today[[card not in known for card in table.customer[today].tolist()]])
    return train, np.concatenate(test)


def measures(table: Table, rows: npt.NDArray[np.intp], scores: Floats) -> tuple[float, float, float]:
    """AUC, average precision, card precision@100."""
    truth = table.fraud[rows]
    cards = card_precision_at_k(table.day[rows], table.customer[rows], truth, scores, CARDS_A_DAY)
    return roc_auc(truth, scores), average_precision(truth, scores), cards


def feedback_inputs(table: Table) -> Floats:
    """[row, 6]: shares, 0 where there were none; logarithms of the numbers of transactions."""
    made = [table.columns[name] if name in SHARES else np.log1p(table.columns[name]) for name in FEEDBACK]
    return np.asarray(np.nan_to_num(np.column_stack(made)))


def by_regression(
    inputs: Floats | Flags, fraud: Flags, train: npt.NDArray[np.intp], test: npt.NDArray[np.intp]
) -> Floats:
    """A plain logistic regression of the training week."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    model.fit(inputs[train], fraud[train])
    return np.asarray(model.predict_proba(inputs[test])[:, 1])


def by_hits(found: Flags, fraud: Flags, train: npt.NDArray[np.intp], test: npt.NDArray[np.intp]) -> Floats:
    """The log odds of fraud that each hit adds on the training week, added up; a rule that taught nothing adds 0.

    Of what hits and misses a rule had, half an event is added to each, so that none is certain.
    """
    truth = fraud[train]
    held = found[train].astype(np.float64)
    frauds, others = held[truth].sum(axis=0) + 0.5, held[~truth].sum(axis=0) + 0.5
    weights = np.log(frauds / others) - np.log((truth.sum() + 1) / ((~truth).sum() + 1))
    weights[held.sum(axis=0) == 0] = 0.0
    return np.asarray(found[test] @ weights, dtype=np.float64)


def scores(
    table: Table, found: Flags, dealt: Table, dealt_found: Flags, asks: Flags, start: date
) -> Iterator[tuple[str, Table, npt.NDArray[np.intp], Floats]]:
    """Each row of the report on one fold: its name, and the scores of the fold's test rows.

    asks: [rule], whether it asks what labels taught. dealt: the same payments under labels that mean nothing.
    """
    train, test = fold(table, start)
    feedback = feedback_inputs(table)
    yield "rules alone, log odds of the training week added up", table, test, by_hits(found, table.fraud, train, test)
    yield "rules alone, logistic regression", table, test, by_regression(found, table.fraud, train, test)
    both = np.column_stack([feedback, found])
    yield "rules + label feedback, logistic regression", table, test, by_regression(both, table.fraud, train, test)
    yield "label feedback alone, logistic regression", table, test, by_regression(feedback, table.fraud, train, test)
    blind = found[:, ~asks]
    yield "rules that ask no label, logistic regression", table, test, by_regression(blind, table.fraud, train, test)
    train, test = fold(dealt, start)
    both = np.column_stack([feedback_inputs(dealt), dealt_found])
    name = "check: all labels dealt out at random, rules + label feedback"
    yield name, dealt, test, by_regression(both, dealt.fraud, train, test)


def main() -> None:
    """Play, fit, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with handbook/raw.parquet")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--starts", type=date.fromisoformat, nargs="*", default=STARTS, help="other training weeks")
    options = parser.parse_args()
    began = time.perf_counter()
    table, dealt = features(options.data / "handbook" / "raw.parquet", options.starts, options.processes)
    print(f"features of {len(table.day):,} payments: {time.perf_counter() - began:.0f} s", flush=True)
    began = time.perf_counter()
    rules = load_rules(PACK, FEATURES)
    found, dealt_found = (hits(one, rules) for one in (table, dealt))
    seconds = time.perf_counter() - began
    print(f"{len(rules.rules)} rules, version {rules.version}: {seconds:.0f} s for both labellings\n", flush=True)
    asks = np.array(["merchant_" in rule.when for rule in rules.rules])
    report: dict[str, list[tuple[float, float, float]]] = {}
    best = []
    for start in options.starts:
        for name, judged, rows, given in scores(table, found, dealt, dealt_found, asks, start):
            report.setdefault(name, []).append(measures(judged, rows, given))
        _, test = fold(table, start)
        best.append(measures(table, test, table.fraud[test].astype(np.float64)))
    report["a perfect scorer"] = best
    for chapter, folds in (("3", 1), ("5", len(options.starts))):
        print(f"| chapter {chapter}, mean of {folds} | AUC | average precision | card precision@{CARDS_A_DAY} |")
        print("|---|---|---|---|")
        means = [(name, *np.mean(values[:folds], axis=0)) for name, values in report.items()]
        for name, *values in (*((f"published: {name}", *values) for name, *values in PUBLISHED[chapter]), *means):
            print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
        print()


if __name__ == "__main__":
    main()
