"""The lists page: which lists there are and who asks them, their entries, adding with reason and end, taking off."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console.readers import HouseReading, Listing
from fraudguard.api.console.rendering import Reader, page, part
from fraudguard.api.console.sending import form_of
from fraudguard.api.lists import declared
from fraudguard.api.schemas import ENTRIES_MAX
from fraudguard.api.services import Services, Use
from fraudguard.decisions.pages import Page
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import WatchList
from fraudguard.errors import BadInput
from fraudguard.rules.expression import Listed, split_membership, walk

router = APIRouter()

ROWS: Final = 50
DAYS: Final = (7, 30, 90, 365)  # after which an entry ends, as offered
SOURCE: Final = "console"
Name = Annotated[str, Path(max_length=64)]


@dataclass(frozen=True, slots=True)
class Row:
    """A list with its entries in force and the rules that ask it, as (id, state)."""

    known: WatchList
    entries: int
    rules: tuple[tuple[str, str], ...]


@router.get("/lists")
async def lists(services: Use, reader: HouseReading, value: Annotated[str, Query(max_length=128)] = "") -> Response:
    """Every list; with `value` those that it is on."""
    value = value.strip()
    found = await services.repository.lists.containing(value) if value else None
    shown = await _shown(services) | {"sought": value, "found": found, "list": None}
    return page("lists.html", reader, "lists", **shown)


@router.get("/lists/{name}")
async def one_list(
    request: Request,
    services: Use,
    reader: HouseReading,
    name: Name,
    prefix: Annotated[str, Query(max_length=128)] = "",
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """A list's entries by value, expired ones too. prefix: what values begin with."""
    await declared(services, name)
    entries: Page[ListEntry] = await services.repository.lists.page(name, ROWS, cursor, prefix.strip() or None)
    template = part(request, "lists.html", "lists_entries.html", "lists_rows.html")
    rows = await _shown(services)
    return page(
        template,
        reader,
        "lists",
        **rows,
        sought="",
        found=None,
        list=next(row for row in rows["rows"] if row.known.name == name),
        entries=entries.items,
        next=entries.next,
        prefix=prefix.strip(),
        days=DAYS,
    )


async def _shown(services: Services) -> dict[str, Any]:
    known = await services.publishing.lists()
    counts = await services.repository.lists.counts(services.clock.now())
    asked = await _asked(services)
    rows = [Row(known[name], counts.get(name, 0), tuple(asked.get(name, ()))) for name in sorted(known)]
    return {"rows": rows}


async def _asked(services: Services) -> Mapping[str, Sequence[tuple[str, str]]]:
    """By list, the rules in force that ask whether something is on it; retired ones ask no more."""
    head = await services.publishing.head()
    asked: dict[str, list[tuple[str, str]]] = {}
    for rule in await services.publishing.rules(head) if head else ():
        if rule.state == "retired":
            continue
        names = {node.name for node in walk(rule.condition) if isinstance(node, Listed)}
        for name in sorted({pair[1] for one in names if (pair := split_membership(one))}):
            asked.setdefault(name, []).append((rule.id, rule.state))
    return asked


@router.post("/lists/{name}/entries")
async def add(request: Request, services: Use, reader: Listing, name: Name) -> Response:
    """Put one value on the list, or every line of a paste: all of them, or none if one is wrong."""
    await declared(services, name)
    fields = await form_of(request)
    values = [line for text in fields.get("values", "").splitlines() if (line := text.strip())]
    if not 1 <= len(values) <= ENTRIES_MAX:
        raise BadInput(f"must be 1 to {ENTRIES_MAX:,} values, one a line", path="values")
    who, now = actor(reader.principal), services.clock.now()
    expires = _expires(fields.get("until", ""), reader)
    reason = fields.get("reason", "").strip()
    rows = [ListEntry(name, value, reason, who, SOURCE, now, expires) for value in values]
    changed = await services.repository.lists.add_many(rows, who)
    return _again(name, "added", changed)


@router.post("/lists/{name}/remove")
async def remove(request: Request, services: Use, reader: Listing, name: Name) -> Response:
    """Take one value off, for a reason; the audit trail keeps what it was."""
    fields = await form_of(request)
    who, now = actor(reader.principal), services.clock.now()
    await services.repository.lists.remove(name, fields.get("value", ""), fields.get("reason", ""), who, now)
    return _again(name, "removed", 1)


def _again(name: str, what: str, count: int) -> Response:
    return Response(status_code=204, headers={"HX-Trigger": f'{{"listChanged": {{"{what}": {count}}}}}'})


def _expires(text: str, reader: Reader) -> datetime | None:
    """`` for never, a number of days, or a date, at whose end it ends in the house's zone. Raises BadInput."""
    if not text:
        return None
    if re.fullmatch(r"\d{1,4}", text):
        return reader.now + timedelta(days=int(text))
    try:
        return datetime.combine(date.fromisoformat(text), time.max, reader.zone)
    except ValueError as error:
        raise BadInput("must be a date or a number of days", path="until") from error
