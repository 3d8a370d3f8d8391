"""Decisions out: one, a filtered page, and the unmasked text behind one. Read from the store alone."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from fraudguard.api import examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import ProblemError
from fraudguard.api.schemas import DecisionPage, RawText
from fraudguard.api.services import Use
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.listing import DecisionFilter
from fraudguard.decisions.pages import PAGE_MAX
from fraudguard.domain import Decision, Outcome, Role, Time, Typology
from fraudguard.events.masking import open_sealed

router = APIRouter(tags=["decisions"])

READERS = Serves(Role.SERVICE, Role.ANALYST, Role.RISK_MANAGER)

_DECISION_ID = Path(max_length=64, examples=[examples.DECISION_ID])
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, examples=[50])]
Cursor = Annotated[str | None, Query(max_length=512, description="`next` of the page before")]


@router.get(
    "/v1/decisions",
    summary="Decisions, newest event first",
    responses=shown({"items": [examples.DECISION], "next": None}) | refusals(401, 403, 422, 503),
    dependencies=[Depends(READERS)],
)
async def list_decisions(
    services: Use,
    account_id: Annotated[str | None, Query(max_length=128, examples=[examples.ACCOUNT_ID])] = None,
    outcome: Annotated[Outcome | None, Query(examples=["block"])] = None,
    event_type: Annotated[Literal["transaction", "message"] | None, Query(examples=["transaction"])] = None,
    typology: Typology | None = None,
    min_risk: Annotated[float | None, Query(ge=0, le=1)] = None,
    reason: Annotated[str | None, Query(max_length=100, description="A reason code")] = None,
    time_from: Annotated[
        Time | None, Query(alias="from", description="Event time, inclusive", examples=["2026-11-21T00:00:00Z"])
    ] = None,
    time_to: Annotated[
        Time | None, Query(alias="to", description="Event time, exclusive", examples=["2026-11-22T00:00:00Z"])
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DecisionPage:
    """Filters are joined by "and". Keep them the same from page to page."""
    wanted = DecisionFilter(
        account_id=account_id,
        outcome=outcome,
        event_type=event_type,
        typology=typology,
        risk_min=min_risk,
        event_time_from=time_from,
        event_time_to=time_to,
        reason=reason,
    )
    page = await services.repository.list_decisions(wanted, limit, cursor)
    return DecisionPage(items=tuple(record.decision for record in page.items), next=page.next)


@router.get(
    "/v1/decisions/{decision_id}",
    summary="One decision",
    responses=shown(examples.DECISION) | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def get_decision(services: Use, decision_id: Annotated[str, _DECISION_ID]) -> Decision:
    """As it was published; it never changes."""
    return (await services.repository.record(decision_id)).decision


@router.get(
    "/v1/decisions/{decision_id}/text",
    summary="The unmasked text of a decision's event",
    responses=shown({"decision_id": examples.DECISION_ID, "text": "货款"}) | refusals(401, 403, 404, 422, 503),
)
async def raw_text(
    services: Use,
    caller: Annotated[Principal, Depends(Serves())],
    decision_id: Annotated[str, _DECISION_ID],
    reason: Annotated[
        str, Query(min_length=1, max_length=500, description="Why it is read", examples=["complaint 4711"])
    ],
) -> RawText:
    """Admins only; who read it and why is written to the audit trail first. 404 where unmasked text is not kept."""
    key = services.settings.raw_text_key
    if key is None:
        hint = "the operator decides that with FRAUDGUARD_RAW_TEXT_KEY"
        raise ProblemError(404, "text_not_kept", "unmasked text is not kept here", hint=hint)
    sealed = await services.repository.raw_text_of(decision_id, actor(caller), reason, services.clock.now())
    return RawText(decision_id=decision_id, text=open_sealed(sealed, key.get_secret_value()))
