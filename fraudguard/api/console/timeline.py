"""The account's conversation and money in one column, each line with the risk after it and what it changed.

Pure: stored decisions in, rows out. A line moved the score when the risk rose by MOVED or more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from fraudguard.decisions.casebook import Disposition
from fraudguard.domain import STOPPED, DecisionRecord, Message, Transaction

MOVED: Final = 0.10
KNOWN_LINES: Final = ("device_id", "ip", "country")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the timeline. change: of the risk against the scored line before; None for the first.

    alert: the case is about it; found: what it was found to be, judged by itself. held: a payment that the decision
    stopped. news: what of it the account never had: `payee`, `payer`, `device`, `country`.
    """

    record: DecisionRecord
    change: float | None
    alert: bool
    found: Disposition | None
    held: bool
    news: tuple[str, ...]

    @property
    def moved(self) -> bool:
        """Whether a walk through the evidence stops here."""
        return self.held or (self.change is not None and self.change >= MOVED)

    @property
    def message(self) -> Message | None:
        """What was said, if the line is a message."""
        return self.record.event if isinstance(self.record.event, Message) else None

    @property
    def payment(self) -> Transaction | None:
        """The movement of money, if the line is one."""
        return self.record.event if isinstance(self.record.event, Transaction) else None


def rows(
    records: Sequence[DecisionRecord], alerts: Mapping[str, Disposition | None], before: float | None = None
) -> list[Row]:
    """The rows of decisions in sequence. alerts: the case's, by decision id. before: the risk before the first."""
    found = []
    for record in records:
        risk = record.decision.risk
        change = risk - before if risk is not None and before is not None else None
        event = record.event
        held = isinstance(event, Transaction) and event.direction == "debit" and record.decision.outcome in STOPPED
        decision_id = record.decision.decision_id
        found.append(Row(record, change, decision_id in alerts, alerts.get(decision_id), held, _news(record)))
        before = before if risk is None else risk
    return found


def _news(record: DecisionRecord) -> tuple[str, ...]:
    event, f = record.event, record.features
    if not isinstance(event, Transaction):
        return ()
    side = "payee" if event.direction == "debit" else "payer"
    news = ((side, "is_new_counterparty"), ("device", "is_new_device"), ("country", "is_new_country"))
    return tuple(name for name, feature in news if f.get(feature) is True)


def held_money(found: Sequence[Row]) -> dict[str, Decimal]:
    """What is held, by currency."""
    sums: dict[str, Decimal] = {}
    for row in found:
        if row.held and row.alert and row.payment:
            sums[row.payment.currency] = sums.get(row.payment.currency, Decimal()) + row.payment.amount
    return sums
