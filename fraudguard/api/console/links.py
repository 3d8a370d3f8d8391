"""The counterparties, devices and addresses of a case's money, and what the whole store knows of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Literal

from fraudguard.api.console.timeline import Row
from fraudguard.decisions.repository import Repository

DAYS: Final = 30
LINKS_MAX: Final = 6
Kind = Literal["counterparty", "device", "ip"]
_FIELDS: Final[tuple[tuple[Kind, str], ...]] = (
    ("counterparty", "counterparty_id"),
    ("device", "device_id"),
    ("ip", "ip"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """own: this account's payments with it that the page shows; transactions, frauds: of all accounts in DAYS days.

    lists: the watch lists it is on.
    """

    kind: Kind
    entity_id: str
    own: int
    transactions: int
    frauds: int
    lists: tuple[str, ...]

    @property
    def others(self) -> int:
        """Transactions of other accounts; of this one only those that the page shows are known."""
        return max(0, self.transactions - self.own)


async def links(repository: Repository, rows: Sequence[Row], now: datetime) -> list[Link]:
    """Of the alerted payments, or of all that the page shows where only talk is alerted; LINKS_MAX at most."""
    alerted = [row.payment for row in rows if row.payment and row.alert]
    money = alerted or [row.payment for row in rows if row.payment]
    own: dict[tuple[Kind, str], int] = {}
    for payment in money:
        for kind, field in _FIELDS:
            if value := getattr(payment, field):
                own[kind, value] = own.get((kind, value), 0) + 1
    chosen = list(own)[:LINKS_MAX]
    if not chosen:
        return []
    today = (now.astimezone(UTC).date() - date(1970, 1, 1)).days
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for count in await repository.entity_counts(chosen, today - DAYS):
        transactions, frauds = totals.get((count.kind, count.entity_id), (0, 0))
        totals[count.kind, count.entity_id] = transactions + count.transactions, frauds + count.frauds
    found = []
    for kind, value in chosen:
        entries = await repository.lists.containing(value)
        names = tuple(e.list for e in entries if e.expires_at is None or e.expires_at > now)
        found.append(Link(kind, value, own[kind, value], *totals.get((kind, value), (0, 0)), names))
    return found
