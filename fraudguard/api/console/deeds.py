"""What an analyst does to a case from the console. Every deed names the version of the case that the page showed."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from fraudguard.api.auth import actor
from fraudguard.api.console import reasons
from fraudguard.api.console.readers import Reading, Working
from fraudguard.api.console.sending import form_of, version_of
from fraudguard.api.services import Services, Use
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.errors import BadInput

router = APIRouter()

SNOOZE: Final = timedelta(hours=1)
CHANGED: Final = {"HX-Trigger": "caseChanged"}  # the queue reads its rows again, a case its page
CaseId = Annotated[str, Path(max_length=64)]


@router.post("/cases/{case_id}/dispose")
async def dispose(request: Request, services: Use, reader: Working, case_id: CaseId) -> Response:
    """Close the case for one of our reasons, then open the next one, which offers to take it back."""
    fields = await form_of(request)
    reason = reasons.reason_of(fields.get("reason", ""))
    if reason is None:
        raise BadInput("is not one of the reasons", path="reason")
    case = await services.repository.cases.dispose(
        case_id,
        version_of(fields),
        reason.disposition,
        reason.code,
        actor(reader.principal),
        services.clock.now(),
    )
    to = await _next(services, case_id, actor(reader.principal))
    return Response(status_code=204, headers={"HX-Redirect": f"{to}?closed={case.case_id}"})


@router.post("/cases/{case_id}/reopen")
async def reopen(request: Request, services: Use, reader: Working, case_id: CaseId) -> Response:
    """Take one's own verdict back while that is possible, and show the case again."""
    seen = version_of(await form_of(request))
    await services.repository.cases.reopen(case_id, seen, actor(reader.principal), services.clock.now())
    return Response(status_code=204, headers={"HX-Redirect": f"/console/cases/{case_id}"})


@router.post("/cases/{case_id}/note")
async def note(request: Request, services: Use, reader: Working, case_id: CaseId) -> Response:
    """Write a note."""
    fields = await form_of(request)
    who, now = actor(reader.principal), services.clock.now()
    await services.repository.cases.note(case_id, version_of(fields), fields.get("body", ""), who, now)
    return Response(status_code=204, headers=CHANGED)


@router.post("/cases/{case_id}/escalate")
async def escalate(request: Request, services: Use, reader: Working, case_id: CaseId) -> Response:
    """Ask the leads to look; it is nobody's until one takes it."""
    fields = await form_of(request)
    who, now = actor(reader.principal), services.clock.now()
    await services.repository.cases.escalate(case_id, version_of(fields), fields.get("body", ""), who, now)
    return Response(status_code=204, headers=CHANGED)


@router.post("/cases/{case_id}/{verb}")
async def act(
    request: Request,
    services: Use,
    reader: Working,
    case_id: CaseId,
    verb: Literal["claim", "release", "snooze", "wake"],
) -> Response:
    """Claim, give back, let sleep for an hour, wake."""
    seen = version_of(await form_of(request))
    book, who, now = services.repository.cases, actor(reader.principal), services.clock.now()
    match verb:
        case "claim":
            await book.claim(case_id, seen, who, now)
        case "release":
            await book.release(case_id, seen, who, now)
        case "snooze":
            await book.snooze(case_id, seen, now + SNOOZE, who, now)
        case "wake":
            await book.snooze(case_id, seen, None, who, now)
    return Response(status_code=204, headers=CHANGED)


@router.get("/cases/{case_id}/next")
async def following(services: Use, reader: Reading, case_id: CaseId) -> Response:
    """The case to work after this one."""
    return RedirectResponse(await _next(services, case_id, actor(reader.principal)), 303)


async def _next(services: Services, case_id: str, person: str) -> str:
    """What comes after this case in the queue and nobody else has, from the top again; the queue when there is none."""
    now = services.clock.now()
    waiting = await services.repository.cases.list_cases(CaseFilter(state="unclosed", snoozed=False, at=now))
    ids = [case.case_id for case in waiting.items]
    after = ids.index(case_id) + 1 if case_id in ids else 0  # one that was closed just now has left the queue
    for case in (*waiting.items[after:], *waiting.items[:after]):
        free = case.holder(now) in (None, person) and case.assigned_to in (None, person)
        if free and case.case_id != case_id:
            return f"/console/cases/{case.case_id}"
    return "/console/queue"
