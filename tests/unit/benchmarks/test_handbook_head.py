"""The head on numbers alone, on a small made stream: it learns, the same each time, and reads what the engine reads."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.handbook import PACK
from benchmarks.handbook_head import POLICY, Run, by_policy, inputs, logits, trained
from benchmarks.handbook_protocol import fold, measures
from benchmarks.handbook_stream import FEEDBACK, NUMBERS, Labelling, Table, play
from fraudguard.decisions.policy import load_policy
from fraudguard.domain import Outcome
from fraudguard.engine.head import load_head
from fraudguard.features.registry import FEATURES
from fraudguard.rules.registry import load_rules

FIRST = date(2018, 4, 1)
RUN = Run(days=21, others_step=2, epochs=12, batch=128, width=16, bins=8)


@pytest.fixture(scope="module")
def table() -> Table:
    """400 cards and 50 terminals over 50 days; every six days one turns for 24; large amounts are fraud."""
    rng = np.random.default_rng(0)
    rows = 4_000
    minutes = np.sort(rng.choice(50 * 1440, size=rows, replace=False))
    terminal = rng.integers(50, size=rows)
    amount = np.round(rng.gamma(2.0, 15.0, size=rows), 2)
    spell = minutes // 1440 // 6
    fraud = np.isin(spell - terminal, range(4)) | (amount > 120)
    times = pd.Timestamp(FIRST) + pd.to_timedelta(minutes, unit="min")
    stream = pd.DataFrame(
        {
            "time": times,
            "customer": rng.integers(400, size=rows),
            "terminal": terminal,
            "amount": amount,
            "fraud": fraud,
        }
    )
    played = np.array(list(play(stream, [Labelling(fraud, 7)])), dtype=np.float32)
    day = times.to_numpy().astype("datetime64[D]").astype(np.int64)
    return Table(day, stream["customer"].to_numpy(), fraud, dict(zip(NUMBERS, played.T, strict=True)))


def test_it_learns(table: Table) -> None:
    """Pinned: the loss of the last epoch, and what its logits are worth three weeks on; without feedback less."""
    train, test = fold(table, date(2018, 4, 29), RUN.days)
    head, loss = trained(inputs(table, train), table.fraud[train], RUN, seed=0)
    assert loss == pytest.approx(0.3016, rel=0.02)
    _, precision, _ = measures(table, test, logits(head, inputs(table, test)))
    assert precision == pytest.approx(0.315, abs=0.02)
    blind = Table(table.day, table.customer, table.fraud, {n: c for n, c in table.columns.items() if n not in FEEDBACK})
    unaware, _ = trained(inputs(blind, train), table.fraud[train], RUN, seed=0)
    assert measures(table, test, logits(unaware, inputs(blind, test)))[1] < precision - 0.1
    again, its_loss = trained(inputs(table, train), table.fraud[train], RUN, seed=0)
    assert its_loss == loss
    np.testing.assert_array_equal(logits(again, inputs(table, test)), logits(head, inputs(table, test)))


def test_it_is_a_head_that_a_release_holds(table: Table, tmp_path: Path) -> None:
    """Saved and loaded, it gives the same logits; it names features of the registry, and only those that vary."""
    train, test = fold(table, date(2018, 4, 29), RUN.days)
    head, _ = trained(inputs(table, train), table.fraud[train], RUN, seed=1)
    head.save(tmp_path)
    rows = inputs(table, test)
    np.testing.assert_array_equal(logits(load_head(tmp_path), rows), logits(head, rows))
    assert set(FEEDBACK) < set(head.names) < set(NUMBERS)


def test_the_policy_ranks_outcomes_before_risks() -> None:
    """A blocking hit before a risk that asks for review, that before a hit that asks for step_up; then by risk."""
    rules, policy = load_rules(PACK, FEATURES), load_policy(POLICY)
    outcomes = [rule.outcome for rule in rules.rules]
    found = np.zeros((5, len(outcomes)), dtype=bool)
    found[0, outcomes.index(Outcome.BLOCK)] = True
    found[2, outcomes.index(Outcome.STEP_UP)] = True
    ranked = by_policy(policy, rules, np.array([0.01, 0.6, 0.02, 0.2, 0.1]), found)
    assert np.argsort(-ranked).tolist() == [0, 1, 2, 3, 4]
    rules.close()
