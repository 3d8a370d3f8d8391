"""The queue: unclosed cases, the greatest expected loss first, by inbox; its rows are read again while it is open."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from fraudguard.api.auth import actor
from fraudguard.api.console.case import just_closed
from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import is_fragment, page, part
from fraudguard.api.services import Use
from fraudguard.decisions.casebook import CaseFilter
from fraudguard.decisions.casefile import InboxSize
from fraudguard.domain import Typology

router = APIRouter()

ROWS: Final = 50
UNSCORED: Final = "unscored"
BY_TYPOLOGY: Final = (*Typology, UNSCORED)
OVER_ALL: Final = ("all", "mine", "snoozed")


@dataclass(frozen=True, slots=True)
class Inbox:
    """A tab of the queue: `all`, `mine`, `snoozed`, a typology, or a team's own."""

    name: str
    cases: int
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
    closed: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """One inbox; for htmx its list alone. closed: the case that was disposed of just before, whose undo is offered."""
    name, account, now = actor(reader.principal), account.strip(), services.clock.now()
    wanted = CaseFilter(
        state="unclosed",
        inbox=None if inbox in OVER_ALL else inbox,
        account_id=account or None,
        mine=name if inbox == "mine" else None,
        snoozed=None if inbox == "mine" or account else inbox == "snoozed",
        at=now,
    )
    cases = await services.repository.cases.list_cases(wanted, ROWS, cursor)
    tabs = _tabs(await services.repository.casefile.inboxes(name, now), inbox)
    undo = None if is_fragment(request) else await just_closed(services, reader, closed)
    template = part(request, "queue.html", "queue_list.html", "queue_rows.html")
    return page(
        template,
        reader,
        "queue",
        tabs=tabs,
        cases=cases.items,
        next=cases.next,
        inbox=inbox,
        account=account,
        me=name,
        undo=undo,
    )


def _tabs(sizes: Sequence[InboxSize], chosen: str) -> list[Inbox]:
    """All, each inbox that has a case, typologies first, then one's own and the snoozed."""
    awake = {size.inbox: size.awake for size in sizes}
    order = [name for name in BY_TYPOLOGY if awake.get(name)] + sorted(awake.keys() - set(BY_TYPOLOGY))
    counted = {"all": sum(awake.values())} | {name: awake[name] for name in order}
    counted |= {"mine": sum(size.mine for size in sizes), "snoozed": sum(size.asleep for size in sizes)}
    return [
        Inbox(name, n, name == chosen)
        for name, n in ({chosen: 0} | counted if chosen not in counted else counted).items()
    ]
