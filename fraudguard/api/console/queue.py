"""The queue: unclosed cases by inbox, filtered and ordered; its rows are read again while it is open."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from fraudguard.api.auth import actor
from fraudguard.api.console import reasons
from fraudguard.api.console.case import just_closed
from fraudguard.api.console.people import workers
from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import Reader, is_fragment, page, part
from fraudguard.api.services import Services, Use
from fraudguard.decisions.case_types import CaseOrder
from fraudguard.decisions.casebook import Case, CaseFilter
from fraudguard.decisions.pages import Page
from fraudguard.domain import Typology
from fraudguard.errors import BadInput

router = APIRouter()

ROWS: Final = 50
UNSCORED: Final = "unscored"
BY_TYPOLOGY: Final = (*Typology, UNSCORED)
OVER_ALL: Final = ("all", "mine", "snoozed", "review")
ORDERS: Final[tuple[CaseOrder, ...]] = get_args(CaseOrder)
NOBODY: Final = "-"  # no person's name: who has a case that nobody has
FIELDS: Final = ("account", "typology", "least", "who")


@dataclass(frozen=True, slots=True)
class Inbox:
    """A tab of the queue: `all`, `mine`, `snoozed`, `review`, a typology, or a team's own. query: of its address."""

    name: str
    cases: int
    chosen: bool
    query: str


@router.get("/")
async def home() -> Response:
    """The queue is where a shift begins."""
    return RedirectResponse("/console/queue", 303)


@router.get("/queue")
async def queue(
    request: Request,
    services: Use,
    reader: Reading,
    inbox: Annotated[str, Query(max_length=128)] = "all",
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    closed: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """One inbox; for htmx its list alone. closed: the case that was disposed of just before, whose undo is offered."""
    asked = {field: request.query_params.get(field, "").strip()[:128] for field in FIELDS}
    order = request.query_params.get("order", "")
    asked["order"] = order if order in ORDERS else ORDERS[0]
    cases: Page[Case] = Page((), None)
    problem: BadInput | None = None
    try:
        cases = await services.repository.cases.list_cases(_filter(asked, inbox, reader), ROWS, cursor)
    except BadInput as error:
        problem = error
    whole = not is_fragment(request)
    query = {"inbox": inbox} | {field: value for field, value in asked.items() if value}
    template = part(request, "queue.html", "queue_list.html", "queue_rows.html")
    values: Mapping[str, Any] = {
        "tabs": await _tabs(services, reader, query),
        "cases": cases.items,
        "next": cases.next,
        "inbox": inbox,
        "asked": asked,
        "filtered": any(asked[field] for field in FIELDS),
        "query": query,
        "fragment": template == "queue_list.html",
        "problem": problem,
        "me": actor(reader.principal),
        "undo": await just_closed(services, reader, closed) if whole else None,
        "people": await workers(services) if whole else (),
        "typologies": tuple(Typology),
        "orders": ORDERS,
        "block": reasons.reasons_of("block"),
        "approve": reasons.reasons_of("approve"),
    }
    return page(template, reader, "queue", status=422 if problem and whole else 200, **values)


def _filter(asked: Mapping[str, str], inbox: str, reader: Reader) -> CaseFilter:
    """What the page asks for. Raises BadInput naming the field."""
    me, who = actor(reader.principal), asked["who"]
    order: CaseOrder = next(one for one in ORDERS if one == asked["order"])
    return CaseFilter(
        state=None if inbox == "review" else "unclosed",
        inbox=None if inbox in OVER_ALL else inbox,
        review="waiting" if inbox == "review" else None,
        account_id=asked["account"] or None,
        typology=Typology(asked["typology"]) if asked["typology"] in tuple(Typology) else None,
        loss_min=_least(asked["least"]),
        mine=me if inbox == "mine" else who if who not in ("", NOBODY) else None,
        free=True if who == NOBODY else None,
        snoozed=None if inbox in ("mine", "review") or asked["account"] else inbox == "snoozed",
        order=order,
        at=reader.now,
    )


def _least(value: str) -> float | None:
    try:
        number = float(value.replace(",", "").replace("_", "")) if value else None
    except ValueError:
        number = -1.0
    if number is not None and not 0 <= number < 1e15:
        raise BadInput("must be an amount, like 10000", path="least")
    return number


async def _tabs(services: Services, reader: Reader, query: Mapping[str, str]) -> list[Inbox]:
    """All, each inbox that has a case, typologies first, then one's own and the snoozed; for leads those to review."""
    casefile, chosen = services.repository.casefile, query["inbox"]
    sizes = await casefile.inboxes(actor(reader.principal), reader.now)
    awake = {size.name: size.awake for size in sizes}
    order = [name for name in BY_TYPOLOGY if awake.get(name)] + sorted(awake.keys() - set(BY_TYPOLOGY))
    counted = {"all": sum(awake.values())} | {name: awake[name] for name in order if awake[name]}
    counted |= {"mine": sum(s.mine + s.mine_snoozed for s in sizes), "snoozed": sum(s.snoozed for s in sizes)}
    if reader.leads:
        counted["review"] = await casefile.waiting_reviews()
    if chosen not in counted:
        counted = {chosen: 0} | counted
    return [Inbox(name, n, name == chosen, urlencode({**query, "inbox": name})) for name, n in counted.items()]
