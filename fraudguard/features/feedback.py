"""How often an event's counterparty, device, network address and merchant turned out to be fraud, over all accounts
of its tenant.

Knows counters by entity and UTC day (`EntityCount`), not where they are stored. A label takes days to come, so at
event time t only whole days d are read with

    day(t) - delay - w <= d < day(t) - delay        w = 1, 7, 30 days; delay = label_delay_days >= 1

Days that are still being filled are never read, so workers that count at the same time cannot change a value.
"""

from collections.abc import Iterable
from typing import Final, Literal

from fraudguard.domain import EntityCount, Scalar, Screenable, Transaction
from fraudguard.features.facts import DAY_US, microseconds
from fraudguard.features.registry import FEEDBACK_KINDS, WINDOWS_DAYS
from fraudguard.tenants import scoped, tenant_of

Kind = Literal["counterparty", "device", "ip", "merchant"]
Key = tuple[Kind, str]

_NOTHING: Final[dict[str, Scalar]] = {
    f"{kind}_{name}_{days}d": None
    for kind in FEEDBACK_KINDS
    for days in WINDOWS_DAYS
    for name in ("fraud_share", "transactions")
}
_NAMES: Final = {
    kind: tuple((f"{kind}_fraud_share_{days}d", f"{kind}_transactions_{days}d", days) for days in WINDOWS_DAYS)
    for kind in FEEDBACK_KINDS
}


def day_of(event: Screenable) -> int:
    """The UTC day of an event, in days since 1970-01-01."""
    return microseconds(event.event_time) // DAY_US


def keys_of(event: Screenable) -> list[Key]:
    """The shared entities of an event, scoped by its tenant; none for a message."""
    if not isinstance(event, Transaction):
        return []
    tenant = tenant_of(event)
    entities: tuple[tuple[Kind, str | None], ...] = (
        ("counterparty", event.counterparty_id),
        ("device", event.device_id),
        ("ip", event.ip),
        ("merchant", event.merchant_id),
    )
    return [(kind, scoped(tenant, entity_id)) for kind, entity_id in entities if entity_id is not None]


class FeedbackView:
    """The stored counters a batch reads, overlaid with what the batch itself adds.

    Reads see the batch's own increments, so one large batch gives what many small ones give.
    """

    def __init__(self, rows: Iterable[EntityCount], label_delay_days: int) -> None:
        """rows: stored totals of every key of the batch's events, over all days they read."""
        self._delay = label_delay_days
        self._days: dict[Key, dict[int, list[int]]] = {}
        for row in rows:
            self._add(self._days, (row.kind, row.entity_id), row.day, row.transactions, row.frauds)
        self._added: dict[Key, dict[int, list[int]]] = {}

    @staticmethod
    def _add(days: dict[Key, dict[int, list[int]]], key: Key, day: int, transactions: int, frauds: int) -> None:
        count = days.setdefault(key, {}).setdefault(day, [0, 0])
        count[0] += transactions
        count[1] += frauds

    def shares(self, event: Screenable) -> dict[str, Scalar]:
        """The feedback features of an event; missing for entities it does not have."""
        features = dict(_NOTHING)
        newest = day_of(event) - self._delay - 1
        for key in keys_of(event):
            aged = [
                (newest - day, transactions, frauds)
                for day, (transactions, frauds) in self._days.get(key, {}).items()
                if day <= newest
            ]
            for share, count, days in _NAMES[key[0]]:
                total = sum(transactions for age, transactions, _ in aged if age < days)
                features[count] = total
                features[share] = sum(frauds for age, _, frauds in aged if age < days) / total if total else None
        return features

    def count(self, event: Screenable) -> None:
        """Count a transaction with each of its entities on its own day; a message changes nothing."""
        self._change(event, 1, 0)

    def mark(self, event: Screenable, delta: int) -> None:
        """Count (+1) or withdraw (-1) a confirmed fraud with each entity of a transaction, on the transaction's day."""
        self._change(event, 0, delta)

    def _change(self, event: Screenable, transactions: int, frauds: int) -> None:
        for key in keys_of(event):
            for days in (self._days, self._added):
                self._add(days, key, day_of(event), transactions, frauds)

    def increments(self) -> list[EntityCount]:
        """What was counted and marked since construction, one per entity and day, ordered by key; no zeros."""
        return [
            EntityCount(kind, entity_id, day, transactions, frauds)
            for (kind, entity_id), days in sorted(self._added.items())
            for day, (transactions, frauds) in sorted(days.items())
            if transactions or frauds
        ]
