"""Whom a page serves: the API's own dependency, and the reader made of whom it let in."""

from typing import Annotated

from fastapi import Depends, Request

from fraudguard.api.auth import Serves
from fraudguard.api.console.rendering import Reader, reader_of
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

_READERS = Serves(Role.ANALYST, Role.RISK_MANAGER)
_WORKERS = Serves(Role.ANALYST)


async def _reader(request: Request, principal: Annotated[Principal, Depends(_READERS)]) -> Reader:
    return reader_of(request, principal)


async def _worker(request: Request, principal: Annotated[Principal, Depends(_WORKERS)]) -> Reader:
    return reader_of(request, principal)


Reading = Annotated[Reader, Depends(_reader)]
Working = Annotated[Reader, Depends(_worker)]
