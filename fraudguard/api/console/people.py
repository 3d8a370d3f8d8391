"""Colleagues who work cases, found by typing: each with how many cases they have now."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from fraudguard.api.console.readers import Leading
from fraudguard.api.console.rendering import WORKERS, page
from fraudguard.api.services import Services, Use
from fraudguard.decisions.people import Person
from fraudguard.domain import Role
from fraudguard.errors import BadInput

router = APIRouter()

SHOWN_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Colleague:
    """cases: unclosed ones that they claimed or that are assigned to them."""

    name: str
    role: Role
    cases: int


@router.get("/people")
async def find(services: Use, reader: Leading, q: Annotated[str, Query(max_length=128)] = "") -> Response:
    """Those whose name has what was typed, at its beginning first; the least busy of equals first."""
    loads, typed = await services.repository.casefile.loads(reader.now), q.strip().lower()
    found = [Colleague(p.name, p.role, loads.get(p.name, 0)) for p in await workers(services) if typed in p.name]
    found.sort(key=lambda one: (not one.name.startswith(typed), one.cases, one.name))
    return page("people.html", reader, "queue", people=found[:SHOWN_MAX], more=len(found) > SHOWN_MAX, typed=typed)


async def workers(services: Services) -> list[Person]:
    """Accounts that may work cases, by name."""
    people = await services.repository.people.list()
    return [person for person in people if person.role in WORKERS and person.disabled_at is None]


async def checked_worker(services: Services, name: str) -> str | None:
    """The name, None for nobody. Raises BadInput unless they may work cases."""
    if not name:
        return None
    if name not in {person.name for person in await workers(services)}:
        raise BadInput(f"{name} works no cases here", path="assignee", hint="choose one of the list")
    return name
