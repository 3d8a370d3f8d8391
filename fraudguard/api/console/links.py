"""The counterparties, devices and addresses of a case's money, and what the whole store knows of each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Literal

from fraudguard.api.console.timeline import Row
from fraudguard.decisions.connection import current_tenant
from fraudguard.decisions.repository import Repository
from fraudguard.tenants import scoped, unscoped

DAYS: Final = 30
LINKS_MAX: Final = 6
Kind = Literal["counterparty", "merchant", "device", "ip"]
_FIELDS: Final[tuple[tuple[Kind, str], ...]] = (
    ("counterparty", "counterparty_id"),
    ("merchant", "merchant_id"),
    ("device", "device_id"),
    ("ip", "ip"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """own: the payments with it that the page shows; transactions, frauds: of all accounts of the tenant, this one too,
    in DAYS days.

    lists: the watch lists it is on; none are told to a tenant's people.
    """

    kind: Kind
    entity_id: str
    own: int
    transactions: int
    frauds: int
    lists: tuple[str, ...]


async def links(repository: Repository, tenant: str, rows: Sequence[Row], now: datetime) -> list[Link]:
    """Of the alerted payments, or of all that the page shows where only talk is alerted; LINKS_MAX at most."""
    own = Counter(key for row in rows for key in _entities(row))
    alerted = dict.fromkeys(key for row in rows if row.alert for key in _entities(row))
    chosen = list(alerted or own)[:LINKS_MAX]
    if not chosen:
        return []
    today = (now.astimezone(UTC).date() - date(1970, 1, 1)).days
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for count in await repository.entity_counts([(k, scoped(tenant, v)) for k, v in chosen], today - DAYS):
        key = count.kind, unscoped(count.entity_id)[1]
        transactions, frauds = totals.get(key, (0, 0))
        totals[key] = transactions + count.transactions, frauds + count.frauds
    found = []
    for kind, value in chosen:
        entries = [] if current_tenant() else await repository.lists.containing(value)
        names = tuple(e.list for e in entries if e.expires_at is None or e.expires_at > now)
        found.append(Link(kind, value, own[kind, value], *totals.get((kind, value), (0, 0)), names))
    return found


def _entities(row: Row) -> Iterator[tuple[Kind, str]]:
    for kind, field in _FIELDS:
        value = getattr(row.payment, field, None)
        if value:
            yield kind, value
