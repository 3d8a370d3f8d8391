"""Challenger against champion, over the decisions that both scored: what would have differed, and who was right.

Knows stored decisions, shadow scores and labels; scores nothing and decides nothing.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fraudguard.config import Settings
from fraudguard.decisions.models import Model, Shadowed
from fraudguard.decisions.repository import Repository
from fraudguard.domain import Outcome
from fraudguard.evaluation import average_precision


@dataclass(slots=True)
class Side:
    """One model's risks and alerts (outcomes review and block), where the truth is known."""

    risks: "array[float]" = field(default_factory=lambda: array("d"))
    alerts: int = 0
    frauds_alerted: int = 0

    def add(self, risk: float, outcome: Outcome, fraud: bool) -> None:
        """Count one decision."""
        self.risks.append(risk)
        if outcome.severity >= Outcome.REVIEW.severity:
            self.alerts += 1
            self.frauds_alerted += fraud

    @property
    def precision(self) -> float | None:
        """The share of frauds among alerts; None without alerts."""
        return self.frauds_alerted / self.alerts if self.alerts else None


@dataclass(slots=True)
class Comparison:
    """The count so far. champions: decisions by the model that scored them. truth: 1 for fraud, of the settled ones."""

    champions: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[Outcome, Outcome]] = field(default_factory=Counter)  # (as decided, by the challenger)
    first: datetime | None = None
    last: datetime | None = None
    moved: float = 0.0
    truth: "array[int]" = field(default_factory=lambda: array("b"))
    champion: Side = field(default_factory=Side)
    challenger: Side = field(default_factory=Side)

    def add(self, row: Shadowed, settled: datetime) -> None:
        """Count one decision. settled: of events before it, no label is legitimate; of later ones nothing is known."""
        self.champions[row.model] += 1
        self.outcomes[row.outcome, row.shadow_outcome] += 1
        self.first = min(self.first or row.event_time, row.event_time)
        self.last = max(self.last or row.event_time, row.event_time)
        self.moved += abs(row.shadow_risk - row.risk)
        if row.event_time < settled:
            fraud = row.verdict == "fraud"
            self.truth.append(fraud)
            self.champion.add(row.risk, row.outcome, fraud)
            self.challenger.add(row.shadow_risk, row.shadow_outcome, fraud)

    @property
    def decisions(self) -> int:
        """How many."""
        return self.outcomes.total()

    @property
    def frauds(self) -> int:
        """How many of the settled ones."""
        return sum(self.truth)

    def average_precision(self, side: Side) -> float | None:
        """Of one side's risks over the settled decisions; None without a fraud."""
        return average_precision(self.truth, side.risks) if self.frauds else None


async def compare(settings: Settings, repository: Repository, model: Model) -> Comparison:
    """Read what the model scored in shadow; as in a backtest labels count once the label delay of an event is over."""
    found = Comparison()
    newest = await repository.newest_event_time()
    if newest is None:
        return found
    settled = newest - timedelta(days=settings.label_delay_days)
    async with aclosing(repository.models.shadowed(model.digest)) as rows:
        async for row in rows:
            found.add(row, settled)
    return found


def render(model: Model, found: Comparison) -> str:
    """The comparison for people."""
    if not found.decisions:
        return f"{model.id} has scored no decision in shadow"
    champions = ", ".join(f"{name} ({count:,})" for name, count in found.champions.most_common())
    differing = {pair: count for pair, count in found.outcomes.items() if pair[0] is not pair[1]}
    total = sum(differing.values())
    lines = [
        f"{model.id} beside {champions}",
        f"{found.decisions:,} decisions, events from {found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M};"
        f" the risk moves by {found.moved / found.decisions:.3f} on average",
        f"outcomes that would differ: {total:,} ({total / found.decisions:.2%})",
        *(f"    {a} -> {b}: {n:,}" for (a, b), n in sorted(differing.items(), key=lambda item: -item[1])),
        f"{len(found.truth):,} are older than the label delay, {found.frauds:,} of them fraud",
    ]
    if found.truth:
        sides: Sequence[Side] = (found.champion, found.challenger)
        lines += [
            f"{'':24}{'champion':>12}{'challenger':>12}",
            _row("average precision", [found.average_precision(side) for side in sides]),
            f"{'alerts':24}" + "".join(f"{side.alerts:>12,}" for side in sides),
            f"{'frauds among them':24}" + "".join(f"{side.frauds_alerted:>12,}" for side in sides),
            _row("precision of alerts", [side.precision for side in sides]),
        ]
    return "\n".join(lines)


def _row(name: str, values: Sequence[float | None]) -> str:
    return f"{name:24}" + "".join(f"{'-' if value is None else f'{value:.4f}':>12}" for value in values)
