"""One case: what happened, why the machine worries, what the account usually does, and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import reasons, timeline, why
from fraudguard.api.console.charts import Spark, spark
from fraudguard.api.console.graph import curve, graph
from fraudguard.api.console.links import Link, links
from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import Reader, page
from fraudguard.api.services import Services, Use
from fraudguard.decisions.case_files import FILE_BYTES_MAX, FILES_A_CASE_MAX, MEDIA_TYPES
from fraudguard.decisions.casebook import UNDO, Alert, Case, CaseFilter
from fraudguard.domain import Contribution, DecisionRecord, Timeline, WatchList
from fraudguard.domain import Line as TimelineLine
from fraudguard.errors import BadInput, NotFound

router = APIRouter()

BEFORE: Final = 12  # lines shown before the first alert
LINES_MAX: Final = 120
OLDER: Final = 60  # lines that come at once when older ones are asked for
ALERTS_EXPLAINED: Final = 20
EARLIER_MAX: Final = 5
EFFECT_MIN: Final = 0.01
EFFECTS_MAX: Final = 5
SPARK_DAYS: Final = 30
CaseId = Annotated[str, Path(max_length=64)]


@dataclass(frozen=True, slots=True)
class Offer:
    """An entity that may go on a block list by the verdict. lists: names of those that take its kind."""

    link: Link
    lists: tuple[str, ...]


@router.get("/cases/{case_id}")
async def show(
    services: Use, reader: Reading, case_id: CaseId, closed: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """The whole case. closed: the case that was disposed of just before, whose undo is offered."""
    case, alerts = await services.repository.cases.get_case(case_id)
    undo = await just_closed(services, reader, closed)
    newest = await services.repository.casefile.newest_sequence(case.account_id, case.tenant)
    first, last = _window(alerts, case.account_id, newest)
    rows = await _rows(services, case, alerts, first, last)
    facts = await _facts(services, reader, case, alerts, rows) | await _desk(services, reader, case)
    return page("case.html", reader, "case", **facts, case=case, first=first, undo=undo)


@router.get("/cases/{case_id}/lines")
async def older(
    services: Use, reader: Reading, case_id: CaseId, before: Annotated[int, Query(ge=2, lt=2**62)]
) -> Response:
    """The lines before this sequence of the account, OLDER of them, as list items."""
    case, alerts = await services.repository.cases.get_case(case_id)
    first = max(1, before - OLDER)
    rows = await _rows(services, case, alerts, first, before - 1)
    return page("lines.html", reader, "case", case=case, rows=rows, first=first)


async def _rows(services: Services, case: Case, alerts: Sequence[Alert], first: int, last: int) -> list[timeline.Row]:
    """The account's lines from `first` to `last`, the first one's change against the one before it."""
    records = await services.repository.casefile.lines(case.account_id, case.tenant, max(1, first - 1), last)
    earlier = [record for record in records if record.decision.sequence < first]
    before = earlier[-1].decision.risk if earlier else None
    judged = {alert.decision_id: alert.disposition for alert in alerts}
    return timeline.rows(records[len(earlier) :], judged, before)


def _window(alerts: Sequence[Alert], account_id: str, newest: int) -> tuple[int, int]:
    """The first and last sequence to show: from a little before the first alert, but the newest LINES_MAX at most."""
    own = [alert.sequence for alert in alerts if alert.account_id == account_id]  # the others are of merged cases
    first = min(own, default=newest) - BEFORE
    return max(1, first, newest - LINES_MAX + 1), newest


async def _facts(
    services: Services, reader: Reader, case: Case, alerts: Sequence[Alert], rows: Sequence[timeline.Row]
) -> dict[str, Any]:
    """What is known of the case."""
    repository = services.repository
    alerted = [row.record for row in rows if row.alert][-ALERTS_EXPLAINED:]
    hits = await why.reasons(reader.shelf, repository, [(record, _timeline(record, rows)) for record in alerted])
    top = max(alerted, key=lambda r: (r.event.type == "transaction", r.decision.risk or 0), default=None)
    at = top.event.event_time if top else reader.now
    before = CaseFilter(account_id=case.account_id, state="closed", tenant=case.tenant)
    earlier = await repository.cases.list_cases(before, EARLIER_MAX + 1)
    found = await links(repository, case, rows, at)
    missed = await repository.casefile.missed({case.account_id}, case.tenant)
    cases = await repository.casefile.newest_cases([account for link in found for account in link.others], case.tenant)
    moved = sorted((r for r in rows if r.change and r.change >= timeline.MOVED), key=lambda r: -(r.change or 0))
    return {
        "alerts": alerts,
        "rows": rows,
        "row_of": {str(row.record.decision.sequence): row for row in rows},
        "held": timeline.held_money(rows),
        "held_rows": [row for row in rows if row.held and row.alert],
        "hits": hits,
        "top": top,
        "movers": moved[:3],
        "effects": await _effects(services, top) if top else [],
        "habits": why.habits(top) if top else [],
        "links": found,
        "cases": cases,
        "graph": graph(case.account_id, found, cases),
        "curve": curve,
        "offers": await _offers(services, found) if reader.works and reader.of_house and case.state != "closed" else [],
        "missed": list((await repository.earlier(missed)).values()),
        "earlier": [one for one in earlier.items if one.case_id != case.case_id][:EARLIER_MAX],
        "sparks": await _sparks(services, case, at),
    }


async def _desk(services: Services, reader: Reader, case: Case) -> dict[str, Any]:
    """What people put into it, and what this reader may do."""
    me, holder = actor(reader.principal), case.holder(reader.now)
    review = case.review == "waiting" and reader.leads and case.closed_by != me
    return {
        "block": reasons.reasons_of("block"),
        "approve": reasons.reasons_of("approve"),
        "holder": holder,
        "me": me,
        "mine": holder == me,
        "free": case.state != "closed" and holder in (None, me),
        "asleep": case.snoozed_until is not None and case.snoozed_until > reader.now,
        "reviews": review,
        "folder": await services.repository.cases.folder(case.case_id),
        "file_types": tuple(MEDIA_TYPES),
        "file_bytes_max": FILE_BYTES_MAX,
        "files_max": FILES_A_CASE_MAX,
    }


async def _offers(services: Services, found: Sequence[Link]) -> list[Offer]:
    """What of the links may go on a block list and is on none."""
    try:
        declared: dict[str, WatchList] = await services.publishing.lists()
    except BadInput:  # published by another version of fraudguard: no reason to hide the case
        return []
    offers = []
    for link in found:
        names = [name for name, known in declared.items() if known.kind == "block" and known.entity == link.kind]
        open_ = tuple(sorted(set(names) - set(link.lists)))
        if open_:
            offers.append(Offer(link, open_))
    return offers


async def _effects(services: Services, top: DecisionRecord) -> list[Contribution]:
    """What leaving out one line or one value takes from the decision's risk, the most first; else asks for it."""
    made = await services.repository.evidence.of(top.decision.decision_id)
    if made is None and top.score is not None:
        await services.repository.evidence.wish(top.decision.decision_id, services.clock.now())
    found = [one for one in made.contributions if one.kind != "group" and one.effect >= EFFECT_MIN] if made else []
    return sorted(found, key=lambda one: -one.effect)[:EFFECTS_MAX]


def _timeline(record: DecisionRecord, rows: Sequence[timeline.Row]) -> Timeline:
    """What the decision's rules read of the talk, from the lines at hand."""
    start, end = record.timeline_start, record.decision.sequence
    own = [row.record for row in rows if start <= row.record.decision.sequence <= end]
    lines = tuple(TimelineLine(r.event.type, r.event.event_time, r.line) for r in own)
    return Timeline(record.decision.account_id, start, lines)


async def _sparks(services: Services, case: Case, at: datetime) -> dict[str, Spark]:
    """Of each day up to the case's: what was paid out, in how many payments, to how many payees."""
    since = at - timedelta(days=SPARK_DAYS)
    zone = services.settings.time_zone
    days = await services.repository.casefile.days(case.account_id, case.tenant, since, zone)
    return {
        "out": spark({day.day: day.total for day in days}, at, zone, SPARK_DAYS),
        "transfers": spark({day.day: float(day.payments) for day in days}, at, zone, SPARK_DAYS),
        "payees": spark({day.day: float(day.payees) for day in days}, at, zone, SPARK_DAYS),
    }


async def just_closed(services: Services, reader: Reader, case_id: str) -> Case | None:
    """The case that the reader closed a moment ago, while that can be taken back."""
    if not case_id or not reader.works:
        return None
    try:
        case, _ = await services.repository.cases.get_case(case_id)
    except NotFound:
        return None
    recent = case.closed_at is not None and reader.now < case.closed_at + UNDO
    return case if recent and case.closed_by == actor(reader.principal) else None
