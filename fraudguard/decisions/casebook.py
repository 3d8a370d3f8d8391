"""Cases as people work them: list, read, dispose. How alerts open and join a case is in cases.py."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import uuid5

from sqlalchemy import Row, and_, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions import audit, outbox
from fraudguard.decisions.cases import NAMESPACE
from fraudguard.decisions.connection import transaction
from fraudguard.decisions.pages import Page, check_limit, decode_cursor, encode_cursor
from fraudguard.decisions.tables import ALERTS, CASES, DISPOSITIONS
from fraudguard.domain import Label, Outcome, Typology
from fraudguard.errors import BadInput, Conflict, NotFound

ALERTS_SHOWN_MAX = 1_000
REASON_CHARACTERS_MAX = 2_000

CaseState = Literal["open", "investigating", "closed"]


class Disposition(StrEnum):
    """What a person found a case to be."""

    CONFIRMED_FRAUD = "confirmed_fraud"
    SUSPICIOUS = "suspicious"
    FALSE_POSITIVE = "false_positive"


@dataclass(frozen=True, slots=True)
class Case:
    """One account's unclosed or closed case.

    expected_loss: in the base currency, risk times amount over the alerted payments. top_risk and typology: of the
    riskiest alert, None while every alert is degraded. alerts: how many.
    """

    case_id: str
    account_id: str
    state: CaseState
    opened_at: datetime
    updated_at: datetime
    expected_loss: float
    top_risk: float | None
    typology: Typology | None
    outcome: Outcome
    alerts: int
    claimed_by: str | None
    disposition: Disposition | None
    reason: str | None
    closed_at: datetime | None
    closed_by: str | None


@dataclass(frozen=True, slots=True)
class Alert:
    """A decision that belongs to a case. amount_base: in the base currency, None for a message."""

    decision_id: str
    event_id: str
    event_type: Literal["transaction", "message"]
    event_time: datetime
    sequence: int
    outcome: Outcome
    risk: float | None
    typology: Typology | None
    amount_base: float | None


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """What a listed case must be; None asks nothing."""

    state: CaseState | None = None
    account_id: str | None = None
    typology: Typology | None = None
    outcome: Outcome | None = None


class CaseBook:
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: see connection.open_engine."""
        self._engine = engine

    async def list_cases(self, wanted: CaseFilter, limit: int = 50, cursor: str | None = None) -> Page[Case]:
        """A page of the queue: greatest expected loss first, then the oldest. Raises BadInput.

        A case whose loss grows while someone pages may show twice or not at all; the queue is read from its top.
        """
        c = CASES.c
        query = select(CASES)
        for column, value in (
            (c.state, wanted.state),
            (c.account_id, wanted.account_id),
            (c.typology, wanted.typology),
            (c.outcome, wanted.outcome),
        ):
            if value is not None:
                query = query.where(column == str(value))
        if cursor is not None:
            loss, opened_at, case_id = decode_cursor(cursor, float, datetime, str)
            after = tuple_(c.opened_at, c.case_id) > tuple_(opened_at, case_id)
            query = query.where(or_(c.expected_loss < loss, and_(c.expected_loss == loss, after)))
        query = query.order_by(c.expected_loss.desc(), c.opened_at, c.case_id).limit(check_limit(limit) + 1)
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        shown = [_case(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(tuple(shown), None)
        last = shown[-1]
        return Page(tuple(shown), encode_cursor(last.expected_loss, last.opened_at, last.case_id))

    async def get_case(self, case_id: str) -> tuple[Case, tuple[Alert, ...]]:
        """The case and its newest ALERTS_SHOWN_MAX alerts, in the account's order. Raises NotFound."""
        async with transaction(self._engine) as connection:
            row = (await connection.execute(select(CASES).where(CASES.c.case_id == case_id))).one_or_none()
            if row is None:
                raise NotFound(f"no case {case_id!r}")
            found = await connection.execute(
                select(ALERTS)
                .where(ALERTS.c.case_id == case_id)
                .order_by(ALERTS.c.sequence.desc())
                .limit(ALERTS_SHOWN_MAX)
            )
            alerts = tuple(_alert(alert) for alert in reversed(found.all()))
        return _case(row), alerts

    async def dispose(self, case_id: str, disposition: Disposition, reason: str, actor: str, at: datetime) -> Case:
        """Close a case with a verdict; queue a label for each of its alerts unless it stays merely suspicious.

        One transaction with the audit row. Raises NotFound, Conflict if it is closed already, BadInput for the reason.
        """
        reason = _checked(reason)
        async with transaction(self._engine) as connection:
            locked = select(CASES).where(CASES.c.case_id == case_id).with_for_update()
            row = (await connection.execute(locked)).one_or_none()
            if row is None:
                raise NotFound(f"no case {case_id!r}")
            if row.state == "closed":
                raise Conflict(f"case {case_id} was closed as {row.disposition} by {row.closed_by}", path="case_id")
            closed = await connection.execute(
                update(CASES)
                .where(CASES.c.case_id == case_id)
                .values(
                    state="closed",
                    updated_at=at,
                    disposition=disposition.value,
                    reason=reason,
                    closed_at=at,
                    closed_by=actor,
                )
                .returning(CASES)
            )
            case = _case(closed.one())
            await connection.execute(
                insert(DISPOSITIONS).values(
                    case_id=case_id, disposition=disposition.value, reason=reason, actor=actor, at=at
                )
            )
            labels = await _labels(connection, case, disposition, at)
            await outbox.put(connection, labels, at)
            detail = {"disposition": disposition.value, "reason": reason, "labels": str(len(labels))}
            await audit.append(connection, at, actor, "case.dispose", case_id, detail)
        return case


async def _labels(connection: AsyncConnection, case: Case, disposition: Disposition, at: datetime) -> list[Label]:
    if disposition is Disposition.SUSPICIOUS:
        return []
    fraud = disposition is Disposition.CONFIRMED_FRAUD
    found = await connection.execute(
        select(ALERTS.c.event_id).where(ALERTS.c.case_id == case.case_id).order_by(ALERTS.c.sequence)
    )
    return [
        Label(
            type="label",
            version=1,
            event_id=label_id(case.case_id, target),
            account_id=case.account_id,
            event_time=at,
            target_event_id=target,
            source="analyst",
            verdict="fraud" if fraud else "legitimate",
            typology=case.typology if fraud else None,
        )
        for target in found.scalars()
    ]


def label_id(case_id: str, target_event_id: str) -> str:
    """The id of the label that a case's disposition sends of an event: publishing twice sends the same event."""
    return f"analyst-{uuid5(NAMESPACE, f'{case_id}:{target_event_id}')}"


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not 1 <= len(reason) <= REASON_CHARACTERS_MAX or "\x00" in reason:
        raise BadInput(f"must be 1 to {REASON_CHARACTERS_MAX} characters", path="reason", hint="say why, in a sentence")
    return reason


def _case(row: Row[Any]) -> Case:
    values = dict(row._mapping)
    return Case(
        **values
        | {
            "typology": row.typology and Typology(row.typology),
            "outcome": Outcome(row.outcome),
            "disposition": row.disposition and Disposition(row.disposition),
        }
    )


def _alert(row: Row[Any]) -> Alert:
    return Alert(
        decision_id=row.decision_id,
        event_id=row.event_id,
        event_type=row.event_type,
        event_time=row.event_time,
        sequence=row.sequence,
        outcome=Outcome(row.outcome),
        risk=row.risk,
        typology=row.typology and Typology(row.typology),
        amount_base=row.amount_base,
    )
