"""Shapes of casework: which cases to list, one case whole, and what people do to cases."""

from typing import Annotated, Literal

from pydantic import Field

from fraudguard.api import examples
from fraudguard.api.schemas import CaseBrief, EventType, Verdict, _Body, _PageQuery
from fraudguard.decisions.audit import Detail
from fraudguard.decisions.case_bulk import CASES_A_BULK_MAX
from fraudguard.decisions.case_files import FILE_NAME_CHARACTERS_MAX, NOTE_CHARACTERS_MAX
from fraudguard.decisions.case_types import REASON_CHARACTERS_MAX, CaseState, CaseStates, Disposition, Review
from fraudguard.decisions.casework import NAME_CHARACTERS_MAX
from fraudguard.decisions.verdicts import ALERTS_A_DEED_MAX
from fraudguard.domain import Outcome, Time, Typology

CaseId = Annotated[str, Field(min_length=1, max_length=64)]
Version = Annotated[int, Field(ge=1, lt=2**63, description="The version that you saw")]
Reason = Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX)]


class CaseQuery(_PageQuery):
    """Which cases to list."""

    state: CaseStates | None = Field(
        default=None, description="`unclosed`: open or investigating", examples=["unclosed"]
    )
    account_id: str | None = Field(default=None, max_length=128, examples=[examples.ACCOUNT_ID])
    typology: Typology | None = None
    outcome: Outcome | None = Field(default=None, examples=["block"])
    inbox: str | None = Field(
        default=None,
        max_length=NAME_CHARACTERS_MAX,
        description="A team, a typology like `scam`, or `unscored`",
    )
    mine: bool = Field(default=False, description="Only those that you have claimed, or that are assigned to you")
    snoozed: bool | None = Field(default=None, description="Only those asleep, or only those awake")
    escalated: bool | None = None
    review: Review | None = Field(default=None, description="`waiting`: those that a second person should look at")
    tenant: str | None = Field(default=None, max_length=64, description="Empty: the house's own")


class InboxLine(_Body):
    """How many unclosed cases lie in an inbox. waiting: nobody's. mine: claimed by you, or assigned to you."""

    name: str
    awake: int
    waiting: int
    mine: int
    escalated: int
    snoozed: int


class Inboxes(_Body):
    """Every inbox that is not empty, by name."""

    items: tuple[InboxLine, ...]


class LabelLine(_Body):
    """What somebody said an event was: an analyst, a chargeback, the customer, the police."""

    source: Literal["chargeback", "analyst", "customer", "law_enforcement", "other"]
    verdict: Literal["fraud", "legitimate"]
    typology: Typology | None
    event_time: Time


class AlertLine(_Body):
    """An alert of a case with the line that the model read, masked.

    case_id, account_id: of a case merged into this one where they are others. disposition: its own, where it was judged
    by itself. labels: of its event, oldest first.
    """

    decision_id: str
    case_id: str
    account_id: str
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
    disposition: Disposition | None
    labels: tuple[LabelLine, ...]


class MissedLine(_Body):
    """An event that never alerted and that somebody called fraud since; the line is what the model read, masked."""

    decision_id: str
    event_id: str
    account_id: str
    event_type: EventType
    event_time: Time
    outcome: Outcome
    risk: float | None
    line: str
    labels: tuple[LabelLine, ...]


class NoteLine(_Body):
    """What somebody wrote."""

    body: str
    actor: str
    at: Time


class FileLine(_Body):
    """A file; sha256 is its name in paths."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    actor: str
    at: Time


class LinkLine(_Body):
    """Another case that has to do with this one."""

    case_id: str
    account_id: str
    state: CaseState
    reason: str
    actor: str
    at: Time


class CaseDetail(_Body):
    """A case, its alerts in the account's order, what people put into it, and the cases merged into it.

    missed: of the same accounts, the newest 100.
    """

    case: CaseBrief
    alerts: tuple[AlertLine, ...]
    missed: tuple[MissedLine, ...]
    notes: tuple[NoteLine, ...]
    files: tuple[FileLine, ...]
    links: tuple[LinkLine, ...]
    merged: tuple[str, ...]


class DeedLine(_Body):
    """What somebody did, from the audit trail."""

    at: Time
    actor: str
    action: str = Field(examples=["case.claim"])
    detail: Detail


class CaseHistory(_Body):
    """Deeds, oldest first."""

    items: tuple[DeedLine, ...]


class Assignment(_Body):
    """Whose work a case is, and in which inbox it lies; null: anybody's, and the inbox of its typology."""

    assignee: Name | None = None
    team: Name | None = None


class Escalation(_Body):
    """Why the leads should look."""

    reason: Reason


class Snooze(_Body):
    """Until when it sleeps; null wakes it."""

    until: Time | None = None


class NewNote(_Body):
    """What to write down."""

    body: Annotated[str, Field(min_length=1, max_length=NOTE_CHARACTERS_MAX)]


class NewLink(_Body):
    """Another case, and what it has to do with this one."""

    case_id: CaseId
    reason: Reason


class Merge(_Body):
    """Another open case whose alerts shall be judged with this one, and its version."""

    case_id: CaseId
    version: Version
    reason: Reason


class Unmerge(_Body):
    """A case that was merged into this one and shall be judged by itself."""

    case_id: CaseId
    reason: Reason


class AlertVerdict(Verdict):
    """What some of a case's alerts are, each by itself."""

    decision_ids: Annotated[tuple[CaseId, ...], Field(min_length=1, max_length=ALERTS_A_DEED_MAX)]


class FileQuery(_Body):
    """What a file is called."""

    name: str = Field(min_length=1, max_length=FILE_NAME_CHARACTERS_MAX, examples=["transfer.txt"])


class SeenCase(_Body):
    """A case as it was seen."""

    case_id: CaseId
    version: Version


class _Bulk(_Body):
    cases: Annotated[tuple[SeenCase, ...], Field(min_length=1, max_length=CASES_A_BULK_MAX)]


class BulkClaim(_Bulk):
    """Take, or give back."""

    action: Literal["claim", "release"]


class BulkAssign(_Bulk, Assignment):
    """Hand out."""

    action: Literal["assign"]


class BulkEscalate(_Bulk, Escalation):
    """Ask the leads to look."""

    action: Literal["escalate"]


class BulkSnooze(_Bulk, Snooze):
    """Put to sleep, or wake."""

    action: Literal["snooze"]


class BulkDispose(_Bulk, Verdict):
    """Close with the same verdict."""

    action: Literal["dispose"]


Bulk = Annotated[BulkClaim | BulkAssign | BulkEscalate | BulkSnooze | BulkDispose, Field(discriminator="action")]


class BulkLine(_Body):
    """What became of one case: its new version, or the code and detail of why it is as it was."""

    case_id: str
    version: int | None
    code: Literal["overtaken", "conflict", "not_found", "bad_field"] | None
    detail: str | None


class BulkDone(_Body):
    """One line a case, as sent."""

    done: int
    items: tuple[BulkLine, ...]
