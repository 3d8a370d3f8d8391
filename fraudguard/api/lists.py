"""Watch lists: which there are, their entries, and changes to them. Rules see a change from the next event on."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from fraudguard.api import examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import ProblemError
from fraudguard.api.schemas import (
    EntryLine,
    EntryPage,
    EntryQuery,
    Imported,
    ListBrief,
    NewEntries,
    NewEntry,
    RemovalQuery,
)
from fraudguard.api.services import Services, Use
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.watchlists import ListEntry
from fraudguard.domain import Role

router = APIRouter(tags=["lists"])

READERS = Serves(*Role, house=True)
EDITORS = Serves(Role.ANALYST, Role.LEAD, Role.RULE_EDITOR, house=True)
Editor = Annotated[Principal, Depends(EDITORS)]
Name = Annotated[str, Path(max_length=64, examples=["mule_accounts"])]
Value = Annotated[str, Path(max_length=128, examples=["c-9"])]


async def declared(services: Services, name: str) -> None:
    """404 for a list that the rules in force do not declare."""
    lists = await services.publishing.lists()
    if name not in lists:
        hint = f"declared are {', '.join(sorted(lists)) or 'none'}; publish a lists.yaml that declares it"
        raise ProblemError(404, "not_found", f"no list {name!r}", path="name", hint=hint)


@router.get(
    "/v1/lists",
    summary="The watch lists",
    responses=shown([examples.LIST]) | refusals(401, 403, 503),
    dependencies=[Depends(READERS)],
)
async def all_lists(services: Use) -> list[ListBrief]:
    """Those that the rules in force declare, each with how many entries are in force."""
    counts = await services.repository.lists.counts(services.clock.now())
    return [
        ListBrief(
            name=name,
            kind=known.kind,
            entity=known.entity,
            owner=known.owner,
            description=known.description,
            entries=counts.get(name, 0),
        )
        for name, known in sorted((await services.publishing.lists()).items())
    ]


@router.get(
    "/v1/lists/{name}/entries",
    summary="Entries of a list, by value",
    responses=shown({"items": [examples.ENTRY], "next": None}) | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def entries(services: Use, name: Name, query: Annotated[EntryQuery, Query()]) -> EntryPage:
    """Expired ones too."""
    await declared(services, name)
    page = await services.repository.lists.page(name, query.limit, query.cursor, query.prefix)
    return EntryPage(items=tuple(map(EntryLine.model_validate, page.items)), next=page.next)


@router.post(
    "/v1/lists/{name}/entries",
    summary="Put many values on a list",
    responses=shown({"entries": 2, "changed": 1}) | refusals(401, 403, 404, 413, 422, 503),
)
async def add_entries(
    services: Use, caller: Editor, name: Name, body: Annotated[NewEntries, Body(examples=[examples.NEW_ENTRIES])]
) -> Imported:
    """All of them, or none if one is wrong. The same again changes nothing."""
    await declared(services, name)
    rows = [_entry(services, caller, name, value, entry) for value, entry in body.entries.items()]
    changed = await services.repository.lists.add_many(rows, actor(caller))
    return Imported(entries=len(rows), changed=changed)


@router.put(
    "/v1/lists/{name}/entries/{value:path}",
    summary="Put a value on a list",
    responses=shown(examples.ENTRY) | refusals(401, 403, 404, 413, 422, 503),
)
async def put_entry(
    services: Use,
    caller: Editor,
    name: Name,
    value: Value,
    entry: Annotated[NewEntry, Body(examples=[examples.NEW_ENTRY])],
) -> EntryLine:
    """Or change its reason, source or end. Audited with what stood there before."""
    await declared(services, name)
    row = _entry(services, caller, name, value, entry)
    await services.repository.lists.add(row, actor(caller))
    return EntryLine.model_validate(row)


@router.delete(
    "/v1/lists/{name}/entries/{value:path}",
    status_code=204,
    summary="Take a value off a list",
    responses=refusals(401, 403, 404, 422, 503),
)
async def remove_entry(
    services: Use, caller: Editor, name: Name, value: Value, query: Annotated[RemovalQuery, Query()]
) -> Response:
    """The audit trail keeps what it was."""
    await services.repository.lists.remove(name, value, query.reason, actor(caller), services.clock.now())
    return Response(status_code=204)


@router.get(
    "/v1/list-entries/{value:path}",
    summary="The lists that a value is on",
    responses=shown([examples.ENTRY]) | refusals(401, 403, 422, 503),
    dependencies=[Depends(READERS)],
)
async def containing(services: Use, value: Value) -> list[EntryLine]:
    """Its entries on every list, expired ones too; empty if it is on none."""
    return list(map(EntryLine.model_validate, await services.repository.lists.containing(value)))


def _entry(services: Services, caller: Principal, name: str, value: str, entry: NewEntry) -> ListEntry:
    now = services.clock.now()
    return ListEntry(name, value, entry.reason, actor(caller), entry.source, now, entry.expires_at)
