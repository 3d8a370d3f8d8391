"""The statements of one batch's transaction, one a table, each over whole arrays (the fastest write measured).

Every array is sorted by key and the tables come in one order, so that two workers cannot deadlock. Knows SQL; opens no
connection and commits nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions.records import dump_record
from fraudguard.domain import DecisionRecord, EntityCount, Label
from fraudguard.errors import StateConflict
from fraudguard.tenants import tenant_of, unscoped

# The years whose months are partitions; migrations/versions/0001_initial.py says the same to PostgreSQL.
FIRST_YEAR, LAST_YEAR = 2010, 2049
_SEPARATOR = "\x1f"  # between reason codes: an array of arrays cannot be unnested by row


@dataclass(frozen=True, slots=True)
class StoredState:
    """An account's state: version counts its writes from 1 (0: not stored yet); body is the features room's."""

    version: int
    body: bytes


_ACTIVATION = text("SELECT rules_activation_held()")  # migrations/versions/0009_tenants.py says what it waits for

# One statement inserts and updates: a row in the way whose version is not the one that was read stays as it is. It also
# asks for the activation, before it touches a row: a statement of its own for that was a tenth of a small commit.
_STATES = text("""
WITH rules AS MATERIALIZED (SELECT rules_activation_held() AS activation)
INSERT INTO account_state AS s (account_id, version, body, tenant)
SELECT n.account_id, n.version, n.body, n.tenant
FROM rules, unnest(CAST(:accounts AS text[]), CAST(:versions AS bigint[]), CAST(:bodies AS bytea[]),
                   CAST(:tenants AS text[]))
     AS n (account_id, version, body, tenant)
WHERE rules.activation = :activation
ON CONFLICT (account_id) DO UPDATE SET version = excluded.version, body = excluded.body
WHERE s.version = excluded.version - 1
""")

_EVENT_IDS = text("""
INSERT INTO event_ids (event_id, account_id, sequence, event_time, decision_id, tenant)
SELECT * FROM unnest(CAST(:events AS text[]), CAST(:accounts AS text[]), CAST(:sequences AS bigint[]),
                     CAST(:times AS timestamptz[]), CAST(:decisions AS text[]), CAST(:tenants AS text[]))
""")

_DECISIONS = text("""
INSERT INTO decisions (event_time, decision_id, event_id, account_id, sequence, event_type, outcome, risk, typology,
                       reasons, degraded, decided_at, body, sealed_text, tenant)
SELECT time, decision_id, event_id, account_id, sequence, event_type, outcome, risk, typology,
       string_to_array(reasons, :separator), degraded, decided_at, CAST(body AS json), sealed, tenant
FROM unnest(CAST(:times AS timestamptz[]), CAST(:decisions AS text[]), CAST(:events AS text[]),
            CAST(:accounts AS text[]), CAST(:sequences AS bigint[]), CAST(:types AS text[]), CAST(:outcomes AS text[]),
            CAST(:risks AS double precision[]), CAST(:typologies AS text[]), CAST(:reasons AS text[]),
            CAST(:degraded AS boolean[]), CAST(:decided AS timestamptz[]), CAST(:bodies AS text[]),
            CAST(:sealed AS bytea[]), CAST(:tenants AS text[]))
     AS d (time, decision_id, event_id, account_id, sequence, event_type, outcome, risk, typology, reasons, degraded,
           decided_at, body, sealed, tenant)
""")

_LABELS = text("""
INSERT INTO labels (event_id, account_id, event_time, target_event_id, source, verdict, typology, tenant)
SELECT * FROM unnest(CAST(:events AS text[]), CAST(:accounts AS text[]), CAST(:times AS timestamptz[]),
                     CAST(:targets AS text[]), CAST(:sources AS text[]), CAST(:verdicts AS text[]),
                     CAST(:typologies AS text[]), CAST(:tenants AS text[]))
""")

_COUNTS = text("""
INSERT INTO entity_counts AS c (kind, entity_id, day, transactions, frauds, tenant)
SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:entities AS text[]), CAST(:days AS integer[]),
                     CAST(:transactions AS bigint[]), CAST(:frauds AS bigint[]), CAST(:tenants AS text[]))
ON CONFLICT (kind, entity_id, day) DO UPDATE
SET transactions = c.transactions + excluded.transactions, frauds = c.frauds + excluded.frauds
""")


async def write_states(connection: AsyncConnection, states: Mapping[str, StoredState], activation: int) -> None:
    """Hold off activations of rules until the transaction ends; store each body under its read version + 1.

    states: by account, scoped. Comes first in the transaction. Raises StateConflict if the head is another activation,
    or any account has moved on.
    """
    if not states:
        await _check_activation(connection, activation)
        return
    accounts = sorted(states)
    written = await connection.execute(
        _STATES,
        {
            "accounts": accounts,
            "versions": [states[account].version + 1 for account in accounts],
            "bodies": [states[account].body for account in accounts],
            "tenants": [unscoped(account)[0] for account in accounts],
            "activation": activation,
        },
    )
    if written.rowcount != len(accounts):
        await _check_activation(connection, activation)
        raise StateConflict(f"{len(accounts) - written.rowcount} account states were written by another worker")


async def _check_activation(connection: AsyncConnection, expected: int) -> None:
    head = await connection.scalar(_ACTIVATION)
    if head != expected:
        raise StateConflict(f"rules of activation {expected} decided the batch, but the head is activation {head}")


async def write_decisions(connection: AsyncConnection, records: Sequence[DecisionRecord]) -> None:
    """Claim the event ids (a unique violation if one is taken), then store the decisions."""
    if not records:
        return
    ordered = sorted(records, key=lambda record: (record.decision.event_id, record.decision.tenant))
    decisions = [record.decision for record in ordered]
    keys = {
        "events": [d.event_id for d in decisions],
        "accounts": [d.account_id for d in decisions],
        "sequences": [d.sequence for d in decisions],
        "times": [record.event.event_time for record in ordered],
        "decisions": [d.decision_id for d in decisions],
        "tenants": [d.tenant for d in decisions],
    }
    await connection.execute(_EVENT_IDS, keys)
    await connection.execute(
        _DECISIONS,
        keys
        | {
            "types": [d.event_type for d in decisions],
            "outcomes": [d.outcome.value for d in decisions],
            "risks": [d.risk for d in decisions],
            "typologies": [d.typology and d.typology.value for d in decisions],
            "reasons": [_SEPARATOR.join(d.reasons) for d in decisions],
            "separator": _SEPARATOR,
            "degraded": [d.degraded for d in decisions],
            "decided": [d.decided_at for d in decisions],
            "bodies": [dump_record(record) for record in ordered],
            "sealed": [record.sealed_text for record in ordered],
        },
    )


async def write_labels(connection: AsyncConnection, labels: Sequence[Label]) -> None:
    """Store labels; a unique violation if one of their event ids is taken."""
    if not labels:
        return
    ordered = sorted(labels, key=lambda label: (label.event_id, tenant_of(label)))
    await connection.execute(
        _LABELS,
        {
            "events": [label.event_id for label in ordered],
            "accounts": [label.account_id for label in ordered],
            "times": [label.event_time for label in ordered],
            "targets": [label.target_event_id for label in ordered],
            "sources": [label.source for label in ordered],
            "verdicts": [label.verdict for label in ordered],
            "typologies": [label.typology and label.typology.value for label in ordered],
            "tenants": [tenant_of(label) for label in ordered],
        },
    )


async def add_counts(connection: AsyncConnection, counts: Sequence[EntityCount]) -> None:
    """Add the increments: commutative, so unguarded; last in the transaction, for these rows are the hot ones."""
    totals: dict[tuple[str, str, int], tuple[int, int]] = {}
    for count in counts:
        key = (count.kind, count.entity_id, count.day)
        transactions, frauds = totals.get(key, (0, 0))
        totals[key] = (transactions + count.transactions, frauds + count.frauds)
    if not totals:
        return
    keys = sorted(totals)
    await connection.execute(
        _COUNTS,
        {
            "kinds": [kind for kind, _, _ in keys],
            "entities": [entity for _, entity, _ in keys],
            "days": [day for _, _, day in keys],
            "transactions": [totals[key][0] for key in keys],
            "frauds": [totals[key][1] for key in keys],
            "tenants": [unscoped(entity)[0] for _, entity, _ in keys],
        },
    )


def months_of(times: Sequence[datetime], *, ahead: bool) -> set[date]:
    """The first days of the months (UTC) that need a partition; ahead: and of each month after one of them."""
    months = {date(time.year, time.month, 1) for time in times}
    if ahead:
        months |= {date(m.year + m.month // 12, m.month % 12 + 1, 1) for m in months if m.year <= LAST_YEAR}
    return {month for month in months if FIRST_YEAR <= month.year <= LAST_YEAR}
