"""A case in words, as server-sent events: numbered evidence, then a text that links to it. It reads alone."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, suppress
from functools import partial
from typing import Annotated, Final, cast
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fraudguard.api import examples
from fraudguard.api.auth import Serves
from fraudguard.api.evidence_schemas import NarrativeQuery
from fraudguard.api.openapi import Responses, refusals
from fraudguard.api.problems import ProblemError, unavailable
from fraudguard.api.services import Services, Use
from fraudguard.api.why import explanation
from fraudguard.decisions.casebook import Alert
from fraudguard.domain import Role
from fraudguard.narrative.grounding import Discard, Link, Piece, Text
from fraudguard.narrative.items import Item, items_of
from fraudguard.narrative.prompt import Language
from fraudguard.narrative.server import NarrativeServer
from fraudguard.narrative.telling import End, Source, tell

router = APIRouter(tags=["cases"])

READERS = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR)
TOLD_S: Final = 150.0  # more than a server's answer and a template take together
_TOLD: Responses = {200: {"content": {"text/event-stream": {"example": examples.NARRATIVE}}}}


Watch = Callable[[Callable[[], None]], AbstractContextManager[None]]


class EventStream(StreamingResponse):
    """Server-sent events, for `seconds` (TOLD_S) at most: whoever reads too slowly must not keep others from theirs.

    watch: entered meanwhile with what ends them sooner.
    """

    media_type = "text/event-stream"
    seconds: float | None = None  # TOLD_S

    def __init__(self, events: AsyncIterable[str], watch: Watch, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(events, headers=headers)
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them, and end whatever makes them."""
        making = cast(AsyncGenerator[str, None], self.body_iterator)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds or TOLD_S) as limit, aclosing(making):
                with self._watch(lambda: None if limit.expired() else limit.reschedule(0)):
                    await super().__call__(scope, receive, send)


@router.get(
    "/v1/cases/{case_id}/narrative",
    status_code=200,
    summary="A case told in words",
    response_class=EventStream,
    responses=_TOLD | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def get_narrative(
    services: Use,
    request: Request,
    case_id: Annotated[str, Path(max_length=64, examples=[examples.CASE_ID])],
    query: Annotated[NarrativeQuery, Query()],
) -> EventStream:
    """Of the case's riskiest alert, by the configured language model, or else from a template.

    Events: `evidence` (the numbered items; `generated` is true), `source` (who tells), `text` and `link` in their
    order, `discard` (forget the texts and links so far), `end`. Texts are escaped for HTML and hold no markup. The
    narrative is generated, is no part of the decision and is not stored.
    """
    _, alerts = await services.repository.cases.get_case(case_id)
    if not alerts:
        raise ProblemError(404, "not_found", f"case {case_id!r} has no alerts")
    if services.narratives.locked():
        raise unavailable("narrative_busy", "too many narratives are being written")
    items = await _items(services, max(alerts, key=_weight).decision_id)
    unbuffered = {"X-Accel-Buffering": "no"}  # by a proxy
    events = _events(services, items, query.language)
    return EventStream(events, partial(services.streams.watched, request), headers=unbuffered)


def _weight(alert: Alert) -> tuple[float, int]:
    return (-1.0 if alert.risk is None else alert.risk), alert.sequence


async def _items(services: Services, decision_id: str) -> tuple[Item, ...]:
    """What can be said of the decision now; evidence that is not made yet is asked for and left out."""
    book = services.repository.evidence
    record = await services.repository.record(decision_id)
    made = await book.of(decision_id)
    if made is None and record.score is not None:
        await book.wish(decision_id, services.clock.now())
    decision = record.decision
    lines = await book.risks(decision.account_id, decision.tenant, record.timeline_start, decision.sequence)
    explained = await explanation(services, record)
    return items_of(record, lines, made, explained.asked if explained else (), ZoneInfo(services.settings.time_zone))


async def _events(services: Services, items: tuple[Item, ...], language: Language) -> AsyncGenerator[str, None]:
    shown = [{"number": i.number, "kind": i.kind, "ref": i.ref, "facts": dict(i.facts)} for i in items]
    yield _event("evidence", {"generated": True, "language": language, "items": shown})
    settings = services.settings
    server = None
    if settings.narrative_url is not None and settings.narrative_model is not None:
        server = NarrativeServer(str(settings.narrative_url), settings.narrative_model, settings.narrative_key)
    async with services.narratives, aclosing(tell(items, language, server)) as told:
        async for one in told:
            yield _told(one)


def _told(one: Source | Piece | End) -> str:
    match one:
        case Source(by, model, why):
            return _event("source", {"by": by, "model": model, "why": why})
        case Text(text):
            return _event("text", {"text": text})
        case Link(number):
            return _event("link", {"number": number})
        case Discard():
            return _event("discard", {})
        case End(complete):
            return _event("end", {"complete": complete})


def _event(name: str, data: Mapping[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
