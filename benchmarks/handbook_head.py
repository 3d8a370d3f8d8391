"""`python -m benchmarks.handbook_head --data FOLDER`: the joint-fusion head on numbers alone, and with rules.

The handbook's stream as handbook_stream.py plays it and handbook_protocol.py measures it; the head is the one that the
engine serves (engine/head.py), with the bins of finetune/adapt.py, trained here from nothing. There is no text and no
model: the hidden state is one zero. XGBoost learns from the same rows of the same features ([peers] of pyproject.toml).

Everything that is fitted sees days up to the end of a fold's training week, which lie a whole week before its test
week, so that every label had come. Settings were chosen on the folds that start on --starts of CHOSEN_ON, whose test
weeks end before the first reported training week begins.
"""

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.handbook import PACK, by_regression, feedback_inputs, hits
from benchmarks.handbook_protocol import STARTS, WEEK, Floats, Measured, Rows, fold, foreseeable, measures, render
from benchmarks.handbook_stream import Flags, Numbers, Table, played, read_stream
from finetune.adapt import COLUMNS, TYPOLOGIES, numeric_inputs
from finetune.language_model import warm_cosine
from fraudguard.decisions.policy import Policy, load_policy
from fraudguard.domain import Hit, Score, Typology
from fraudguard.engine.calibration import Platt
from fraudguard.engine.head import FusionHead
from fraudguard.engine.head_spec import HeadSpec
from fraudguard.features.registry import FEATURES
from fraudguard.rules.registry import RuleSet, load_rules

CHOSEN_ON: Final = tuple(date(2018, 6, 13) + WEEK * number for number in range(4))
POLICY: Final = Path("rules/policy.yaml")
SCORED_ROWS: Final = 8_192  # at once
IN_THE_HEAD: Final = {feature.name for feature in FEATURES if feature.model}
MODEL: Final = "handbook@1+fp32"


@dataclass(frozen=True, slots=True)
class Run:
    """How a head is trained. days: of labels, the training week the last of them.

    others_step: of the payments that were no fraud, one in so many is read, and weighs as much as so many.
    """

    days: int
    others_step: int
    epochs: int
    batch: int = 512
    rate: float = 0.01
    width: int = 64
    bins: int = 16
    dropout: float = 0.1


WEEKLY: Final = Run(days=7, others_step=1, epochs=16)
MONTHLY: Final = Run(days=28, others_step=4, epochs=16)
TREES: Final = {
    "n_estimators": 200, "max_depth": 5, "learning_rate": 0.05, "subsample": 0.7, "colsample_bytree": 0.5,
    "min_child_weight": 5,
}  # fmt: skip


def inputs(table: Table, rows: Rows) -> Numbers:
    """[row, COLUMNS]: what the head may read, in finetune's order; NaN for what this stream does not have."""
    made = np.full((len(rows), len(COLUMNS)), np.nan, dtype=np.float32)
    for column, name in enumerate(COLUMNS):
        if name in table.columns:
            made[:, column] = table.columns[name][rows]
    return made


def trained(numbers: Numbers, fraud: Flags, run: Run, seed: int) -> tuple[FusionHead, float]:
    """A head that learned from the rows [row, COLUMNS], and the mean loss of its last epoch."""
    torch.manual_seed(seed)
    head = FusionHead(
        HeadSpec(
            format=1,
            hidden_size=1,
            width=run.width,
            tokens_max=1,
            features=numeric_inputs(numbers, run.bins),
            typologies=[str(typology) for typology in TYPOLOGIES],
            calibration=Platt(slope=1.0, offset=0.0),
        ),
        run.dropout,
    )
    rng = np.random.default_rng(seed)
    read = np.flatnonzero(fraud | (rng.integers(run.others_step, size=len(fraud)) == 0))
    truth = torch.from_numpy(fraud[read].astype(np.float32))
    weight = torch.where(truth > 0, 1.0, float(run.others_step))
    encoded = head.encode(_chosen(head, numbers[read]))
    optimizer = torch.optim.AdamW(head.parameters(), lr=run.rate, fused=True)
    steps = run.epochs * -(-len(read) // run.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    head.train()
    mean = 0.0
    for _ in range(run.epochs):
        losses = []
        for batch in torch.randperm(len(read)).split(run.batch):  # type: ignore[no-untyped-call]  # torch
            logit = head.mlp(torch.cat([torch.zeros(len(batch), 1), encoded[batch]], dim=1))[:, 0]
            loss = F.binary_cross_entropy_with_logits(logit, truth[batch], weight[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        mean = float(np.mean(losses))
    return head.eval(), mean


def _chosen(head: FusionHead, numbers: Numbers) -> Tensor:
    return torch.from_numpy(numbers[:, [COLUMNS.index(name) for name in head.names]])


@torch.inference_mode()
def logits(head: FusionHead, numbers: Numbers) -> Floats:
    """The risk logit of each row [row, COLUMNS]."""
    parts = _chosen(head, numbers).split(SCORED_ROWS)  # type: ignore[no-untyped-call]  # torch
    return np.concatenate([head(torch.zeros(len(part), 1), part)[0].numpy() for part in parts]).astype(np.float64)


def by_trees(table: Table, train: Rows, test: Rows, seed: int) -> Floats:
    """XGBoost on the numbers that the head reads."""
    import xgboost

    names = [name for name in table.columns if name in IN_THE_HEAD]
    made = [np.column_stack([table.columns[name][rows] for name in names]) for rows in (train, test)]
    trees = xgboost.XGBClassifier(n_jobs=1, random_state=seed, **TREES).fit(made[0], table.fraud[train])
    return np.asarray(trees.predict_proba(made[1])[:, 1], dtype=np.float64)


def by_policy(policy: Policy, rules: RuleSet, risks: Floats, found: Flags) -> Floats:
    """Where a review would begin: the outcome that the service's policy gives risk and hits, then the risk.

    found: [row, rule].
    """
    made = [Hit(rule.id, rule.version, rule.outcome, rule.reason, "live", rule.severity) for rule in rules.rules]
    outcomes = [
        policy.decide(
            "transaction",
            Score(float(risk), Typology.OTHER, MODEL),
            [made[rule] for rule in np.flatnonzero(held)],
            degraded_reason=None,
            late=False,
        ).outcome.severity
        for risk, held in zip(risks, found, strict=True)
    ]
    return 2.0 * np.array(outcomes) + risks


def scored(
    table: Table, rules: RuleSet, found: Flags, run: Run, start: date, seeds: int
) -> Iterator[tuple[str, list[Floats]]]:
    """Each row of the report on one fold: its name, and by seed the scores of the fold's test rows."""
    train, test = fold(table, start, run.days)
    read = inputs(table, train)
    asked = inputs(table, test)
    of = f"{run.days} days"
    one = [logits(trained(read, table.fraud[train], run, seed)[0], asked) for seed in range(seeds)]
    yield f"head, {of}", one
    together = np.asarray(np.mean(one, axis=0))
    yield f"heads of {seeds} seeds, {of}, mean log odds", [together]
    yield f"XGBoost, {of}", [by_trees(table, train, test, seed) for seed in range(seeds)]
    risks = np.exp(-np.logaddexp(0.0, -together))
    yield f"heads, {of}, with rules in the policy's order", [by_policy(load_policy(POLICY), rules, risks, found[test])]
    odds = by_regression(np.column_stack([feedback_inputs(table), found]), table.fraud, train, test)
    yield f"rules + label feedback, logistic regression, {of}", [odds]
    yield f"heads, {of}, with rules: mean of both log odds", [together + odds]


def reported(
    table: Table, foreseen: Flags, rules: RuleSet, runs: Sequence[Run], starts: Sequence[date], seeds: int
) -> str:
    """The tables of one feedback. foreseen: of the table's rows, see `foreseeable`."""
    found = hits(table, rules)
    report: dict[str, list[list[Measured]]] = {}
    for start in starts:
        for run in runs:
            for name, by_seed in scored(table, rules, found, run, start, seeds):
                rows = fold(table, start)[1]
                of_name = report.setdefault(name, [[] for _ in by_seed])
                for of_seed, scores in zip(of_name, by_seed, strict=True):
                    of_seed.append(measures(table, rows, scores))
        _, test = fold(table, start)
        best = report.setdefault("the most that these labels can tell", [[]])
        best[0].append(measures(table, test, foreseen[test].astype(np.float64)))
    return render(report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Play, train, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with handbook/raw.parquet")
    parser.add_argument("--starts", type=date.fromisoformat, nargs="*", default=STARTS, help="other training weeks")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = options.data / "handbook" / "raw.parquet"
    began = time.perf_counter()
    stream, secrets = played(path), read_stream(path)
    first = min(options.starts) + WEEK - timedelta(days=max(run.days for run in (WEEKLY, MONTHLY)))
    last = max(options.starts) + 3 * WEEK - timedelta(days=1)
    kept = stream.whole_days.between(first, last)
    rules = load_rules(PACK, FEATURES)
    for title, table, whole_days in (
        ("Labels by whole days: label_delay_days 7", stream.whole_days, True),
        ("Labels up to the payment's time of day: label_delay_days 6", stream.soon, False),
    ):
        foreseen = foreseeable(secrets, whole_days=whole_days)[kept]
        text = reported(table.at(kept), foreseen, rules, (WEEKLY, MONTHLY), options.starts, options.seeds)
        print(f"## {title}\n\n{text}", flush=True)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{used.ru_utime + used.ru_stime:.0f} CPU seconds, {time.perf_counter() - began:.0f} of the clock")


if __name__ == "__main__":
    main()
