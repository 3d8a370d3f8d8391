"""Decisions out: one, a filtered page, and the unmasked text behind one. Read from the store alone."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from fraudguard.api import examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import ProblemError
from fraudguard.api.schemas import DecisionPage, DecisionQuery, RawText, TextQuery
from fraudguard.api.services import Use
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.listing import DecisionFilter
from fraudguard.domain import Decision, Role
from fraudguard.events.masking import open_sealed

router = APIRouter(tags=["decisions"])

READERS = Serves(*Role)

_DECISION_ID = Path(max_length=64, examples=[examples.DECISION_ID])


@router.get(
    "/v1/decisions",
    summary="Decisions, newest event first",
    responses=shown({"items": [examples.DECISION], "next": None}) | refusals(401, 403, 422, 503),
    dependencies=[Depends(READERS)],
)
async def list_decisions(services: Use, query: Annotated[DecisionQuery, Query()]) -> DecisionPage:
    """Filters are joined by "and". Keep them the same from page to page."""
    wanted = DecisionFilter(
        account_id=query.account_id,
        outcome=query.outcome,
        event_type=query.event_type,
        typology=query.typology,
        risk_min=query.min_risk,
        event_time_from=query.time_from,
        event_time_to=query.time_to,
        reason=query.reason,
        tenant=query.tenant,
    )
    page = await services.repository.list_decisions(wanted, query.limit, query.cursor)
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
    caller: Annotated[Principal, Depends(Serves(Role.ANALYST, Role.LEAD))],
    decision_id: Annotated[str, _DECISION_ID],
    query: Annotated[TextQuery, Query()],
) -> RawText:
    """Who read it and why is written to the audit trail first. 404 where unmasked text is not kept."""
    key = services.settings.raw_text_key
    if key is None:
        hint = "the operator decides that with FRAUDGUARD_RAW_TEXT_KEY"
        raise ProblemError(404, "text_not_kept", "unmasked text is not kept here", hint=hint)
    sealed = await services.repository.raw_text_of(decision_id, actor(caller), query.reason, services.clock.now())
    return RawText(decision_id=decision_id, text=open_sealed(sealed, key.get_secret_value()))
