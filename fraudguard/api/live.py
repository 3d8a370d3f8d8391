"""The live queue: which cases change, as server-sent events. Ids, versions and states; the client reads the rest."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from fraudguard.api import examples
from fraudguard.api.auth import Serves
from fraudguard.api.openapi import refusals
from fraudguard.api.services import Services, Use
from fraudguard.decisions.feed import CaseChange
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

router = APIRouter(tags=["cases"])

BEAT_S = 15.0  # proxies cut a connection that is silent for a minute
STREAM_S = 600.0  # then the client comes back; sooner where its session or key ends
RETRY_MS = 1_000  # how soon it does

_EXAMPLE = f'event: case\ndata: {{"case_id":"{examples.CASE_ID}","version":3,"state":"investigating"}}\n\n'
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events until the client leaves or may call no longer, ten minutes at most",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


@router.get(
    "/v1/cases/live",
    summary="Which cases change",
    response_class=StreamingResponse,
    responses=_STREAM | refusals(401, 403, 409, 503),
)
async def live(
    caller: Annotated[Principal, Depends(Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR))],
    services: Use,
    request: Request,
) -> StreamingResponse:
    """Server-sent events: `case` with a case's id, version and state, each within a second of its change; `refetch`,
    first of all and whenever changes may have been missed: read the list again.
    """
    events = _events(services, request, caller.tenant)
    await anext(events)  # a refusal is an answer of its own, not a broken stream
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _events(services: Services, request: Request, tenant: str) -> AsyncIterator[bytes]:
    ends = services.clock.monotonic() + STREAM_S
    with services.feed.subscribe(tenant) as subscription, services.streams.watched(request, subscription.end):
        yield b""
        yield b"retry: %d\n\n" % RETRY_MS
        while services.clock.monotonic() < ends and not subscription.ended:
            stale, changes = await subscription.hear(BEAT_S)
            if stale:
                yield b"event: refetch\ndata: {}\n\n"
            for change in changes:
                yield _event(change)
            if not stale and not changes:
                yield b": beat\n\n"


def _event(change: CaseChange) -> bytes:
    told = {"case_id": change.case_id, "version": change.version, "state": change.state}
    return b"event: case\ndata: %b\n\n" % orjson.dumps(told)
