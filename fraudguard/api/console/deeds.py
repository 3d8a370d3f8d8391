"""How cases are handed around from the console. Every deed names the version of the case that the page showed."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from fraudguard.api.auth import actor
from fraudguard.api.console.people import checked_worker
from fraudguard.api.console.readers import Leading, Reading, Working
from fraudguard.api.console.sending import form_of, version_of
from fraudguard.api.services import Services, Use
from fraudguard.decisions.casebook import CaseFilter

router = APIRouter()

SNOOZE: Final = timedelta(hours=1)
CHANGED: Final = {"HX-Trigger": "caseChanged"}  # the queue reads its rows again, a case its page
CaseId = Annotated[str, Path(max_length=64)]


@router.post("/cases/{case_id}/assign")
async def assign(request: Request, services: Use, reader: Leading, case_id: CaseId) -> Response:
    """Say whose work it is; it stays in its inbox."""
    fields = await form_of(request)
    name = await checked_worker(services, fields.get("assignee", ""))
    who, now = actor(reader.principal), services.clock.now()
    await services.repository.cases.assign(case_id, version_of(fields), name, None, who, now, keep_team=True)
    return Response(status_code=204, headers=CHANGED)


@router.post("/cases/{case_id}/{verb}")
async def act(
    request: Request,
    services: Use,
    reader: Working,
    case_id: CaseId,
    verb: Literal["claim", "release", "snooze", "wake", "note", "escalate", "step-up"],
) -> Response:
    """Claim, give back, let sleep for an hour, wake, write a note, ask the leads, ask for a step-up."""
    fields = await form_of(request)
    seen, words = version_of(fields), fields.get("body", "")
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
        case "note":
            await book.note(case_id, seen, words, who, now)
        case "escalate":
            await book.escalate(case_id, seen, words, who, now)
        case "step-up":
            await book.request_step_up(case_id, seen, words, who, now)
    return Response(status_code=204, headers=CHANGED)


@router.get("/cases/{case_id}/next")
async def following(services: Use, reader: Reading, case_id: CaseId) -> Response:
    """The case to work after this one."""
    return RedirectResponse(await next_of(services, case_id, actor(reader.principal)), 303)


async def next_of(services: Services, case_id: str, person: str) -> str:
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
