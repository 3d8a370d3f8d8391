"""What people do to one case: each deed names the version that was seen, and answers with the case as it is then."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Response

from fraudguard.api import case_examples, examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.case_schemas import AlertVerdict, Assignment, Escalation, Merge, NewLink, NewNote, Snooze, Unmerge
from fraudguard.api.openapi import Responses, refusals, shown
from fraudguard.api.schemas import CaseBrief, Verdict
from fraudguard.api.services import Services, Use
from fraudguard.api.versions import Seen, etag
from fraudguard.decisions.case_types import Case
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

router = APIRouter(tags=["cases"])

CaseId = Annotated[str, Path(max_length=64, examples=[examples.CASE_ID])]
Analyst = Annotated[Principal, Depends(Serves(Role.ANALYST, Role.LEAD))]
Lead = Annotated[Principal, Depends(Serves(Role.LEAD))]


def answers(example: Any) -> Responses:
    """The answers of every route here."""
    return shown(example) | refusals(401, 403, 404, 409, 412, 413, 422, 428, 503)


class Desk:
    """One deed of one caller on one case at the version that he saw."""

    def __init__(self, services: Use, case_id: CaseId, seen: Seen, response: Response) -> None:
        self.services: Services = services
        self._case_id, self._seen, self._response = case_id, seen, response

    async def do(self, deed: Callable[..., Awaitable[Case]], caller: Principal, *words: Any, **more: Any) -> CaseBrief:
        """The case after it; the answer names its version."""
        at = self.services.clock.now()
        case = await deed(self._case_id, self._seen, *words, actor=actor(caller), at=at, **more)
        self._response.headers.update(etag(case.version))
        return CaseBrief.model_validate(case)


Work = Annotated[Desk, Depends(Desk)]


@router.post("/v1/cases/{case_id}/claim", summary="Take a case for 15 minutes", responses=answers(examples.CLAIMED))
async def claim(caller: Analyst, desk: Work) -> CaseBrief:
    """Again: for 15 minutes more. 409 while it is somebody else's."""
    return await desk.do(desk.services.repository.cases.claim, caller)


@router.post("/v1/cases/{case_id}/release", summary="Give a case back", responses=answers(case_examples.RELEASED))
async def release(caller: Analyst, desk: Work) -> CaseBrief:
    """One's own claim; a lead ends anybody's."""
    anyones = caller.role is not Role.ANALYST
    return await desk.do(desk.services.repository.cases.release, caller, anyones=anyones)


@router.post(
    "/v1/cases/{case_id}/assign", summary="Say whose work a case is", responses=answers(case_examples.ASSIGNED)
)
async def assign(
    caller: Lead, desk: Work, assignment: Annotated[Assignment, Body(examples=[case_examples.ASSIGNMENT])]
) -> CaseBrief:
    """The assignee is named as the API names callers: `closed_by`, `changed_by`. Another person's claim ends."""
    cases = desk.services.repository.cases
    return await desk.do(cases.assign, caller, assignment.assignee, assignment.team)


@router.post(
    "/v1/cases/{case_id}/escalate", summary="Ask the leads to look", responses=answers(case_examples.ESCALATED)
)
async def escalate(
    caller: Analyst, desk: Work, escalation: Annotated[Escalation, Body(examples=[case_examples.ESCALATION])]
) -> CaseBrief:
    """Your claim ends; `?escalated=true` lists such cases."""
    return await desk.do(desk.services.repository.cases.escalate, caller, escalation.reason)


@router.post("/v1/cases/{case_id}/snooze", summary="Let a case sleep", responses=answers(case_examples.SNOOZED))
async def snooze(
    caller: Analyst, desk: Work, snooze: Annotated[Snooze, Body(examples=[case_examples.SNOOZE])]
) -> CaseBrief:
    """For 30 days at most, or until a new alert; your claim ends, and its due time stays."""
    return await desk.do(desk.services.repository.cases.snooze, caller, snooze.until)


@router.post("/v1/cases/{case_id}/notes", summary="Write a note", responses=answers(case_examples.NOTED))
async def note(
    caller: Analyst, desk: Work, note: Annotated[NewNote, Body(examples=[case_examples.NEW_NOTE])]
) -> CaseBrief:
    """Of a closed case, or somebody else's, too. Notes are never changed."""
    return await desk.do(desk.services.repository.cases.note, caller, note.body)


@router.post("/v1/cases/{case_id}/links", summary="Link another case", responses=answers(case_examples.NOTED))
async def link(
    caller: Analyst, desk: Work, link: Annotated[NewLink, Body(examples=[case_examples.NEW_LINK])]
) -> CaseBrief:
    """It shows on both."""
    return await desk.do(desk.services.repository.cases.link, caller, link.case_id, link.reason)


@router.post("/v1/cases/{case_id}/merge", summary="Judge another case with this one", responses=answers(examples.CASE))
async def merge(caller: Lead, desk: Work, merge: Annotated[Merge, Body(examples=[case_examples.MERGE])]) -> CaseBrief:
    """The other one closes without a verdict of its own; its alerts get this one's."""
    cases = desk.services.repository.cases
    return await desk.do(cases.merge, caller, merge.case_id, merge.version, merge.reason)


@router.post(
    "/v1/cases/{case_id}/unmerge", summary="Take a merged case out again", responses=answers(case_examples.NOTED)
)
async def unmerge(
    caller: Lead, desk: Work, unmerge: Annotated[Unmerge, Body(examples=[case_examples.UNMERGE])]
) -> CaseBrief:
    """Until this one is disposed of: the other is open again, with its alerts. 409 where its account has a new one."""
    return await desk.do(desk.services.repository.cases.unmerge, caller, unmerge.case_id, unmerge.reason)


@router.post("/v1/cases/{case_id}/dispose", summary="Close a case with a verdict", responses=answers(examples.CLOSED))
async def dispose(
    caller: Analyst, desk: Work, verdict: Annotated[Verdict, Body(examples=[case_examples.VERDICT])]
) -> CaseBrief:
    """`confirmed_fraud` and `false_positive` label every alert; `suspicious` labels none. For 10 s it can be reopened;
    the labels leave after that.
    """
    return await desk.do(desk.services.repository.cases.dispose, caller, verdict.disposition, verdict.reason)


@router.post(
    "/v1/cases/{case_id}/alerts", summary="Judge some alerts by themselves", responses=answers(examples.CLAIMED)
)
async def dispose_alerts(
    caller: Analyst, desk: Work, verdict: Annotated[AlertVerdict, Body(examples=[case_examples.ALERT_VERDICT])]
) -> CaseBrief:
    """They keep it when the case is closed with another verdict; until then it can be given anew."""
    cases = desk.services.repository.cases
    words = verdict.decision_ids, verdict.disposition, verdict.reason
    return await desk.do(cases.dispose_alerts, caller, *words)


@router.post("/v1/cases/{case_id}/reopen", summary="Take a verdict back", responses=answers(case_examples.REOPENED))
async def reopen(caller: Analyst, desk: Work) -> CaseBrief:
    """Your own, within 10 s: its labels have not left, and never will. 409 afterwards."""
    return await desk.do(desk.services.repository.cases.reopen, caller)


@router.post(
    "/v1/cases/{case_id}/review", summary="Judge a closed case again", responses=answers(case_examples.REVIEWED)
)
async def review(
    caller: Lead, desk: Work, verdict: Annotated[Verdict, Body(examples=[case_examples.VERDICT])]
) -> CaseBrief:
    """Of the sample, `?review=waiting`; never one's own. Another verdict than the first one holds, and is labelled."""
    return await desk.do(desk.services.repository.cases.review, caller, verdict.disposition, verdict.reason)
