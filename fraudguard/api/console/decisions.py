"""The decision explorer: filters, conditions in the rules' language, and one decision with all that it rests on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from fraudguard.api.console import why
from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import is_fragment, page, part
from fraudguard.api.decisions import look
from fraudguard.api.services import Services, Use
from fraudguard.decisions.listing import DecisionFilter
from fraudguard.decisions.pages import Page
from fraudguard.domain import DecisionRecord, Outcome, Typology
from fraudguard.errors import BadInput
from fraudguard.features.registry import features_in
from fraudguard.rules.expression import Fault
from fraudguard.rules.questions import faults_of
from fraudguard.search import Found, fields_in_force

router = APIRouter()

ROWS: Final = 50
WHERE_MAX: Final = 2_000
FAULTS_MAX: Final = 3
FIELDS: Final = ("where", "account", "outcome", "event_type", "typology", "risk", "reason", "from", "to")
_LENGTHS: Final = {"where": WHERE_MAX}


@dataclass(frozen=True, slots=True)
class Checked:
    """A condition as the compiler sees it. before, fault, after: the source around its first fault; more: faults left.

    Without faults it is in order.
    """

    before: str
    fault: str
    after: str
    faults: tuple[Fault, ...]
    more: int


@router.get("/decisions")
async def explore(request: Request, services: Use, reader: Reading) -> Response:
    """Decisions that meet every filter; a filter that cannot be read is named and nothing is listed."""
    asked = {field: request.query_params.get(field, "").strip()[: _LENGTHS.get(field, 128)] for field in FIELDS}
    cursor = request.query_params.get("cursor")
    found: Page[DecisionRecord] | Found = Page((), None)
    problem: BadInput | None = None
    try:
        wanted = _filter(asked, reader.zone)
        if asked["where"]:
            found = await look(services, asked["where"], wanted, ROWS, cursor)
        else:
            found = await services.repository.list_decisions(wanted, ROWS, cursor)
    except BadInput as error:
        problem = error
    template = part(request, "decisions.html", "decision_list.html", "decision_rows.html")
    values: Mapping[str, Any] = {
        "asked": asked,
        "records": found.records if isinstance(found, Found) else found.items,
        "next": found.next,
        "searched": found if isinstance(found, Found) else None,
        "problem": problem,
        "checked": await _checked(services, asked["where"]),
        "outcomes": tuple(Outcome),
        "typologies": tuple(Typology),
        "query": {k: v for k, v in asked.items() if v},
    }
    return page(template, reader, "decisions", status=422 if problem and not is_fragment(request) else 200, **values)


@router.get("/decisions/check")
async def check(services: Use, reader: Reading, where: Annotated[str, Query(max_length=WHERE_MAX)] = "") -> Response:
    """What the compiler of rules says of a condition while it is typed."""
    return page("where_check.html", reader, "decisions", checked=await _checked(services, where))


async def _checked(services: Services, where: str) -> Checked | None:
    """None for an empty field."""
    if not where.strip():
        return None
    fields = await fields_in_force(services.publishing, features_in(services.settings.base_currency))
    faults = faults_of(where, fields)
    if not faults:
        return Checked("", "", "", (), 0)
    at = min(faults[0].at, len(where))
    word = re.match(r"[\w.@]+|\S|", where[at:])
    end = at + len(word[0]) if word else at
    return Checked(where[:at], where[at:end], where[end:], tuple(faults[:FAULTS_MAX]), max(0, len(faults) - FAULTS_MAX))


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
