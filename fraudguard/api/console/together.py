"""A case beside others: which may have to do with it, linking one, and judging one with it."""

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console.deeds import CHANGED
from fraudguard.api.console.links import shared_by
from fraudguard.api.console.readers import Leading, Working
from fraudguard.api.console.rendering import page
from fraudguard.api.console.sending import form_of, version_of
from fraudguard.api.services import Services, Use
from fraudguard.decisions.casebook import Case, CaseFilter
from fraudguard.errors import NotFound

router = APIRouter()

CaseId = Annotated[str, Path(max_length=64)]
SHOWN_MAX: Final = 8
EARLIER_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Other:
    """A case that may be linked. why: `shares` an entity, an `earlier` one of the account, or `typed`."""

    case: Case
    why: Literal["shares", "earlier", "typed"]
    shared: tuple[str, ...]


@router.get("/cases/{case_id}/others")
async def others(
    services: Use, reader: Working, case_id: CaseId, q: Annotated[str, Query(max_length=128)] = ""
) -> Response:
    """Candidates: what was typed, by account or case id; else those that share something and the account's own."""
    case, _ = await services.repository.cases.get_case(case_id)
    typed = q.strip()
    found = await _typed(services, typed, case.tenant) if typed else await _near(services, case)
    linked = {link.case_id for link in (await services.repository.cases.folder(case_id)).links} | {case_id}
    shown = [one for one in found if one.case.case_id not in linked]
    return page("others.html", reader, "case", case=case, others=shown[:SHOWN_MAX], typed=typed)


async def _typed(services: Services, typed: str, tenant: str) -> list[Other]:
    try:
        case, _ = await services.repository.cases.get_case(typed)
        return [Other(case, "typed", ())]
    except NotFound:
        own = CaseFilter(account_id=typed, tenant=tenant)
        unclosed = await services.repository.cases.list_cases(replace(own, state="unclosed"), 1)
        closed = await services.repository.cases.list_cases(replace(own, state="closed"), EARLIER_MAX)
        return [Other(case, "typed", ()) for case in (*unclosed.items, *closed.items)]


async def _near(services: Services, case: Case) -> list[Other]:
    shared = await shared_by(services.repository, case)
    cases = await services.repository.casefile.newest_cases(shared, case.tenant)
    found = [Other(cases[account], "shares", entities) for account, entities in shared.items() if account in cases]
    found.sort(key=lambda one: (one.case.state == "closed", -len(one.shared)))
    own = CaseFilter(account_id=case.account_id, state="closed", tenant=case.tenant)
    earlier = await services.repository.cases.list_cases(own, EARLIER_MAX)
    return found + [Other(one, "earlier", ()) for one in earlier.items]


@router.post("/cases/{case_id}/link")
async def link(request: Request, services: Use, reader: Working, case_id: CaseId) -> Response:
    """Say what another case has to do with this one."""
    fields = await form_of(request)
    who, now = actor(reader.principal), services.clock.now()
    other, reason = fields.get("other", ""), fields.get("body", "")
    await services.repository.cases.link(case_id, version_of(fields), other, reason, who, now)
    return Response(status_code=204, headers=CHANGED)


@router.post("/cases/{case_id}/merge")
async def merge(request: Request, services: Use, reader: Leading, case_id: CaseId) -> Response:
    """Judge another account's open case with this one, at the version that the list of others showed."""
    fields = await form_of(request)
    seen, other_seen = version_of(fields), version_of({"seen": fields.get("other_seen", "")})
    who, now = actor(reader.principal), services.clock.now()
    other, reason = fields.get("other", ""), fields.get("body", "")
    await services.repository.cases.merge(case_id, seen, other, other_seen, reason, who, now)
    return Response(status_code=204, headers=CHANGED)
