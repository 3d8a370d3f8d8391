"""Whom a page serves: the API's own dependency, and the reader made of whom it let in."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from fraudguard.api.auth import Serves
from fraudguard.api.console.rendering import EDITORS, LEADS, WORKERS, Reader, reader_of
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

EVERYBODY = frozenset({Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR})


def _served(*roles: Role, house: bool = False) -> Callable[..., Awaitable[Reader]]:
    """A page's dependency. house: the page is about what is the house's, not a tenant's."""
    serves = Serves(*roles, house=house)

    async def reader(request: Request, principal: Annotated[Principal, Depends(serves)]) -> Reader:
        request.state.principal = principal  # an error page of this request has the same head
        return reader_of(request, principal)

    return reader


Reading = Annotated[Reader, Depends(_served(*EVERYBODY))]
Working = Annotated[Reader, Depends(_served(*WORKERS))]
Editing = Annotated[Reader, Depends(_served(*EDITORS, house=True))]
Listing = Annotated[Reader, Depends(_served(*WORKERS, *EDITORS, house=True))]
HouseReading = Annotated[Reader, Depends(_served(*EVERYBODY, house=True))]
HouseLeading = Annotated[Reader, Depends(_served(*LEADS, house=True))]
HouseRuling = Annotated[Reader, Depends(_served(house=True))]
