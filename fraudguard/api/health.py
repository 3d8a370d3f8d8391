"""For supervisors: is the process alive, can it work, what has it counted. Needs no key and shows no data."""

import asyncio
from functools import lru_cache

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from fraudguard.api.openapi import Responses, refusals, shown
from fraudguard.api.problems import RETRY_AFTER_S, ProblemError
from fraudguard.api.schemas import Alive, Ready
from fraudguard.api.services import Services, Use
from fraudguard.decisions.migrate import is_current
from fraudguard.errors import BadSettings, BrokerUnavailable, StoreUnavailable
from fraudguard.events.topics import DECISIONS, INPUTS

router = APIRouter(tags=["health"])

STORE_S = 2.0


@router.get("/health/live", summary="Whether the process answers", responses=shown({"status": "alive"}))
async def live() -> Alive:
    """Always 200; restart the process when it does not come."""
    return Alive()


_READY = {"status": "ready", "parts": {"postgres": "ok", "kafka": "ok", "listener": "ok"}}


@router.get(
    "/health/ready",
    summary="Whether requests can be served",
    responses=shown(_READY) | refusals(503),
)
async def ready(services: Use) -> Ready:
    """200 when PostgreSQL answers with a current schema, Kafka has the topics and the listener stands at its place.

    503 otherwise, with each missing part in `detail` and their names in `path`.
    """
    checks = {"postgres": _postgres(services), "kafka": _kafka(services), "listener": _listener(services)}
    found = dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))
    missing = {part: problem for part, problem in found.items() if problem}
    if missing:
        raise ProblemError(
            503,
            "not_ready",
            "; ".join(f"{part}: {problem}" for part, problem in missing.items()),
            path=", ".join(missing),
            hint="the parts are tried again by themselves",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    return Ready(parts=dict.fromkeys(found, "ok"))


async def _postgres(services: Services) -> str | None:
    try:
        async with asyncio.timeout(STORE_S):
            revision = await services.repository.schema_revision()
    except (StoreUnavailable, TimeoutError):
        return "does not answer"
    except BadSettings as error:
        return f"{error.reason} ({error.hint})"
    return None if _is_current(revision) else f"has the old schema {revision} (run `fraudguard migrate`)"


_is_current = lru_cache(maxsize=4)(is_current)  # it reads the migrations' files


async def _kafka(services: Services) -> str | None:
    try:
        missing = {*INPUTS, DECISIONS} - await services.producer.topics()
    except BrokerUnavailable:
        return "does not answer"
    return f"lacks the topics {', '.join(sorted(missing))} (run `fraudguard topics`)" if missing else None


async def _listener(services: Services) -> str | None:
    return None if services.listener.positioned else "does not listen to decisions yet"


_TEXT: Responses = {200: {"content": {"text/plain": {"example": 'fraudguard_events_total{type="message"} 12.0'}}}}


@router.get("/metrics", summary="Prometheus metrics", response_class=Response, responses=_TEXT)
async def metrics() -> Response:
    """Every metric of this process; see fraudguard/metrics.py for what they mean."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
