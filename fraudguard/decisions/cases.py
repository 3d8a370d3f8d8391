"""Cases: what a person must look at, one unclosed case an account of a tenant. Later alerts of the account join it.

Knows how alerts open and join a case. Which decisions are alerts, and how soon one is due, is the policy's word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.domain import STOPPED, DecisionRecord, Outcome, Typology

# Names of case ids; a case is named after the decision that opened it, so that a repeated batch names the same case.
NAMESPACE = UUID("0b6c2c3e-7f0e-5a57-9d5b-3a0f6f0c9b42")

CHANNEL = "fraudguard_cases"  # what is sent on it: the id of a case that changed, with the transaction's commit
LINE_CHARACTERS_MAX = 200  # of a case's line; the whole one stands with its alert

# A new alert ends a snooze; it changes nothing of who has the case.
_JOIN = text("""
INSERT INTO cases AS c (case_id, account_id, state, opened_at, updated_at, expected_loss, top_risk, typology, outcome,
                        alerts, due_at, money_held, top_line, tenant)
SELECT case_id, account_id, 'open', opened_at, updated_at, loss, risk, typology, outcome, alerts, due_at, held, line,
       tenant
FROM unnest(CAST(:cases AS text[]), CAST(:accounts AS text[]), CAST(:opened AS timestamptz[]),
            CAST(:updated AS timestamptz[]), CAST(:losses AS double precision[]), CAST(:risks AS double precision[]),
            CAST(:typologies AS text[]), CAST(:outcomes AS text[]), CAST(:alerts AS integer[]),
            CAST(:dues AS timestamptz[]), CAST(:held AS double precision[]), CAST(:lines AS text[]),
            CAST(:tenants AS text[]))
     AS n (case_id, account_id, opened_at, updated_at, loss, risk, typology, outcome, alerts, due_at, held, line,
           tenant)
ON CONFLICT (account_id, tenant) WHERE state <> 'closed' DO UPDATE SET
    version = c.version + 1,
    changed_by = '',
    snoozed_until = NULL,
    due_at = least(c.due_at, excluded.due_at),
    money_held = c.money_held + excluded.money_held,
    top_line = CASE WHEN c.top_risk IS NULL OR excluded.top_risk >= c.top_risk THEN excluded.top_line
                    ELSE c.top_line END,
    updated_at = greatest(c.updated_at, excluded.updated_at),
    expected_loss = c.expected_loss + excluded.expected_loss,
    top_risk = greatest(c.top_risk, excluded.top_risk),
    typology = CASE WHEN excluded.top_risk > coalesce(c.top_risk, -1) THEN excluded.typology ELSE c.typology END,
    outcome = CASE WHEN array_position(CAST(:order AS text[]), excluded.outcome)
                      > array_position(CAST(:order AS text[]), c.outcome) THEN excluded.outcome ELSE c.outcome END,
    alerts = c.alerts + excluded.alerts
RETURNING tenant, account_id, case_id, pg_notify(:channel, case_id)
""")

_ALERTS = text("""
INSERT INTO alerts (decision_id, case_id, event_id, account_id, event_type, event_time, sequence, outcome, risk,
                    typology, amount_base, tenant)
SELECT * FROM unnest(CAST(:decisions AS text[]), CAST(:cases AS text[]), CAST(:events AS text[]),
                     CAST(:accounts AS text[]), CAST(:types AS text[]), CAST(:times AS timestamptz[]),
                     CAST(:sequences AS bigint[]), CAST(:outcomes AS text[]), CAST(:risks AS double precision[]),
                     CAST(:typologies AS text[]), CAST(:amounts AS double precision[]), CAST(:tenants AS text[]))
""")


@dataclass(slots=True)
class _Share:
    """What one batch adds to one account's case."""

    case_id: str
    opened_at: datetime
    updated_at: datetime
    expected_loss: float
    top_risk: float | None
    typology: Typology | None
    outcome: Outcome
    alerts: int
    due_at: datetime
    money_held: float
    top_line: str


def amount_base(record: DecisionRecord) -> float | None:
    """The payment's amount in the base currency; None for a message or an unknown rate."""
    amount = record.features.get("amount_base")
    return float(amount) if record.event.type == "transaction" and isinstance(amount, int | float) else None


def expected_loss(record: DecisionRecord) -> float:
    """Risk times amount in the base currency; a payment without a risk (degraded) counts in full."""
    risk = record.decision.risk
    return (1.0 if risk is None else risk) * (amount_base(record) or 0.0)


def _held(record: DecisionRecord) -> float:
    return (amount_base(record) or 0.0) if record.decision.outcome in STOPPED else 0.0


def _due(record: DecisionRecord, due: Mapping[Outcome, timedelta]) -> datetime:
    try:
        return record.decision.decided_at + due[record.decision.outcome]
    except OverflowError:  # the last day of the year 9999
        return record.decision.decided_at


def _share(alerts: Sequence[DecisionRecord], due: Mapping[Outcome, timedelta]) -> _Share:
    first = alerts[0].decision
    scored = [a.decision for a in alerts if a.decision.risk is not None]
    top = max(scored, key=lambda d: d.risk or 0.0, default=None)
    newest_first = [a for a in reversed(alerts) if top is None or a.decision.risk == top.risk]
    return _Share(
        case_id=str(uuid5(NAMESPACE, first.decision_id)),
        opened_at=first.decided_at,
        updated_at=max(a.decision.decided_at for a in alerts),
        expected_loss=sum(expected_loss(a) for a in alerts),
        top_risk=top.risk if top else None,
        typology=top.typology if top else None,
        outcome=max((a.decision.outcome for a in alerts), key=lambda outcome: outcome.severity),
        alerts=len(alerts),
        due_at=min(_due(a, due) for a in alerts),
        money_held=sum(_held(a) for a in alerts),
        top_line=newest_first[0].line[:LINE_CHARACTERS_MAX],
    )


async def join_cases(
    connection: AsyncConnection, alerts: Sequence[DecisionRecord], due: Mapping[Outcome, timedelta]
) -> None:
    """Open a case for each account without an unclosed one, or join it, in the caller's transaction.

    due: how long after it was decided an alert of each outcome should have been judged.
    """
    if not alerts:
        return
    by_account: dict[tuple[str, str], list[DecisionRecord]] = {}
    for alert in sorted(alerts, key=lambda a: (a.decision.account_id, a.decision.tenant, a.decision.sequence)):
        by_account.setdefault((alert.decision.account_id, alert.decision.tenant), []).append(alert)
    shares = {account: _share(own, due) for account, own in by_account.items()}
    rows = await connection.execute(
        _JOIN,
        {
            "cases": [s.case_id for s in shares.values()],
            "accounts": [account for account, _ in shares],
            "tenants": [tenant for _, tenant in shares],
            "opened": [s.opened_at for s in shares.values()],
            "updated": [s.updated_at for s in shares.values()],
            "losses": [s.expected_loss for s in shares.values()],
            "risks": [s.top_risk for s in shares.values()],
            "typologies": [s.typology and s.typology.value for s in shares.values()],
            "outcomes": [s.outcome.value for s in shares.values()],
            "alerts": [s.alerts for s in shares.values()],
            "dues": [s.due_at for s in shares.values()],
            "held": [s.money_held for s in shares.values()],
            "lines": [s.top_line for s in shares.values()],
            "order": [outcome.value for outcome in Outcome],
            "channel": CHANNEL,
        },
    )
    case_of = {(row.account_id, row.tenant): row.case_id for row in rows}
    decisions = [alert.decision for own in by_account.values() for alert in own]
    await connection.execute(
        _ALERTS,
        {
            "decisions": [d.decision_id for d in decisions],
            "cases": [case_of[d.account_id, d.tenant] for d in decisions],
            "events": [d.event_id for d in decisions],
            "accounts": [d.account_id for d in decisions],
            "types": [d.event_type for d in decisions],
            "times": [alert.event.event_time for own in by_account.values() for alert in own],
            "sequences": [d.sequence for d in decisions],
            "outcomes": [d.outcome.value for d in decisions],
            "risks": [d.risk for d in decisions],
            "typologies": [d.typology and d.typology.value for d in decisions],
            "amounts": [amount_base(alert) for own in by_account.values() for alert in own],
            "tenants": [d.tenant for d in decisions],
        },
    )
