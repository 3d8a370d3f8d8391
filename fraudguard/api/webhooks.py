"""Webhooks: who is told of decisions and case changes. The telling itself is webhook_sender.py's."""

import base64
import secrets
from datetime import datetime
from typing import Annotated, Literal

import httpx
from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fraudguard.api import examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.services import Use
from fraudguard.decisions.keys import Principal

router = APIRouter(tags=["webhooks"])

Admin = Annotated[Principal, Depends(Serves())]
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", examples=["payments"])]
Kind = Literal[
    "decision.approve",
    "decision.step_up",
    "decision.review",
    "decision.block",
    "case.opened",
    "case.changed",
    "case.closed",
]
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def _address(url: str) -> str:
    try:
        parts = httpx.URL(url)  # as the sender will read it
    except httpx.InvalidURL as error:
        raise ValueError("is not a URL") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.host in _LOOPBACK):
        raise ValueError("must begin with https://, or with http:// and a loopback host")
    if not parts.host or parts.userinfo:
        raise ValueError("must name a host, and no user or password")
    return url


class NewWebhook(BaseModel):
    """Where to tell, and what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(max_length=2_000), AfterValidator(_address)]
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]


class WebhookLine(BaseModel):
    """A webhook, and how it stands with it."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    name: str
    url: str
    kinds: tuple[str, ...]
    created_at: datetime
    created_by: str
    waiting: int = Field(description="Messages that are not delivered yet")
    given_up: int = Field(description="Messages that nobody took for three days; POST .../retry sends them again")
    tenant: str = Field(description="Whose decisions and cases it hears; empty: everybody's")
    off_at: datetime | None = Field(description="When it answered 410 Gone; told nothing until a PUT; null before")


class MadeWebhook(BaseModel):
    """What a PUT made."""

    model_config = ConfigDict(frozen=True)

    name: str
    secret: str | None = Field(description="Checks signatures; shown this once, null when the webhook was there before")


class Retried(BaseModel):
    """What is sent again."""

    model_config = ConfigDict(frozen=True)

    messages: int


@router.get(
    "/v1/webhooks",
    summary="The webhooks",
    responses=shown([examples.WEBHOOK]) | refusals(401, 403, 503),
    dependencies=[Depends(Serves())],
)
async def webhooks(services: Use) -> list[WebhookLine]:
    """Each with what waits for it, and what was given up."""
    return list(map(WebhookLine.model_validate, await services.repository.webhooks.list()))


@router.put(
    "/v1/webhooks/{name}",
    summary="Tell an address of decisions or case changes",
    responses=shown(examples.MADE_WEBHOOK) | refusals(401, 403, 413, 422, 503),
)
async def put_webhook(
    services: Use, caller: Admin, name: Name, wanted: Annotated[NewWebhook, Body(examples=[examples.NEW_WEBHOOK])]
) -> MadeWebhook:
    """From now on; of one that exists address and kinds are changed, and its secret stays. One that answered 410 Gone
    is told again.
    """
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    new = await services.repository.webhooks.put(
        name, wanted.url, frozenset(wanted.kinds), services.seal.close(secret), actor(caller), services.clock.now()
    )
    return MadeWebhook(name=name, secret=secret if new else None)


@router.delete(
    "/v1/webhooks/{name}",
    status_code=204,
    summary="Tell an address no longer",
    responses=refusals(401, 403, 404, 422, 503),
)
async def remove_webhook(services: Use, caller: Admin, name: Name) -> Response:
    """What still waited for it is forgotten."""
    await services.repository.webhooks.remove(name, actor(caller), services.clock.now())
    return Response(status_code=204)


@router.post(
    "/v1/webhooks/{name}/retry",
    summary="Send again what was given up",
    responses=shown({"messages": 3}) | refusals(401, 403, 404, 422, 503),
)
async def retry(services: Use, caller: Admin, name: Name) -> Retried:
    """With the ids it had: the receiver knows what it has seen."""
    return Retried(messages=await services.repository.webhooks.retry(name, actor(caller), services.clock.now()))
