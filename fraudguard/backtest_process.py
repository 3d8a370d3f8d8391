"""A backtest in a process of its own, for whoever serves meanwhile: `python -m fraudguard.backtest_process`.

Reads {"files": {name: text}, "rule": id} as JSON on stdin and the settings from the environment; writes lines of JSON:
{"taken": n} as it goes, at the end {"backtest": ...} or {"problem": why not}. Holds a bound on memory and on time, so
that history of any length can cost no more than this process.
"""

import asyncio
import json
import os
import resource
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from fraudguard.backtest import Backtest, Past, RuleTally, Side, Source, run
from fraudguard.config import Settings
from fraudguard.errors import FraudguardError
from fraudguard.rulebook import POLICY_FILE, write_files

MEMORY_BYTES_MAX: Final = 4 << 30  # of addresses, most of which are never touched
CPU_S_MAX: Final = 600
TOLD_EVERY: Final = 500  # decisions
NICE: Final = 10  # whoever decides payments on this machine goes first


def summary(backtest: Backtest, rule: str) -> dict[str, Any]:
    """What is drawn of a backtest: the whole set's days, and this rule's hits."""
    tally = backtest.rules.get(rule)
    return {
        "decisions": backtest.total.all,
        "first": backtest.first and backtest.first.isoformat(),
        "last": backtest.last and backtest.last.isoformat(),
        "span_days": backtest.days,
        "alerts_before": backtest.alerts_before,
        "alerts_after": backtest.alerts_after,
        "days": [
            {"day": day.isoformat(), "total": _side(one.total), "before": _side(one.before), "after": _side(one.after)}
            for day, one in sorted(backtest.by_day.items())
        ],
        "changes": [
            {"before": old, "after": new, "side": _side(change.side)}
            | {"examples": [_example(past) for past, _ in change.examples]}
            for (old, new), change in sorted(backtest.changes.items(), key=lambda one: (-one[0][1].severity, one[0][0]))
        ],
        "rule": _tally(tally) if tally else None,
        "missing": dict(backtest.missing),
    }


def _side(side: Side) -> dict[str, Any]:
    return asdict(side) | {"all": side.all, "precision": side.precision}


def _tally(tally: RuleTally) -> dict[str, Any]:
    return {
        "hits": _side(tally.hits),
        "alone": _side(tally.alone),
        "days": [{"day": day.isoformat(), "side": _side(side)} for day, side in sorted(tally.days.items())],
        "examples": [_example(past) for past in tally.examples],
    }


def _example(past: Past) -> dict[str, Any]:
    return {
        "decision_id": past.decision_id,
        "account_id": past.account_id,
        "event_time": past.event_time.isoformat(),
        "money": past.money,
        "risk": past.score and past.score.risk,
        "outcome": past.outcome,
        "verdict": past.verdict,
    }


def _tell(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class _Teller:
    """Says how many decisions were taken, every TOLD_EVERY."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self) -> None:
        self.taken += 1
        if self.taken % TOLD_EVERY == 0:
            _tell(taken=self.taken)


def main() -> int:
    """The child."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    os.nice(NICE)
    order = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="fraudguard-backtest-") as folder:
        directory = Path(folder)
        write_files(directory, directory / POLICY_FILE, order["files"])
        settings = Settings(rules_dir=directory, policy_path=directory / POLICY_FILE)
        try:
            backtest = asyncio.run(run(settings, Source(), None, _Teller()))
        except FraudguardError as error:
            _tell(problem=str(error))
            return 1
        except MemoryError:
            _tell(problem=f"it needs more than {MEMORY_BYTES_MAX >> 30} GiB: run `fraudguard rules backtest` instead")
            return 1
    _tell(backtest=summary(backtest, order["rule"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
