"""Cases: the queue, one with everything in it, what was done with it, and the same deed on many."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from fraudguard.api import case_examples, examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.case_schemas import (
    AlertLine,
    Bulk,
    BulkAssign,
    BulkDispose,
    BulkDone,
    BulkEscalate,
    BulkLine,
    BulkSnooze,
    CaseDetail,
    CaseHistory,
    CaseQuery,
    DeedLine,
    FileLine,
    Inboxes,
    InboxLine,
    LabelLine,
    LinkLine,
    MissedLine,
    NoteLine,
)
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.schemas import CaseBrief, CasePage
from fraudguard.api.services import Services, Use
from fraudguard.api.versions import etag
from fraudguard.decisions.case_bulk import Refusal, each
from fraudguard.decisions.case_types import Alert, Case, CaseFilter
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role
from fraudguard.errors import BadInput, Conflict, NotFound, Overtaken, StateConflict
from fraudguard.tenants import scoped

router = APIRouter(tags=["cases"])

READERS = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR)
Reader = Annotated[Principal, Depends(READERS)]
_CASE_ID = Path(max_length=64, examples=[examples.CASE_ID])


@router.get(
    "/v1/cases",
    summary="Cases, the greatest priority first",
    responses=shown({"items": [examples.CASE], "next": None}) | refusals(401, 403, 422, 503),
)
async def list_cases(services: Use, caller: Reader, query: Annotated[CaseQuery, Query()]) -> CasePage:
    """Filters are joined by "and"; `mine` says whom `held_by` would. Closed ones, and those that wait for a review:
    the newest first.

    A case whose priority grows while you page may show twice, or not at all.
    """
    wanted = CaseFilter(
        state=query.state,
        account_id=query.account_id,
        typology=query.typology,
        outcome=query.outcome,
        inbox=query.inbox,
        mine=actor(caller) if query.mine else query.held_by,
        snoozed=query.snoozed,
        escalated=query.escalated,
        review=query.review,
        loss_min=query.min_loss,
        free=query.free,
        order=query.order,
        at=services.clock.now(),
        tenant=query.tenant,
    )
    page = await services.repository.cases.list_cases(wanted, query.limit, query.cursor)
    return CasePage(items=tuple(map(CaseBrief.model_validate, page.items)), next=page.next)


@router.get(
    "/v1/inboxes",
    summary="How many cases lie where",
    responses=shown(case_examples.INBOXES) | refusals(401, 403, 503),
)
async def inboxes(services: Use, caller: Reader) -> Inboxes:
    """Unclosed cases: by team, else by typology, else `unscored`."""
    counted = await services.repository.casefile.inboxes(actor(caller), services.clock.now())
    return Inboxes(items=tuple(map(InboxLine.model_validate, counted)))


@router.get(
    "/v1/cases/{case_id}",
    summary="One case with everything in it",
    responses=shown(case_examples.DETAIL) | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def get_case(services: Use, case_id: Annotated[str, _CASE_ID], response: Response) -> CaseDetail:
    """The newest 1,000 alerts in the account's order, each with its risk, the line that the model read, and what was
    said of its event since: by analysts, chargebacks, the customer. `missed`: events of the same accounts that never
    alerted and were called fraud.

    `ETag` is the case's version; send it as `If-Match` with whatever you do to the case.
    """
    case, alerts = await services.repository.cases.get_case(case_id)
    folder = await services.repository.cases.folder(case_id)
    response.headers.update(etag(case.version))
    return CaseDetail(
        case=CaseBrief.model_validate(case),
        alerts=await _lines(services, alerts),
        missed=await _missed(services, {case.account_id, *(alert.account_id for alert in alerts)}, case.tenant),
        notes=tuple(map(NoteLine.model_validate, folder.notes)),
        files=tuple(map(FileLine.model_validate, folder.files)),
        links=tuple(map(LinkLine.model_validate, folder.links)),
        merged=folder.merged,
    )


async def _lines(services: Services, alerts: tuple[Alert, ...]) -> tuple[AlertLine, ...]:
    keys = [scoped(alert.tenant, alert.event_id) for alert in alerts]
    records = await services.repository.earlier(keys)
    labels = await services.repository.labels(keys)
    return tuple(
        AlertLine(
            decision_id=alert.decision_id,
            case_id=alert.case_id,
            account_id=alert.account_id,
            event_id=alert.event_id,
            event_type=alert.event_type,
            event_time=alert.event_time,
            sequence=alert.sequence,
            outcome=alert.outcome,
            risk=alert.risk,
            typology=alert.typology,
            amount_base=alert.amount_base,
            reasons=records[key].decision.reasons,
            line=records[key].line,
            disposition=alert.disposition,
            labels=tuple(map(LabelLine.model_validate, labels.get(key, ()))),
        )
        for alert, key in zip(alerts, keys, strict=True)
    )


async def _missed(services: Services, accounts: set[str], tenant: str) -> tuple[MissedLine, ...]:
    """What no case of these accounts is about: a chargeback of a payment that went through, above all."""
    keys = await services.repository.casefile.missed(accounts, tenant)
    records, labels = await services.repository.earlier(keys), await services.repository.labels(keys)
    return tuple(
        MissedLine(
            decision_id=record.decision.decision_id,
            event_id=record.event.event_id,
            account_id=record.decision.account_id,
            event_type=record.decision.event_type,
            event_time=record.event.event_time,
            outcome=record.decision.outcome,
            risk=record.decision.risk,
            line=record.line,
            labels=tuple(map(LabelLine.model_validate, labels.get(key, ()))),
        )
        for key in keys
        if (record := records.get(key)) is not None
    )


@router.get(
    "/v1/cases/{case_id}/history",
    summary="What people did with a case",
    responses=shown(case_examples.HISTORY) | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def case_history(services: Use, case_id: Annotated[str, _CASE_ID]) -> CaseHistory:
    """The newest 500 deeds of the audit trail, oldest first."""
    await services.repository.cases.get_case(case_id)
    deeds = await services.repository.cases.history(case_id)
    return CaseHistory(items=tuple(map(DeedLine.model_validate, deeds)))


@router.post(
    "/v1/cases/bulk",
    summary="Do the same to many cases",
    responses=shown(case_examples.BULK_DONE) | refusals(401, 403, 413, 422, 503),
)
async def bulk(
    services: Use,
    caller: Annotated[Principal, Depends(Serves(Role.LEAD))],
    bulk: Annotated[Bulk, Body(examples=[case_examples.BULK])],
) -> BulkDone:
    """Up to 200, each at the version you saw, each by itself: one that was overtaken holds up no other."""
    seen = {case.case_id: case.version for case in bulk.cases}
    if len(seen) < len(bulk.cases):
        raise BadInput("names a case twice", path="cases", hint="leave one of them out")
    done = await each(seen, _deed(services, bulk, actor(caller)))
    lines = tuple(_line(case_id, what) for case_id, what in done.items())
    return BulkDone(done=sum(line.version is not None for line in lines), items=lines)


def _deed(services: Services, bulk: Bulk, by: str) -> Callable[[str, int], Awaitable[Case]]:
    cases, at = services.repository.cases, services.clock.now()
    match bulk:
        case BulkAssign(assignee=assignee, team=team):
            return lambda case_id, seen: cases.assign(case_id, seen, assignee, team, by, at)
        case BulkEscalate(reason=reason):
            return lambda case_id, seen: cases.escalate(case_id, seen, reason, by, at)
        case BulkSnooze(until=until):
            return lambda case_id, seen: cases.snooze(case_id, seen, until, by, at)
        case BulkDispose(disposition=disposition, reason=reason):
            return lambda case_id, seen: cases.dispose(case_id, seen, disposition, reason, by, at)
        case _ if bulk.action == "claim":
            return lambda case_id, seen: cases.claim(case_id, seen, by, at)
        case _:
            return lambda case_id, seen: cases.release(case_id, seen, by, at, anyones=True)


def _line(case_id: str, what: Case | Refusal) -> BulkLine:
    match what:
        case Case():
            return BulkLine(case_id=case_id, version=what.version, code=None, detail=None)
        case Overtaken():
            return BulkLine(case_id=case_id, version=None, code="overtaken", detail=what.reason)
        case Conflict():
            return BulkLine(case_id=case_id, version=None, code="conflict", detail=what.reason)
        case BadInput():
            return BulkLine(case_id=case_id, version=None, code="bad_field", detail=str(what))
        case NotFound():
            return BulkLine(case_id=case_id, version=None, code="not_found", detail=str(what))
        case StateConflict():
            return BulkLine(case_id=case_id, version=None, code="conflict", detail="somebody else changed this first")
