"""Whom a page serves: the API's own dependency, and the reader made of whom it let in."""

from typing import Annotated

from fastapi import Depends, Request

from fraudguard.api.auth import Serves
from fraudguard.api.console.rendering import EDITORS, LEADS, WORKERS, Reader, reader_of
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

_READERS = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR)
_WORKERS = Serves(*WORKERS)
# Rules, lists, models and operations are the house's, not a tenant's.
_HOUSE = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR, house=True)
_EDITORS = Serves(*EDITORS, house=True)
_LISTERS = Serves(*WORKERS, *EDITORS, house=True)
_HOUSE_LEADS = Serves(*LEADS, house=True)
_HOUSE_ADMINS = Serves(house=True)


async def _reader(request: Request, principal: Annotated[Principal, Depends(_READERS)]) -> Reader:
    request.state.principal = principal  # an error page of this request has the same head
    return reader_of(request, principal)


async def _worker(request: Request, principal: Annotated[Principal, Depends(_WORKERS)]) -> Reader:
    return reader_of(request, principal)


async def _editor(request: Request, principal: Annotated[Principal, Depends(_EDITORS)]) -> Reader:
    request.state.principal = principal
    return reader_of(request, principal)


async def _lister(request: Request, principal: Annotated[Principal, Depends(_LISTERS)]) -> Reader:
    return reader_of(request, principal)


async def _house(request: Request, principal: Annotated[Principal, Depends(_HOUSE)]) -> Reader:
    request.state.principal = principal
    return reader_of(request, principal)


async def _house_lead(request: Request, principal: Annotated[Principal, Depends(_HOUSE_LEADS)]) -> Reader:
    request.state.principal = principal
    return reader_of(request, principal)


async def _house_admin(request: Request, principal: Annotated[Principal, Depends(_HOUSE_ADMINS)]) -> Reader:
    return reader_of(request, principal)


Reading = Annotated[Reader, Depends(_reader)]
Working = Annotated[Reader, Depends(_worker)]
# Of what is the house's, not a tenant's.
Editing = Annotated[Reader, Depends(_editor)]
Listing = Annotated[Reader, Depends(_lister)]
HouseReading = Annotated[Reader, Depends(_house)]
HouseLeading = Annotated[Reader, Depends(_house_lead)]
HouseRuling = Annotated[Reader, Depends(_house_admin)]
