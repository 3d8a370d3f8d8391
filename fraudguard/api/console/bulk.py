"""The same deed on the cases that were chosen in the queue, each at the version its row had when it was chosen."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import reasons
from fraudguard.api.console.deeds import CHANGED, SNOOZE
from fraudguard.api.console.people import checked_worker
from fraudguard.api.console.readers import Leading
from fraudguard.api.console.rendering import Reader, page
from fraudguard.api.services import Services, Use
from fraudguard.decisions.case_bulk import CASES_A_BULK_MAX, Refusal, each
from fraudguard.decisions.case_types import Case
from fraudguard.errors import BadInput, NotFound, Overtaken

router = APIRouter()

REFUSED_SHOWN_MAX: Final = 20

Deed = Callable[[str, int], Awaitable[Case]]


@dataclass(frozen=True, slots=True)
class Refused:
    """A case that the deed was not done to. case: as it is now, None where there is none; said: why."""

    case_id: str
    case: Case | None
    overtaken: bool
    said: str


@router.post("/queue/bulk")
async def bulk(request: Request, services: Use, reader: Leading) -> Response:
    """What was done, and which cases it was not done to and why; one that was overtaken holds up no other."""
    sent = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    fields = {name: values[0] for name, values in sent.items()}
    deed = await _deed(services, reader, fields)
    done = await each(dict(map(_seen, sent.get("case", []))), deed)
    refused = [(case_id, what) for case_id, what in done.items() if not isinstance(what, Case)]
    shown = [await _refused(services, case_id, what) for case_id, what in refused[:REFUSED_SHOWN_MAX]]
    html = page(
        "bulk_done.html",
        reader,
        "queue",
        action=fields["action"],
        done=len(done) - len(refused),
        refused=shown,
        more=len(refused) - len(shown),
    )
    html.headers.update(CHANGED)
    return html


def _seen(value: str) -> tuple[str, int]:
    case_id, _, version = value.rpartition(":")
    if not case_id or not version.isascii() or not version.isdigit() or len(version) > 18:
        raise BadInput("must be a case and its version", path="case", hint="load the page again")
    return case_id, int(version)


async def _deed(services: Services, reader: Reader, fields: dict[str, str]) -> Deed:
    """What to do to each. Raises BadInput."""
    book, who, now = services.repository.cases, actor(reader.principal), services.clock.now()
    words = fields.get("body", "")
    match fields.get("action"):
        case "assign":
            name = await checked_worker(services, fields.get("assignee", ""))
            return lambda one, seen: book.assign(one, seen, name, None, who, now, keep_team=True)
        case "escalate":
            return lambda one, seen: book.escalate(one, seen, words, who, now)
        case "snooze":
            return lambda one, seen: book.snooze(one, seen, now + SNOOZE, who, now)
        case "claim":
            return lambda one, seen: book.claim(one, seen, who, now)
        case "dispose":
            reason = reasons.checked(fields.get("reason", ""))
            return lambda one, seen: book.dispose(one, seen, reason.disposition, reason.code, who, now)
    raise BadInput("is no deed for many", path="action", hint=f"up to {CASES_A_BULK_MAX} cases at once")


async def _refused(services: Services, case_id: str, why: Refusal) -> Refused:
    said = why.reason if isinstance(why, BadInput) else str(why)
    try:
        case, _ = await services.repository.cases.get_case(case_id)
    except NotFound:
        return Refused(case_id, None, False, said)
    return Refused(case_id, case, isinstance(why, Overtaken), said)
