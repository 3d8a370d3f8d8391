"""What a case is: its fields, its alerts, what it may be found to be, made of rows. Opens no connection."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from sqlalchemy import Row

from fraudguard.domain import Outcome, Typology
from fraudguard.errors import BadInput

REASON_CHARACTERS_MAX = 2_000

CaseState = Literal["open", "investigating", "closed"]
CaseStates = Literal[CaseState, "unclosed"]
Review = Literal["waiting", "agreed", "disagreed"]
CaseOrder = Literal["priority", "loss", "due", "newest"]


class Disposition(StrEnum):
    """What a person found a case to be."""

    CONFIRMED_FRAUD = "confirmed_fraud"
    SUSPICIOUS = "suspicious"
    FALSE_POSITIVE = "false_positive"


@dataclass(frozen=True, slots=True)
class Case:
    """One account's unclosed or closed case.

    expected_loss: in the base currency, risk times amount over the alerted payments. top_risk and typology: of the
    riskiest alert, None while every alert is degraded. alerts: how many. version: counts changes from 1. changed_by:
    who made the last one, "" for a new alert. claimed_by: whose it is until claimed_until; later anybody may take it.
    inbox: the team, else the typology, else `unscored`. priority: docs/cases.md. money_held: in the base currency, over
    alerted payments that were stopped. top_line: of the newest riskiest alert, masked. merged_into: the case that its
    alerts are judged with. review: by a second person, None outside of the sample. tenant: whose account's, "" for the
    house's own. step_up_at: when somebody last asked that the customer prove who they are.
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
    version: int
    changed_by: str
    claimed_until: datetime | None
    assigned_to: str | None
    team: str | None
    due_at: datetime
    snoozed_until: datetime | None
    escalated_at: datetime | None
    money_held: float
    top_line: str
    merged_into: str | None
    review: Review | None
    reviewed_by: str | None
    inbox: str
    priority: float
    tenant: str
    step_up_at: datetime | None

    def holder(self, at: datetime) -> str | None:
        """Who has claimed it, at that moment."""
        return self.claimed_by if self.claimed_until is not None and self.claimed_until > at else None


@dataclass(frozen=True, slots=True)
class Alert:
    """A decision that belongs to a case. amount_base: in the base currency, None for a message.

    disposition: its own, where a person gave it one; else its case's holds.
    """

    decision_id: str
    case_id: str
    event_id: str
    account_id: str
    event_type: Literal["transaction", "message"]
    event_time: datetime
    sequence: int
    outcome: Outcome
    risk: float | None
    typology: Typology | None
    amount_base: float | None
    tenant: str
    disposition: Disposition | None


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """What a listed case must be; None asks nothing. state `unclosed`: open or investigating.

    mine: whom it is claimed by or assigned to. snoozed: whether it sleeps. free: whether it is nobody's. All three ask
    for `at`, the moment they mean. loss_min: of the expected loss. order: of unclosed cases; the others come newest
    closed first. tenant: for the house's people; a tenant's see their own whatever it says.
    """

    state: CaseStates | None = None
    account_id: str | None = None
    typology: Typology | None = None
    outcome: Outcome | None = None
    inbox: str | None = None
    mine: str | None = None
    snoozed: bool | None = None
    escalated: bool | None = None
    review: Review | None = None
    loss_min: float | None = None
    free: bool | None = None
    order: CaseOrder = "priority"
    at: datetime | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Inbox:
    """How many unclosed cases lie in an inbox: awake ones by whose they are, and those asleep.

    waiting: nobody's. mine: claimed by or assigned to who asks; mine_snoozed: the same of those asleep. escalated: of
    the awake ones.
    """

    name: str
    awake: int
    waiting: int
    mine: int
    escalated: int
    snoozed: int
    mine_snoozed: int


def case_of(row: Row[Any]) -> Case:
    """A row of the table `cases`."""
    values = dict(row._mapping)
    values.pop("notified", None)
    return Case(
        **values
        | {
            "typology": row.typology and Typology(row.typology),
            "outcome": Outcome(row.outcome),
            "disposition": row.disposition and Disposition(row.disposition),
        }
    )


def alert_of(row: Row[Any]) -> Alert:
    """A row of the table `alerts` with `disposition`."""
    return Alert(
        **dict(row._mapping)
        | {
            "outcome": Outcome(row.outcome),
            "typology": row.typology and Typology(row.typology),
            "disposition": row.disposition and Disposition(row.disposition),
        }
    )


def checked(text: str, path: str = "reason", characters_max: int = REASON_CHARACTERS_MAX) -> str:
    """What a person wrote, without the space around it. Raises BadInput."""
    text = text.strip()
    if not 1 <= len(text) <= characters_max or "\x00" in text:
        raise BadInput(f"must be 1 to {characters_max} characters", path=path, hint="say it in a sentence")
    return text
