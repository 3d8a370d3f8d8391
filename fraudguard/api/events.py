"""Events in: synchronous screening, its asynchronous twin, and the decision of an event.

Both put the event on Kafka as it came, a tenant's with its name, and leave deciding to the workers; an event counts
once however often it is sent.
"""

import asyncio
import json
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from fraudguard.api import examples
from fraudguard.api.auth import Serves
from fraudguard.api.openapi import Responses, event_body, refusals, shown
from fraudguard.api.problems import RETRY_AFTER_S, ProblemError, unavailable
from fraudguard.api.schemas import Accepted, ScreenQuery, TenantQuery
from fraudguard.api.services import Services, Use
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Decision, Event, Label, Role, Screenable
from fraudguard.errors import BadEvent, NotFound
from fraudguard.events.schema import parse_event
from fraudguard.events.topics import LABELS, MESSAGES, TRANSACTIONS
from fraudguard.tenants import ATTRIBUTE, decision_id_of, event_key, tenant_of

router = APIRouter(tags=["events"])

TOPICS = {"transaction": TRANSACTIONS, "message": MESSAGES, "label": LABELS}

_MESSAGE_AND_TRANSACTION = {"message": examples.MESSAGE, "transaction": examples.TRANSACTION}
_ACCEPTED: Responses = shown({"event_id": "t-1", "status": "accepted", "decision": "/v1/events/t-1/decision"}, 202)
_ACCEPTED[202]["headers"] = {
    "Location": {"description": "Where the decision will be; none for a label", "schema": {"type": "string"}}
}


@router.post(
    "/v1/screen",
    summary="Screen one transaction or message and wait for its decision",
    openapi_extra=event_body(_MESSAGE_AND_TRANSACTION),
    responses=shown(examples.DECISION) | refusals(401, 403, 409, 413, 422, 503, 504),
)
async def screen(
    request: Request,
    caller: Annotated[Principal, Depends(Serves(Role.SERVICE))],
    services: Use,
    query: Annotated[ScreenQuery, Query()],
) -> Decision:
    """The decision of this event; of an event that was decided before, the decision it got then.

    At the deadline 504: the event is on Kafka and will be decided; `Location` says where to look.
    """
    event, raw = _stamped(*await _read(request, services), caller.tenant)
    if isinstance(event, Label):
        raise BadEvent(
            "is a label, which gets no decision", code="unknown_type", path="type", hint="send labels to /v1/events"
        )
    key = event_key(event)
    earlier = (await services.repository.earlier([key])).get(key)
    if earlier:
        return _own(earlier.decision, event)
    return _own(await _decide(services, event, raw, query.deadline_ms or services.settings.screen_deadline_ms), event)


async def _decide(services: Services, event: Screenable, raw: bytes, deadline_ms: int) -> Decision:
    """Send the event and wait for what a worker decides."""
    sent = False
    try:
        with services.listener.expect(decision_id_of(event_key(event))) as decided:
            async with asyncio.timeout(deadline_ms / 1000):
                await services.producer.send(TOPICS[event.type], event.account_id.encode(), raw)
                sent = True
                return await decided
    except TimeoutError:
        if not sent:
            detail = f"Kafka did not acknowledge the event within {deadline_ms} ms"
            hint = "send it again with the same event_id: an event counts once, however often it is sent"
            raise unavailable("broker_unavailable", detail, hint) from None
        place = _place(event)
        raise ProblemError(
            504,
            "not_decided_in_time",
            f"the event is accepted but was not decided within {deadline_ms} ms",
            hint=f"ask {place}",
            headers={"Location": place, "Retry-After": str(RETRY_AFTER_S)},
        ) from None


@router.post(
    "/v1/events",
    status_code=202,
    summary="Accept one transaction, message or label, to be decided later",
    openapi_extra=event_body(_MESSAGE_AND_TRANSACTION | {"label": examples.LABEL}),
    responses=_ACCEPTED | refusals(401, 403, 413, 422, 503),
)
async def accept(
    request: Request,
    response: Response,
    services: Use,
    caller: Annotated[Principal, Depends(Serves(Role.SERVICE, Role.ANALYST, Role.LEAD))],
) -> Accepted:
    """Kafka has the event when this answers 202.

    Services send everything but labels of source `analyst`; analysts and leads send labels.
    """
    event, raw = _stamped(*await _read(request, services), caller.tenant)
    _check_role(caller.role, event)
    await services.producer.send(TOPICS[event.type], event.account_id.encode(), raw)
    if isinstance(event, Label):
        return Accepted(event_id=event.event_id, decision=None)
    response.headers["Location"] = _place(event)
    return Accepted(event_id=event.event_id, decision=_place(event))


_EVENT_ID = Path(max_length=128, examples=[examples.EVENT_ID])


@router.get(
    "/v1/events/{event_id:path}/decision",
    summary="The decision of an event",
    responses=shown(examples.DECISION) | refusals(401, 403, 404, 422, 503),
)
async def decision_of_event(
    caller: Annotated[Principal, Depends(Serves(*Role))],
    services: Use,
    event_id: Annotated[str, _EVENT_ID],
    query: Annotated[TenantQuery, Query()],
) -> Decision:
    """404 with Retry-After while there is none: not decided yet, refused (see the dead letters), or never sent."""
    try:
        return (await services.repository.record_of_event(event_id, caller.tenant or query.tenant)).decision
    except NotFound:
        raise ProblemError(
            404,
            "not_decided",
            "this event is not decided (yet)",
            path="event_id",
            hint="an event that was accepted and stays undecided is in the dead letters, with the reason",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        ) from None


async def _read(request: Request, services: Services) -> tuple[Event, bytes]:
    """The event, refused here for whatever the worker would refuse in it alone, and its bytes. Raises BadEvent."""
    raw = await request.body()
    event = parse_event(raw)
    # Read again as the worker will: keyed, and appended now.
    return parse_event(raw, event.account_id.encode(), services.clock.now(), services.settings.future_s), raw


def _stamped(event: Event, raw: bytes, tenant: str) -> tuple[Event, bytes]:
    """The event as the caller may send it: a tenant's as its own, whether it says so or not. Raises BadEvent."""
    named = event.attributes.get(ATTRIBUTE)
    if named == tenant or not tenant:
        return event, raw
    if named is not None:
        hint = "leave the attribute out, or name your own tenant"
        raise ProblemError(403, "other_tenant", "is not your tenant", path=f"attributes.{ATTRIBUTE}", hint=hint)
    fields = json.loads(raw)
    raw = json.dumps(fields | {"attributes": event.attributes | {ATTRIBUTE: tenant}}, ensure_ascii=False).encode()
    return parse_event(raw), raw


def _own(decision: Decision, event: Screenable) -> Decision:
    """The decision, unless it is that of another account's event."""
    if decision.account_id == event.account_id:
        return decision
    raise ProblemError(
        409,
        "duplicate_event_id",
        "this event_id was already used by another account's event",
        path="event_id",
        hint="event ids are unique over all accounts of a tenant",
    )


def _check_role(role: Role, event: Event) -> None:
    if role is Role.ADMIN:
        return
    by_analyst = isinstance(event, Label) and event.source == "analyst"
    if role in (Role.ANALYST, Role.LEAD) and not isinstance(event, Label):
        raise ProblemError(403, "wrong_role", f"{role} sends labels only", path="type", hint="use a service's key")
    if role is Role.SERVICE and by_analyst:
        detail = "a service does not speak for an analyst"
        raise ProblemError(403, "wrong_role", detail, path="source", hint="use an analyst's key, or another source")


def _place(event: Event) -> str:
    tenant = tenant_of(event)
    return f"/v1/events/{quote(event.event_id, safe='')}/decision" + (f"?tenant={tenant}" if tenant else "")
