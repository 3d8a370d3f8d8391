"""The decision explorer: filters, newest first, and one decision with all that it rests on."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from fraudguard.api.console import why
from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import page, part
from fraudguard.api.services import Use
from fraudguard.decisions.listing import DecisionFilter
from fraudguard.decisions.pages import Page
from fraudguard.domain import DecisionRecord, Outcome, Typology
from fraudguard.errors import BadInput
from fraudguard.features.registry import features_in

router = APIRouter()

ROWS: Final = 50
FIELDS: Final = ("account", "outcome", "event_type", "typology", "risk", "reason", "from", "to")


@router.get("/decisions")
async def explore(request: Request, services: Use, reader: Reading) -> Response:
    """Decisions that meet every filter; a filter that cannot be read is named and nothing is listed."""
    asked = {field: request.query_params.get(field, "").strip()[:128] for field in FIELDS}
    cursor = request.query_params.get("cursor")
    found: Page[DecisionRecord] = Page((), None)
    problem: BadInput | None = None
    try:
        found = await services.repository.list_decisions(_filter(asked, reader.zone), ROWS, cursor)
    except BadInput as error:
        problem = error
    template = part(request, "decisions.html", "decision_list.html", "decision_rows.html")
    values: Mapping[str, Any] = {
        "asked": asked,
        "records": found.items,
        "next": found.next,
        "problem": problem,
        "outcomes": tuple(Outcome),
        "typologies": tuple(Typology),
        "query": {k: v for k, v in asked.items() if v},
    }
    return page(template, reader, "decisions", status=422 if problem else 200, **values)


@router.get("/decisions/{decision_id}")
async def show(services: Use, reader: Reading, decision_id: Annotated[str, Path(max_length=64)]) -> Response:
    """One decision: the line, the outcome, the hits with their values, and every feature."""
    record = await services.repository.record(decision_id)
    lines = await services.repository.timeline(record)
    hits = await why.reasons(reader.shelf, services.repository, [(record, lines)])
    groups: dict[str, list[tuple[Any, Any]]] = {}
    for feature in features_in(reader.currency):
        value = record.features.get(feature.name)
        if value is not None and feature.group != "event":
            groups.setdefault(feature.group, []).append((feature, value))
    return page("decision.html", reader, "decisions", record=record, hits=hits, groups=groups, lines=lines)


def _filter(asked: Mapping[str, str], zone: ZoneInfo) -> DecisionFilter:
    """Raises BadInput naming the field."""
    return DecisionFilter(
        account_id=asked["account"] or None,
        outcome=Outcome(asked["outcome"]) if asked["outcome"] in tuple(Outcome) else None,
        event_type=_event_type(asked["event_type"]),
        typology=Typology(asked["typology"]) if asked["typology"] in tuple(Typology) else None,
        risk_min=_risk(asked["risk"]),
        reason=asked["reason"].upper() or None,
        event_time_from=_time(asked["from"], "from", zone),
        event_time_to=_time(asked["to"], "to", zone),
    )


def _event_type(value: str) -> Literal["transaction", "message"] | None:
    return "transaction" if value == "transaction" else "message" if value == "message" else None


def _risk(value: str) -> float | None:
    try:
        number = float(value) if value else None
    except ValueError:
        number = -1.0
    if number is not None and not 0 <= number <= 1:
        raise BadInput("must be a number from 0 to 1", path="risk")
    return number


def _time(value: str, path: str, zone: ZoneInfo) -> datetime | None:
    """A browser's local date and time, in the house's zone."""
    try:
        return datetime.fromisoformat(value).replace(tzinfo=zone) if value else None
    except ValueError as error:
        raise BadInput("must be a date and time", path=path) from error
