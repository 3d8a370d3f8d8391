"""Thresholds within a review capacity, and the policy that says them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import thresholds
from finetune.thresholds import LEVELS, Capacity, choose, expected, with_thresholds
from fraudguard.decisions.policy import Policy, load_policy
from fraudguard.domain import Outcome
from fraudguard.errors import BadInput

SHIPPED = Path("rules/policy.yaml")
CAPACITY: dict[str, Any] = {
    "events_day": 10_000, "base_rate": 0.005, "alerts_day": {"step_up": 500, "review": 100, "block": 10}
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999), count=st.integers(20, 100), base_rate=st.floats(1e-4, 0.3),
    shares=st.lists(st.floats(1e-4, 0.9), min_size=3, max_size=3, unique=True), coarse=st.booleans(),
)  # fmt: skip
def test_every_threshold_is_the_lowest_within_its_alerts(
    seed: int, count: int, base_rate: float, shares: list[float], coarse: bool
) -> None:
    """What reaches it, weighed to the base rate, is no more than was asked for, and would be one step lower."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(count) < 0.3
    fraud[:2] = True, False
    risk = np.clip(rng.beta(2, 5, count) + 0.3 * fraud, 0, 1)
    if coarse:
        risk = np.round(risk, 1)
    most = dict(zip(("block", "review", "step_up"), sorted(1000 * share for share in shares), strict=True))
    capacity = Capacity(events_day=1000, base_rate=base_rate, alerts_day=most)  # type: ignore[arg-type]  # by name
    chosen = choose(risk, fraud, capacity)
    below = 0
    for outcome in (Outcome.STEP_UP, Outcome.REVIEW, Outcome.BLOCK):

        def too_many(level: int, most: float = most[outcome]) -> bool:
            return expected(risk, fraud, capacity, level / LEVELS).alerts_day > most

        level = round(chosen.get(outcome, 2) * LEVELS)
        if level > LEVELS:
            assert below == LEVELS or too_many(LEVELS)
            continue
        assert below < level
        assert not too_many(level)
        assert level - 1 == below or too_many(level - 1)
        below = level


def test_events_stand_for_their_share_of_the_day() -> None:
    """By hand: 2 of 4 frauds and 1 of 8 others reach it; a day has 1,000 events, 1 % of them frauds."""
    fraud = np.array([True] * 4 + [False] * 8)
    risk = np.array([0.9, 0.8, 0.2, 0.1, 0.7] + [0.3] * 7)
    capacity = Capacity(events_day=1000, base_rate=0.01, alerts_day={Outcome.REVIEW: 200})
    found = expected(risk, fraud, capacity, 0.7)
    assert found.alerts_day == pytest.approx(10 / 2 + 990 / 8)
    assert found.recall == 0.5
    assert found.precision == pytest.approx(5 / found.alerts_day)
    assert found.harmless == 1
    assert choose(risk, fraud, capacity) == {Outcome.REVIEW: 0.3001}


def test_an_outcome_that_cannot_stay_within_its_alerts_is_left_out() -> None:
    """Half of the harmless events have the highest risk: nothing is blocked, rather than half of the day."""
    fraud = np.array([True, False, False, True])
    capacity = Capacity(events_day=100, base_rate=0.01, alerts_day={Outcome.REVIEW: 60, Outcome.BLOCK: 10})
    assert choose(np.array([1.0, 1.0, 0.2, 0.2]), fraud, capacity) == {Outcome.REVIEW: 0.2001}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alerts_day": {"step_up": 10, "block": 10}}, "fewer alerts"),
        ({"alerts_day": {"approve": 10}}, "nobody is alerted"),
        ({"base_rate": 0}, "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=message):
        Capacity.model_validate(CAPACITY | change)


def test_one_kind_of_truth_alone_is_refused() -> None:
    """There is nothing to weigh."""
    with pytest.raises(BadInput, match="frauds and others"):
        choose(np.array([0.1, 0.2]), np.array([True, True]), Capacity.model_validate(CAPACITY))


@pytest.mark.parametrize(
    "model",
    [
        "model:\n  transaction: {step_up: 0.1, review: 0.5}\n  message: {block: 0.9}\n",
        "# old\nmodel:\n  transaction:\n    step_up: 0.1\n\n    by_typology:\n      mule: {}\n  message: {}\n",
        "model: {transaction: {}, message: {}}\n",
    ],
)
def test_all_else_of_a_policy_stays(model: str) -> None:
    """However its thresholds were written; comments before and behind them too."""
    before, _, rest = SHIPPED.read_text().partition("# The least risk")
    behind = rest[rest.index("# When the model gave") :]
    found = {Outcome.STEP_UP: 0.25, Outcome.REVIEW: 0.5}
    text = with_thresholds(f"{before}{model}\n{behind}", {"transaction": found, "message": {}}, ["new", "lines"])
    written = "  transaction: {step_up: 0.2500, review: 0.5000}\n  message: {}\n"
    assert text == f"{before}# new\n# lines\nmodel:\n{written}\n{behind}"
    policy = Policy.from_source(text, "made")
    assert all(dict(of)[Outcome.STEP_UP] == 0.25 for of in policy.thresholds["transaction"].values())


def test_the_command_writes_a_policy_that_is_accepted(
    tuned: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """End to end: `fraudguard rules check` reads it, and the table says what is expected by dev and by test."""
    content = yaml.safe_load(Path("finetune/thresholds.yaml").read_text())
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content | {"precision": "fp32"}))
    out, threads = tmp_path / "policy.yaml", torch.get_num_threads()
    options = ["--dataset", str(labelled), "--release", str(tuned), "--out", str(out)]
    thresholds.main([str(tmp_path / "tiny.yaml"), *options])
    torch.set_num_threads(threads)
    policy = load_policy(out)
    for event_type in ("transaction", "message"):
        assert policy.thresholds[event_type] != load_policy(SHIPPED).thresholds[event_type]  # type: ignore[index]
    assert policy.floors == load_policy(SHIPPED).floors
    assert "# Chosen for tiny@0.0.1+fp32" in out.read_text()
    printed = capsys.readouterr().out
    assert "| transaction | step_up |" in printed
    assert "| dev |" in printed
    assert "| test |" in printed
    environment = os.environ | {"FRAUDGUARD_POLICY_PATH": str(out)}
    check = [sys.executable, "-m", "fraudguard", "rules", "check"]
    done = subprocess.run(check, env=environment, capture_output=True, text=True, check=True)
    assert f"policy {policy.version}" in done.stdout
    out.write_text(out.read_text().replace("review:", "revue:", 1))
    refused = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "revue: unknown field (did you mean 'review'?)" in refused.stderr
