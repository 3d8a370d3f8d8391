"""`python -m benchmarks.handbook --data FOLDER`: rules and label feedback, on the fraud handbook's stream.

The stream is played as handbook_stream.py says and measured as handbook_protocol.py says; the rules of
benchmarks/handbook/ are evaluated by `RuleSet.evaluate`. No model and no text. What is fitted sees the labels of a
fold's training week alone, which are all known before its test week.
"""

import argparse
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.handbook_protocol import STARTS, WEEK, Floats, Measured, Rows, fold, measures, render
from benchmarks.handbook_stream import FEEDBACK, SHARES, Flags, Table, played
from fraudguard.domain import Scalar
from fraudguard.features.registry import FEATURES
from fraudguard.rules.registry import RuleSet, load_rules

PACK: Final = Path(__file__).parent / "handbook"

Inputs = dict[str, Scalar]


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


def feedback_inputs(table: Table) -> Floats:
    """[row, 6]: shares, 0 where there were none; logarithms of the numbers of transactions."""
    made = [table.columns[name] if name in SHARES else np.log1p(table.columns[name]) for name in FEEDBACK]
    return np.asarray(np.nan_to_num(np.column_stack(made)))


def by_regression(inputs: Floats | Flags, fraud: Flags, train: Rows, test: Rows) -> Floats:
    """The log odds of fraud by a plain logistic regression of the rows to train on."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    model.fit(inputs[train], fraud[train])
    return np.asarray(model.decision_function(inputs[test]), dtype=np.float64)


def by_hits(found: Flags, fraud: Flags, train: Rows, test: Rows) -> Floats:
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
) -> Iterator[tuple[str, Table, Rows, Floats]]:
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
    parser.add_argument("--starts", type=date.fromisoformat, nargs="*", default=STARTS, help="other training weeks")
    options = parser.parse_args()
    began = time.perf_counter()
    stream = played(options.data / "handbook" / "raw.parquet")
    last = max(options.starts) + 3 * WEEK - timedelta(days=1)
    kept = stream.whole_days.between(min(options.starts), last)
    table, dealt = stream.whole_days.at(kept), stream.dealt.at(kept)
    print(f"features of the whole stream: {time.perf_counter() - began:.0f} s", flush=True)
    began = time.perf_counter()
    rules = load_rules(PACK, FEATURES)
    found, dealt_found = (hits(one, rules) for one in (table, dealt))
    seconds = time.perf_counter() - began
    print(f"{len(rules.rules)} rules, version {rules.version}: {seconds:.0f} s for both labellings\n", flush=True)
    asks = np.array(["merchant_" in rule.when for rule in rules.rules])
    report: dict[str, list[Measured]] = {}
    best = []
    for start in options.starts:
        for name, judged, rows, given in scores(table, found, dealt, dealt_found, asks, start):
            report.setdefault(name, []).append(measures(judged, rows, given))
        _, test = fold(table, start)
        best.append(measures(table, test, table.fraud[test].astype(np.float64)))
    report["a perfect scorer"] = best
    print(render({name: [folds] for name, folds in report.items()}))


if __name__ == "__main__":
    main()
