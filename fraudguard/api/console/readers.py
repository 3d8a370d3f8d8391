"""Whom a page serves: the API's own dependency, and the reader made of whom it let in."""

from typing import Annotated

from fastapi import Depends, Request

from fraudguard.api.auth import Serves
from fraudguard.api.console.rendering import LEADS, WORKERS, Reader, reader_of
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

_READERS = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR)
_WORKERS = Serves(*WORKERS)
_LEADS = Serves(*LEADS)


async def _reader(request: Request, principal: Annotated[Principal, Depends(_READERS)]) -> Reader:
    request.state.principal = principal  # an error page of this request has the same head
    return reader_of(request, principal)


async def _worker(request: Request, principal: Annotated[Principal, Depends(_WORKERS)]) -> Reader:
    return reader_of(request, principal)


async def _lead(request: Request, principal: Annotated[Principal, Depends(_LEADS)]) -> Reader:
    return reader_of(request, principal)


Reading = Annotated[Reader, Depends(_reader)]
Working = Annotated[Reader, Depends(_worker)]
Leading = Annotated[Reader, Depends(_lead)]
