"""Verdicts from the console: on a case, on one of its alerts, the second one of a sample, and what goes on lists by it.

Each is one of our reasons, which says what the case or the alert was.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import reasons
from fraudguard.api.console.deeds import CHANGED, next_of
from fraudguard.api.console.readers import Leading, Working
from fraudguard.api.console.sending import form_of, version_of
from fraudguard.api.services import Services, Use
from fraudguard.decisions import units
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.errors import BadInput

router = APIRouter()

CaseId = Annotated[str, Path(max_length=64)]
OFFERED_MAX: Final = 10
EXPIRIES: Final = {"30": timedelta(days=30), "90": timedelta(days=90), "365": timedelta(days=365), "never": None}


@router.post("/cases/{case_id}/dispose")
async def dispose(request: Request, services: Use, reader: Working, case_id: CaseId) -> Response:
    """Close the case for one of our reasons, then open the next one, which offers to take it back.

    Or judge the one alert that `decision` names, and stay. What is ticked goes on its list, which undo leaves there.
    """
    body = (await request.body()).decode("utf-8", "replace")
    sent = parse_qs(body, keep_blank_values=True)
    fields = {name: values[0] for name, values in sent.items()}
    reason, who, now = reasons.checked(fields.get("reason", "")), actor(reader.principal), services.clock.now()
    book, seen = services.repository.cases, version_of(fields)
    if decision := fields.get("decision", ""):
        await book.dispose_alerts(case_id, seen, [decision], reason.disposition, reason.code, who, now)
        return Response(status_code=204, headers=CHANGED)
    expiry = fields.get("expiry", "90")
    entries = await _entries(services, sent.get("list", []), expiry, f"case {case_id}: {reason.code}", who)
    async with units.together():
        case = await book.dispose(case_id, seen, reason.disposition, reason.code, who, now)
        if entries:
            await services.repository.lists.add_many(entries, who)
    to = await next_of(services, case_id, who)
    return Response(status_code=204, headers={"HX-Redirect": f"{to}?closed={case.case_id}"})


async def _entries(services: Services, ticked: Sequence[str], expiry: str, reason: str, owner: str) -> list[ListEntry]:
    """Each `list:value` as an entry. Raises BadInput before anything is closed."""
    if expiry not in EXPIRIES:
        raise BadInput("must be 30, 90, 365 or never", path="expiry")
    if len(ticked) > OFFERED_MAX:
        raise BadInput(f"are more than {OFFERED_MAX}", path="list")
    declared = await services.publishing.lists() if ticked else {}
    now, span = services.clock.now(), EXPIRIES[expiry]
    entries = []
    for one in ticked:
        name, _, value = one.partition(":")
        if name not in declared:
            raise BadInput(f"there is no list {name!r}", path="list", hint="load the page again")
        entries.append(ListEntry(name, value, reason, owner, "console", now, now + span if span else None))
    return entries


@router.post("/cases/{case_id}/review")
async def review(request: Request, services: Use, reader: Leading, case_id: CaseId) -> Response:
    """The second verdict on a case of the sample: the same one agrees, another one holds from now on."""
    fields = await form_of(request)
    reason, who, now = reasons.checked(fields.get("reason", "")), actor(reader.principal), services.clock.now()
    await services.repository.cases.review(case_id, version_of(fields), reason.disposition, reason.code, who, now)
    return Response(status_code=204, headers=CHANGED)


@router.post("/cases/{case_id}/reopen")
async def reopen(request: Request, services: Use, reader: Working, case_id: CaseId) -> Response:
    """Take one's own verdict back while that is possible, and show the case again."""
    seen = version_of(await form_of(request))
    await services.repository.cases.reopen(case_id, seen, actor(reader.principal), services.clock.now())
    return Response(status_code=204, headers={"HX-Redirect": f"/console/cases/{case_id}"})
