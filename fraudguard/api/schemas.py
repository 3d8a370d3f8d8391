"""What is not a wire type of `domain`: queries, pages, cases, rules, receipts. Shapes only."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fraudguard.api import examples
from fraudguard.decisions.casebook import REASON_CHARACTERS_MAX, CaseState, Disposition
from fraudguard.decisions.pages import PAGE_MAX
from fraudguard.domain import Decision, Id, Outcome, Time, Typology

EventType = Literal["transaction", "message"]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class _Query(BaseModel):
    """A misspelt filter is refused: ignored, it would quietly show everything."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _PageQuery(_Query):
    limit: int = Field(default=50, ge=1, le=PAGE_MAX)
    cursor: str | None = Field(default=None, max_length=512, description="`next` of the page before")


class ScreenQuery(_Query):
    """How long to wait."""

    deadline_ms: int | None = Field(
        default=None, ge=1, le=60_000, description="How long to wait; FRAUDGUARD_SCREEN_DEADLINE_MS by default"
    )


class DecisionQuery(_PageQuery):
    """Which decisions to list."""

    account_id: str | None = Field(default=None, max_length=128, examples=[examples.ACCOUNT_ID])
    outcome: Outcome | None = Field(default=None, examples=["block"])
    event_type: EventType | None = Field(default=None, examples=["transaction"])
    typology: Typology | None = None
    min_risk: float | None = Field(default=None, ge=0, le=1)
    reason: str | None = Field(default=None, max_length=100, description="A reason code")
    time_from: Time | None = Field(
        default=None, alias="from", description="Event time, inclusive", examples=["2026-11-21T00:00:00Z"]
    )
    time_to: Time | None = Field(
        default=None, alias="to", description="Event time, exclusive", examples=["2026-11-22T00:00:00Z"]
    )


class TextQuery(_Query):
    """Why the text is read."""

    reason: str = Field(
        min_length=1, max_length=500, description="Goes to the audit trail", examples=["complaint 4711"]
    )


class CaseQuery(_PageQuery):
    """Which cases to list."""

    state: CaseState | None = Field(default=None, examples=["open"])
    account_id: str | None = Field(default=None, max_length=128, examples=[examples.ACCOUNT_ID])
    typology: Typology | None = None
    outcome: Outcome | None = Field(default=None, examples=["block"])


class Accepted(_Body):
    """An event is on Kafka and will be decided."""

    event_id: Id
    status: Literal["accepted"] = "accepted"
    decision: str | None = Field(description="Where its decision will be; null for a label, which gets none")


class DecisionPage(_Body):
    """Decisions, newest event first."""

    items: tuple[Decision, ...]
    next: str | None = Field(description="The following page's `cursor`; null on the last page")


class RawText(_Body):
    """What the customer or counterparty really wrote."""

    decision_id: str
    text: str


class CaseBrief(_Body):
    """One account's case. expected_loss: risk times amount over its payments, in the base currency."""

    case_id: str
    account_id: str
    state: CaseState
    opened_at: Time
    updated_at: Time
    expected_loss: float
    top_risk: float | None
    typology: Typology | None
    outcome: Outcome
    alerts: int
    claimed_by: str | None
    disposition: Disposition | None
    reason: str | None
    closed_at: Time | None
    closed_by: str | None


class CasePage(_Body):
    """Cases, the greatest expected loss first."""

    items: tuple[CaseBrief, ...]
    next: str | None = Field(description="The following page's `cursor`; null on the last page")


class AlertLine(_Body):
    """An alert of a case with the line that the model read, masked."""

    decision_id: str
    event_id: str
    event_type: EventType
    event_time: Time
    sequence: int
    outcome: Outcome
    risk: float | None
    typology: Typology | None
    amount_base: float | None
    reasons: tuple[str, ...]
    line: str


class CaseDetail(_Body):
    """A case and its alerts in the account's order."""

    case: CaseBrief
    alerts: tuple[AlertLine, ...]


class Verdict(_Body):
    """What a person found a case to be, and why."""

    disposition: Disposition
    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]


class RuleBrief(_Body):
    """A rule as written."""

    id: str
    version: int
    state: Literal["live", "shadow"]
    outcome: Outcome
    reason: str
    owner: str
    description: str
    when: str


class RulesInForce(_Body):
    """The rules of the set that the newest decision was made with."""

    rules_version: str
    seen_at: Time = Field(description="When a decision was last seen to be made with this set")
    rules: tuple[RuleBrief, ...]


class Alive(_Body):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Body):
    """Everything this process needs is there."""

    status: Literal["ready"] = "ready"
    parts: dict[str, Literal["ok"]]
