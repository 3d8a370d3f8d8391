"""The queue: unclosed cases, the greatest expected loss first, by inbox; its rows are read again while it is open."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import page, part
from fraudguard.api.services import Services, Use
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.domain import Typology

router = APIRouter()

ROWS: Final = 50
INBOXES: Final = ("all", *Typology)


@dataclass(frozen=True, slots=True)
class Inbox:
    """A tab of the queue. cases: None where it is not counted."""

    name: str
    cases: int | None
    chosen: bool


@router.get("/")
async def home() -> Response:
    """The queue is where a shift begins."""
    return RedirectResponse("/console/queue", 303)


@router.get("/queue")
async def queue(
    request: Request,
    services: Use,
    reader: Reading,
    inbox: Annotated[str, Query(max_length=32)] = "all",
    account: Annotated[str, Query(max_length=128)] = "",
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """One inbox. For htmx the rows and the counts alone."""
    inbox = inbox if inbox in INBOXES else "all"
    account = account.strip()
    wanted = CaseFilter(
        state="open",
        typology=None if inbox == "all" else Typology(inbox),
        account_id=account or None,
    )
    cases = await services.repository.cases.list_cases(wanted, ROWS, cursor)
    tabs = await _tabs(services, inbox)
    template = part(request, "queue.html", "queue_list.html", "queue_rows.html")
    return page(
        template, reader, "queue", tabs=tabs, cases=cases.items, next=cases.next, inbox=inbox, account=account
    )


async def _tabs(services: Services, chosen: str) -> list[Inbox]:
    counts = await services.repository.casefile.inboxes()
    every = [Inbox("all", sum(counts.values()), chosen == "all")]
    return every + [Inbox(name, counts.get(name, 0), chosen == name) for name in Typology]
