"""A backtest for the page that asked: a child process whose lines become progress and figures, and that ends with it.

Knows the child's lines (fraudguard/backtest_process.py); the backtest itself knows this room from above, so it is
called as a program and not imported.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, cast

from pydantic import BaseModel, ConfigDict

from fraudguard.config import Settings
from fraudguard.domain import Outcome

WALL_S_MAX: Final = 600.0
BEAT_S: Final = 1.0
LINE_BYTES_MAX: Final = 4 << 20
_PACKAGE_ROOT: Final = Path(__file__).parents[3]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_Line):
    """Decisions by what they turned out to be, with the money that would have left. open: not known yet.

    precision: share of fraud among those whose truth is known; None where none is.
    """

    fraud: int
    legitimate: int
    open: int
    fraud_money: float
    legitimate_money: float
    all: int
    precision: float | None


class Day(_Line):
    """A day's decisions; of them what was stopped as decided, and what would have been."""

    day: date
    total: Side
    before: Side
    after: Side


class Example(_Line):
    """One decision."""

    decision_id: str
    account_id: str
    event_time: datetime
    money: float
    risk: float | None
    outcome: Outcome
    verdict: str | None


class Change(_Line):
    """Decisions that would have come out otherwise."""

    before: Outcome
    after: Outcome
    side: Side
    examples: tuple[Example, ...]


class RuleDay(_Line):
    """A day's hits of the rule."""

    day: date
    side: Side


class OfRule(_Line):
    """What the rule itself hit. alone: where no other live rule did."""

    hits: Side
    alone: Side
    days: tuple[RuleDay, ...]
    examples: tuple[Example, ...]


class Backtest(_Line):
    """The whole set with the rule as it was written, over decisions of the past."""

    decisions: int
    first: datetime | None
    last: datetime | None
    span_days: float
    alerts_before: int
    alerts_after: int
    days: tuple[Day, ...]
    changes: tuple[Change, ...]
    rule: OfRule | None
    missing: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How many decisions were taken so far."""

    taken: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no backtest."""

    reason: str


async def backtest(
    settings: Settings, files: Mapping[str, str], rule: str
) -> AsyncGenerator[Progress | Backtest | Failed, None]:
    """Progress, then how it ended. Closing this ends the child at once."""
    path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fraudguard.backtest_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        env={**os.environ, **settings.environment(), "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
    )
    orders, lines = cast(asyncio.StreamWriter, child.stdin), cast(asyncio.StreamReader, child.stdout)
    try:
        async with asyncio.timeout(WALL_S_MAX):
            orders.write(json.dumps({"files": dict(files), "rule": rule}).encode())
            with suppress(ConnectionError):  # it is gone already: what it said is read below
                await orders.drain()
            orders.close()
            async for progress in _steps(lines):
                yield progress
                if not isinstance(progress, Progress):
                    return
            yield Failed(f"the backtest ended with {await child.wait()}; the log has more")
    except TimeoutError:
        yield Failed(f"it took longer than {WALL_S_MAX / 60:.0f} minutes")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _steps(lines: asyncio.StreamReader) -> AsyncGenerator[Progress | Backtest | Failed, None]:
    """What the child says; at least every BEAT_S something, by which a reader who left is noticed."""
    taken = 0
    reading = asyncio.ensure_future(lines.readline())
    try:
        while True:
            done, _ = await asyncio.wait({reading}, timeout=BEAT_S)
            if not done:
                yield Progress(taken)
                continue
            line = reading.result()
            if not line:
                return
            said = json.loads(line)
            if "taken" in said:
                taken = said["taken"]
                yield Progress(taken)
                reading = asyncio.ensure_future(lines.readline())
            elif "backtest" in said:
                yield Backtest.model_validate(said["backtest"])
                return
            else:
                yield Failed(said["problem"])
                return
    finally:
        reading.cancel()


HEIGHT: Final = 44.0
STEP: Final = 14.0


@dataclass(frozen=True, slots=True)
class Column:
    """A day of one chart. was: the height as decided; now: with the rule, in colour. count and money: of `now`."""

    day: date
    x: float
    was: float
    now: float
    count: int
    count_was: int
    money: float


@dataclass(frozen=True, slots=True)
class Chart:
    """`caught`, `missed`, `wrong` or `unknown`, a day a column. Sums over all days; money: None where unknown."""

    name: str
    columns: tuple[Column, ...]
    width: float
    count: int
    count_was: int
    money: float | None
    money_was: float | None


def charts(found: Backtest) -> list[Chart]:
    """What was fraud and caught, fraud and missed, harmless and stopped, stopped and not known yet: by day."""
    if not found.days:
        return []
    first, last = found.days[0].day, found.days[-1].day
    days = {one.day: one for one in found.days}
    span = [first + timedelta(n) for n in range((last - first).days + 1)]
    return [_chart(name, span, days) for name in ("caught", "missed", "wrong", "unknown")]


def _chart(name: str, span: list[date], days: Mapping[date, Day]) -> Chart:
    counts = [_counted(name, days[day]) if day in days else (0, 0, 0.0, 0.0) for day in span]
    top = max((max(was, now) for was, now, _, _ in counts), default=0) or 1
    columns = tuple(
        Column(day, n * STEP, was / top * HEIGHT, now / top * HEIGHT, now, was, money)
        for n, (day, (was, now, _, money)) in enumerate(zip(span, counts, strict=True))
    )
    known = name != "unknown"
    return Chart(
        name,
        columns,
        len(span) * STEP,
        sum(now for _, now, _, _ in counts),
        sum(was for was, _, _, _ in counts),
        sum(money for _, _, _, money in counts) if known else None,
        sum(money for _, _, money, _ in counts) if known else None,
    )


def _counted(name: str, day: Day) -> tuple[int, int, float, float]:
    """As decided, with the rule; the money of both."""
    total, was, now = day.total, day.before, day.after
    match name:
        case "caught":
            return was.fraud, now.fraud, was.fraud_money, now.fraud_money
        case "missed":
            left = (total.fraud_money - was.fraud_money, total.fraud_money - now.fraud_money)
            return total.fraud - was.fraud, total.fraud - now.fraud, *left
        case "wrong":
            return was.legitimate, now.legitimate, was.legitimate_money, now.legitimate_money
    return was.open, now.open, 0.0, 0.0
