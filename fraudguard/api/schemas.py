"""What is not a wire type of `domain`: queries, pages, cases, rules, receipts. Shapes only."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fraudguard.api import examples
from fraudguard.decisions.case_types import Review
from fraudguard.decisions.casebook import REASON_CHARACTERS_MAX, CaseState, Disposition
from fraudguard.decisions.pages import PAGE_MAX
from fraudguard.decisions.rulebook import NOTE_CHARACTERS_MAX
from fraudguard.decisions.watchlists import REASON_CHARACTERS_MAX as ENTRY_REASON_CHARACTERS_MAX
from fraudguard.domain import Decision, Entity, Id, Outcome, Severity, Time, Typology

EventType = Literal["transaction", "message"]
ENTRIES_MAX: Final = 10_000  # of a list, in one request


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
    tenant: str | None = Field(default=None, max_length=64, description="Empty: the house's own")


class TextQuery(_Query):
    """Why the text is read."""

    reason: str = Field(
        min_length=1, max_length=500, description="Goes to the audit trail", examples=["complaint 4711"]
    )


class TenantQuery(_Query):
    """Of two tenants' events with the same id, which one is meant."""

    tenant: str = Field(default="", max_length=64, description="Empty: the house's own; a tenant's keys mean theirs")


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
    """One account's case. expected_loss: risk times amount over its payments, in the base currency.

    version: as in the ETag; changed_by: who made it, "" for a new alert. claimed_by: until claimed_until. inbox: team,
    else typology, else `unscored`. due_at: when it should be closed. money_held: by stopped payments, in the base
    currency. top_line: of the newest riskiest alert, masked. merged_into: the case it is judged with. review: by a
    second person, null outside of the sample. tenant: whose, "" for the house's own.
    """

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
    version: int
    changed_by: str
    claimed_until: Time | None
    assigned_to: str | None
    team: str | None
    inbox: str
    due_at: Time
    snoozed_until: Time | None
    escalated_at: Time | None
    money_held: float
    top_line: str
    merged_into: str | None
    review: Review | None
    reviewed_by: str | None
    tenant: str


class CasePage(_Body):
    """Cases, the greatest priority first."""

    items: tuple[CaseBrief, ...]
    next: str | None = Field(description="The following page's `cursor`; null on the last page")


class Verdict(_Body):
    """What a person found a case to be, and why."""

    disposition: Disposition
    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]


class RuleBrief(_Body):
    """A rule as written. rollout: percent of the accounts for which it acts when live."""

    id: str
    version: int
    state: Literal["draft", "shadow", "live", "retired"]
    rollout: int
    outcome: Outcome
    reason: str
    severity: Severity
    owner: str
    description: str
    gaps: str
    when: str


class RulesInForce(_Body):
    """What every worker decides by. at, actor: when and by whom it was put in force."""

    release: int
    rules_version: str
    policy_version: str
    at: Time
    actor: str
    rules: tuple[RuleBrief, ...]


class RuleFiles(_Body):
    """A release's files by name, `policy.yaml` among them."""

    release: int
    files: dict[str, str]


Files = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\.ya?ml$")], str | None],
    Field(max_length=200, description="Changed files by name, whole; null removes one. The others stay as in force"),
]
Note = Annotated[str, Field(min_length=1, max_length=NOTE_CHARACTERS_MAX, description="Goes to the audit trail")]


class RuleChange(_Body):
    """Files to try."""

    files: Files


class RuleProposal(RuleChange):
    """Files to publish. base: the release they were edited from; another one in force is a conflict."""

    base: Annotated[int, Field(ge=0)]
    note: Note


class Checked(_Body):
    """What publishing would find. faults: each with file, line, column, a caret and a hint; empty when all is well."""

    faults: str
    notices: tuple[str, ...]
    diff: str


class ReviewLine(_Body):
    """What one person said of a release."""

    actor: str
    verdict: Literal["approve", "reject"]
    note: str
    at: Time


class ReleaseBrief(_Body):
    """A release. active: it decides now; activated_at: when it last began to, null if never."""

    number: int
    parent: int
    rules_version: str
    policy_version: str
    author: str
    via: Literal["files", "api"]
    note: str
    at: Time
    reviews: tuple[ReviewLine, ...]
    activated_at: Time | None
    active: bool


class ReleaseDetail(ReleaseBrief):
    """A release with what it changed in the one before, as a unified diff."""

    diff: str


class ReleasePage(_Body):
    """Releases, newest first."""

    items: tuple[ReleaseBrief, ...]
    next: str | None = Field(description="The following page's `cursor`; null on the last page")


class ReleaseQuery(_PageQuery):
    """Which releases to list."""


class Published(_Body):
    """A release that was entered. notices: what becomes of rules, for whoever approves it."""

    number: int
    active: bool
    notices: tuple[str, ...]


class Remark(_Body):
    """Why."""

    note: Note


class Approved(_Body):
    """active: the release decides now; otherwise more approvals are needed."""

    number: int
    active: bool


class Rollback(Remark):
    """to: an earlier release; left out: the one that was in force before."""

    to: Annotated[int, Field(ge=1)] | None = None


class ListBrief(_Body):
    """A watch list as the rules in force declare it. entries: how many are in force."""

    name: str
    kind: Literal["allow", "block"]
    entity: Entity
    owner: str
    description: str
    entries: int


class EntryLine(_Body):
    """A value on a list; owner: who put it there; expires_at: null for never."""

    list: str
    value: str
    reason: str
    owner: str
    source: str
    added_at: Time
    expires_at: Time | None


class EntryPage(_Body):
    """Entries by value."""

    items: tuple[EntryLine, ...]
    next: str | None = Field(description="The following page's `cursor`; null on the last page")


class EntryQuery(_PageQuery):
    """Which entries to list."""

    prefix: str | None = Field(default=None, max_length=128, description="What values begin with")


class NewEntry(_Body):
    """Why a value is on a list, where that comes from, and until when; null for good."""

    reason: Annotated[str, Field(min_length=1, max_length=ENTRY_REASON_CHARACTERS_MAX)]
    source: Annotated[str, Field(min_length=1, max_length=128)] = "api"
    expires_at: Time | None = None


class NewEntries(_Body):
    """Many at once: all of them, or none."""

    entries: Annotated[dict[Id, NewEntry], Field(min_length=1, max_length=ENTRIES_MAX)]


class Imported(_Body):
    """changed: those that were new or other than before."""

    entries: int
    changed: int


class RemovalQuery(_Query):
    """Why an entry goes."""

    reason: str = Field(min_length=1, max_length=500, description="Goes to the audit trail", examples=["cleared"])


class Alive(_Body):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Body):
    """Everything this process needs is there."""

    status: Literal["ready"] = "ready"
    parts: dict[str, Literal["ok"]]


class ModelStep(_Body):
    """What somebody did with a model. forced: although the gate refused it."""

    action: Literal["shadow", "retire", "promote", "rollback"]
    forced: bool
    actor: str
    note: str
    at: Time


class ModelLine(_Body):
    """A registered model. metrics: its metrics.json, null where it brings none; steps: oldest first."""

    id: str
    digest: str
    state: Literal["champion", "challenger", "former", "retired"]
    metrics: dict[str, Any] | None
    added_at: Time
    added_by: str
    steps: tuple[ModelStep, ...]


class Models(_Body):
    """All models. champion null: what FRAUDGUARD_MODEL names; challenger null: nobody is in shadow."""

    champion: str | None
    challenger: str | None
    models: tuple[ModelLine, ...]
