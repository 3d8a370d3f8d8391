"""Cases: the queue, one with its alerts, and its disposition, whose labels go to Kafka."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query

from fraudguard.api import examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.schemas import AlertLine, CaseBrief, CaseDetail, CasePage, CaseQuery, Verdict
from fraudguard.api.services import Use
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

router = APIRouter(tags=["cases"])

READERS = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR)
_CASE_ID = Path(max_length=64, examples=[examples.CASE_ID])
_VERDICT = {"disposition": examples.CLOSED["disposition"], "reason": examples.CLOSED["reason"]}


@router.get(
    "/v1/cases",
    summary="Cases, the greatest expected loss first",
    responses=shown({"items": [examples.CASE], "next": None}) | refusals(401, 403, 422, 503),
    dependencies=[Depends(READERS)],
)
async def list_cases(services: Use, query: Annotated[CaseQuery, Query()]) -> CasePage:
    """Filters are joined by "and". A case whose loss grows while you page may show twice, or not at all."""
    wanted = CaseFilter(state=query.state, account_id=query.account_id, typology=query.typology, outcome=query.outcome)
    page = await services.repository.cases.list_cases(wanted, query.limit, query.cursor)
    return CasePage(items=tuple(map(CaseBrief.model_validate, page.items)), next=page.next)


@router.get(
    "/v1/cases/{case_id}",
    summary="One case with its alerts",
    responses=shown({"case": examples.CASE, "alerts": [examples.ALERT]}) | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def get_case(services: Use, case_id: Annotated[str, _CASE_ID]) -> CaseDetail:
    """The newest 1,000 alerts in the account's order, each with its risk and the line that the model read."""
    case, alerts = await services.repository.cases.get_case(case_id)
    records = await services.repository.earlier([alert.event_id for alert in alerts])
    lines = [
        AlertLine(
            decision_id=alert.decision_id,
            event_id=alert.event_id,
            event_type=alert.event_type,
            event_time=alert.event_time,
            sequence=alert.sequence,
            outcome=alert.outcome,
            risk=alert.risk,
            typology=alert.typology,
            amount_base=alert.amount_base,
            reasons=records[alert.event_id].decision.reasons,
            line=records[alert.event_id].line,
        )
        for alert in alerts
    ]
    return CaseDetail(case=CaseBrief.model_validate(case), alerts=tuple(lines))


@router.post(
    "/v1/cases/{case_id}/dispose",
    summary="Close a case with a verdict",
    responses=shown(examples.CLOSED) | refusals(401, 403, 404, 409, 413, 422, 503),
)
async def dispose(
    services: Use,
    caller: Annotated[Principal, Depends(Serves(Role.ANALYST, Role.LEAD))],
    case_id: Annotated[str, _CASE_ID],
    verdict: Annotated[Verdict, Body(examples=[_VERDICT])],
) -> CaseBrief:
    """`confirmed_fraud` and `false_positive` label every alert; `suspicious` labels none. A second time: 409."""
    case = await services.repository.cases.dispose(
        case_id, verdict.disposition, verdict.reason, actor(caller), services.clock.now()
    )
    services.labels.wake()
    return CaseBrief.model_validate(case)
