"""Cases as people see them: the queue, and one case with its alerts. What people do with them is in its bases."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, not_, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions.case_files import Folders
from fraudguard.decisions.case_types import (
    REASON_CHARACTERS_MAX,
    Alert,
    Case,
    CaseFilter,
    CaseOrder,
    CaseState,
    Disposition,
    Inbox,
    alert_of,
    case_of,
)
from fraudguard.decisions.connection import PLAN_BY_VALUE, current_tenant, transaction
from fraudguard.decisions.pages import Page, check_limit, decode_cursor, encode_cursor
from fraudguard.decisions.tables import ALERT_DISPOSITIONS, ALERTS, CASES
from fraudguard.decisions.unmerging import Unmerging
from fraudguard.decisions.verdicts import UNDO, Verdicts, label_id
from fraudguard.errors import BadInput, NotFound

__all__ = [
    "ALERTS_SHOWN_MAX",
    "REASON_CHARACTERS_MAX",
    "UNDO",
    "Alert",
    "Case",
    "CaseBook",
    "CaseFilter",
    "CaseState",
    "Disposition",
    "Inbox",
    "label_id",
]

ALERTS_SHOWN_MAX = 1_000


class CaseBook(Verdicts, Folders, Unmerging):
    """Every method raises StoreUnavailable when PostgreSQL does not answer."""

    async def list_cases(self, wanted: CaseFilter, limit: int = 50, cursor: str | None = None) -> Page[Case]:
        """A page of the queue in the order that is asked for; of closed cases, those closed last. Raises BadInput.

        A case whose priority changes while someone pages may show twice or not at all; the queue is read from its top.
        """
        query = listing(wanted, check_limit(limit) + 1, cursor)
        async with transaction(self._engine) as connection:
            await connection.execute(PLAN_BY_VALUE)
            rows = (await connection.execute(query)).all()
        shown = [case_of(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(tuple(shown), None)
        last = rows[limit - 1]
        return Page(tuple(shown), encode_cursor(getattr(last, _order(wanted)[0]), last.case_id))

    async def get_case(self, case_id: str) -> tuple[Case, tuple[Alert, ...]]:
        """The case and its newest ALERTS_SHOWN_MAX alerts, in the account's order; then those merged into it.

        Raises NotFound.
        """
        async with transaction(self._engine) as connection:
            row = (await connection.execute(select(CASES).where(CASES.c.case_id == case_id))).one_or_none()
            if row is None:
                raise NotFound(f"no case {case_id!r}")
            alerts = await _alerts(connection, case_id)
        return case_of(row), alerts


# The column that each order goes by, its type, and whether the greatest comes first.
_ORDERS: Final[dict[CaseOrder, tuple[str, type, bool]]] = {
    "priority": ("priority", float, True),
    "loss": ("expected_loss", float, True),
    "due": ("due_at", datetime, False),
    "newest": ("opened_at", datetime, True),
}


def _order(wanted: CaseFilter) -> tuple[str, type, bool]:
    if wanted.state == "closed" or wanted.review == "waiting":
        return "closed_at", datetime, True
    return _ORDERS[wanted.order]


def listing(wanted: CaseFilter, rows: int, cursor: str | None) -> Select[Any]:
    """The query of one page. Raises BadInput."""
    c = CASES.c
    query, (name, kind, descending) = _chosen(wanted), _order(wanted)
    column: ColumnElement[Any] = c[name]
    if cursor is not None:
        key, case_id = decode_cursor(cursor, kind, str)
        beyond = (column <= key, column < key) if descending else (column >= key, column > key)
        query = query.where(beyond[0], or_(beyond[1], and_(column == key, c.case_id > case_id)))
    return query.order_by(column.desc() if descending else column, c.case_id).limit(rows)


def _chosen(wanted: CaseFilter) -> Select[Any]:
    """The cases that a filter asks for, in no order."""
    c = CASES.c
    query = select(CASES)
    for column, value in (
        (c.state, None if wanted.state == "unclosed" else wanted.state),
        (c.account_id, wanted.account_id),
        (c.typology, wanted.typology),
        (c.outcome, wanted.outcome),
        (c.inbox, wanted.inbox),
        (c.review, wanted.review),
        (c.tenant, current_tenant() or wanted.tenant),
    ):
        if value is not None:
            query = query.where(column == str(value))
    # As text, for a parameter would not let PostgreSQL use the partial indexes.
    if wanted.state == "closed":
        query = query.where(text("state = 'closed'"))
    elif wanted.state is not None or wanted.mine is not None:
        query = query.where(text("state <> 'closed'"))
    if wanted.review == "waiting":
        query = query.where(text("review = 'waiting'"))
    if wanted.escalated is not None:
        query = query.where(c.escalated_at.is_not(None) if wanted.escalated else c.escalated_at.is_(None))
    if wanted.at is None and (wanted.mine is not None or wanted.snoozed is not None or wanted.free is not None):
        raise BadInput("must be given with `mine`, `snoozed` and `free`", path="at")
    if wanted.loss_min is not None:
        query = query.where(c.expected_loss >= wanted.loss_min)
    if wanted.free is not None:
        free = and_(or_(c.claimed_until.is_(None), c.claimed_until <= wanted.at), c.assigned_to.is_(None))
        query = query.where(free if wanted.free else not_(free))
    if wanted.mine is not None:
        claimed = and_(c.claimed_by == wanted.mine, c.claimed_until > wanted.at)
        query = query.where(or_(claimed, c.assigned_to == wanted.mine))
    if wanted.snoozed is not None:
        sleeps = c.snoozed_until > wanted.at
        query = query.where(sleeps if wanted.snoozed else or_(c.snoozed_until.is_(None), c.snoozed_until <= wanted.at))
    return query


async def _alerts(connection: AsyncConnection, case_id: str) -> tuple[Alert, ...]:
    a, own, merged = ALERTS.c, ALERT_DISPOSITIONS.c, CASES.c.merged_into == case_id
    newest = (
        select(own.disposition).where(own.decision_id == a.decision_id).order_by(own.id.desc()).limit(1)
    ).scalar_subquery()
    found = await connection.execute(
        select(ALERTS, newest.label("disposition"))
        .where(a.case_id.in_(select(CASES.c.case_id).where(or_(CASES.c.case_id == case_id, merged))))
        .order_by(a.case_id != case_id, a.sequence.desc())
        .limit(ALERTS_SHOWN_MAX)
    )
    alerts = [alert_of(alert) for alert in found]
    return tuple(sorted(alerts, key=lambda alert: (alert.case_id != case_id, alert.account_id, alert.sequence)))
