"""The counterparties, devices and addresses of a case's money: what the store knows of each, and who shares them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from fraudguard.api.console.timeline import Row
from fraudguard.decisions.casebook import Case
from fraudguard.decisions.casefile import Sharing
from fraudguard.decisions.cases import SHARED
from fraudguard.decisions.connection import current_tenant
from fraudguard.decisions.repository import Repository
from fraudguard.tenants import scoped, unscoped

DAYS: Final = 30
LINKS_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Link:
    """own: the payments with it that the page shows; transactions, frauds: of all accounts of the tenant, this one too,
    in DAYS days.

    lists: the watch lists it is on; none are told to a tenant's people. others: other accounts of the tenant whose
    alerted payments had it, the newest first.
    """

    kind: str
    entity_id: str
    own: int
    transactions: int
    frauds: int
    lists: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def field(self) -> str:
        """The field of an event that has it, as conditions name it."""
        return SHARED[self.kind]


async def links(repository: Repository, case: Case, rows: Sequence[Row], now: datetime) -> list[Link]:
    """Of the alerted payments, or of all that the page shows where only talk is alerted; LINKS_MAX at most."""
    own = Counter(key for row in rows for key in _entities(row))
    alerted = dict.fromkeys(key for row in rows if row.alert for key in _entities(row))
    chosen = list(alerted or own)[:LINKS_MAX]
    if not chosen:
        return []
    today = (now.astimezone(UTC).date() - date(1970, 1, 1)).days
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for count in await repository.entity_counts([(k, scoped(case.tenant, v)) for k, v in chosen], today - DAYS):
        key = count.kind, unscoped(count.entity_id)[1]
        transactions, frauds = totals.get(key, (0, 0))
        totals[key] = transactions + count.transactions, frauds + count.frauds
    others = _by_entity(await repository.casefile.sharing(case.account_id, case.tenant, chosen))
    found = []
    for kind, value in chosen:
        entries = [] if current_tenant() else await repository.lists.containing(value)
        names = tuple(e.list for e in entries if e.expires_at is None or e.expires_at > now)
        counted, shared = totals.get((kind, value), (0, 0)), tuple(others.get((kind, value), ()))
        found.append(Link(kind, value, own[kind, value], *counted, names, shared))
    return found


async def shared_by(repository: Repository, case: Case) -> dict[str, tuple[str, ...]]:
    """Other accounts and the entities that their alerts share with this case's, the newest first."""
    keys = await repository.casefile.entities_of(case.case_id)
    found: dict[str, tuple[str, ...]] = {}
    for one in await repository.casefile.sharing(case.account_id, case.tenant, keys):
        found[one.account_id] = (*found.get(one.account_id, ()), one.entity_id)
    return found


def _by_entity(sharing: Sequence[Sharing]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for one in sharing:
        found.setdefault((one.kind, one.entity_id), []).append(one.account_id)
    return found


def _entities(row: Row) -> Iterator[tuple[str, str]]:
    for kind, field in SHARED.items():
        value = getattr(row.payment, field, None)
        if value:
            yield kind, value
