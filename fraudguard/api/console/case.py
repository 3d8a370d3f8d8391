"""One case: what happened, why the machine worries, what the account usually does, and the verdict."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import links, reasons, timeline, why
from fraudguard.api.console.charts import Spark, spark
from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import Reader, page
from fraudguard.api.services import Services, Use
from fraudguard.decisions.casebook import UNDO, Alert, Case, CaseFilter
from fraudguard.domain import Contribution, DecisionRecord, Timeline
from fraudguard.domain import Line as TimelineLine
from fraudguard.errors import NotFound

router = APIRouter()

BEFORE: Final = 12  # lines shown before the first alert
LINES_MAX: Final = 120
ALERTS_EXPLAINED: Final = 20
EARLIER_MAX: Final = 5
EFFECT_MIN: Final = 0.01
EFFECTS_MAX: Final = 5
SPARK_DAYS: Final = 30
CaseId = Annotated[str, Path(max_length=64)]


@router.get("/cases/{case_id}")
async def show(
    services: Use, reader: Reading, case_id: CaseId, closed: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """The whole case. closed: the case that was disposed of just before, whose undo is offered."""
    case, alerts = await services.repository.cases.get_case(case_id)
    undo = await just_closed(services, reader, closed)
    newest = await services.repository.casefile.newest_sequence(case.account_id, case.tenant)
    first, last = _window(alerts, case.account_id, newest)
    records = await services.repository.casefile.lines(case.account_id, case.tenant, max(1, first - 1), last)
    shown, before = (records[1:], records[0].decision.risk) if first > 1 else (records, None)
    rows = timeline.rows(shown, {alert.decision_id for alert in alerts}, before)
    return page(
        "case.html", reader, "case", **await _facts(services, reader, case, alerts, rows, first, newest), undo=undo
    )


def _window(alerts: Sequence[Alert], account_id: str, newest: int) -> tuple[int, int]:
    """The first and last sequence to show: from a little before the first alert, but the newest LINES_MAX at most."""
    own = [alert.sequence for alert in alerts if alert.account_id == account_id]  # the others are of merged cases
    first = min(own, default=newest) - BEFORE
    return max(1, first, newest - LINES_MAX + 1), newest


async def _facts(
    services: Services,
    reader: Reader,
    case: Case,
    alerts: Sequence[Alert],
    rows: Sequence[timeline.Row],
    first: int,
    newest: int,
) -> dict[str, Any]:
    repository = services.repository
    alerted = [row.record for row in rows if row.alert][-ALERTS_EXPLAINED:]
    hits = await why.reasons(reader.shelf, repository, [(record, _timeline(record, rows)) for record in alerted])
    top = max(alerted, key=lambda r: (r.event.type == "transaction", r.decision.risk or 0), default=None)
    at = top.event.event_time if top else reader.now
    before = CaseFilter(account_id=case.account_id, state="closed", tenant=case.tenant)
    earlier = await repository.cases.list_cases(before, EARLIER_MAX + 1)
    return {
        "case": case,
        "alerts": alerts,
        "rows": rows,
        "row_of": {str(row.record.decision.sequence): row for row in rows},
        "first": first,
        "newest": newest,
        "held": timeline.held_money(rows),
        "held_rows": [row for row in rows if row.held and row.alert],
        "hits": hits,
        "top": top,
        "movers": sorted((r for r in rows if r.change and r.change >= timeline.MOVED), key=lambda r: -(r.change or 0))[
            :3
        ],
        "effects": await _effects(services, top) if top else [],
        "habits": why.habits(top) if top else [],
        "links": await links.links(repository, case.tenant, rows, at),
        "earlier": [one for one in earlier.items if one.case_id != case.case_id][:EARLIER_MAX],
        "spark": await _spark(services, case, at),
        "block": reasons.reasons_of("block"),
        "approve": reasons.reasons_of("approve"),
        "holder": case.holder(reader.now),
        "me": actor(reader.principal),
        "notes": (await repository.cases.folder(case.case_id)).notes,
    }


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


async def _spark(services: Services, case: Case, at: datetime) -> Spark:
    since = at - timedelta(days=SPARK_DAYS)
    zone = services.settings.time_zone
    days = await services.repository.casefile.days(case.account_id, case.tenant, since, zone)
    return spark({day.day: day.total for day in days}, at, zone, SPARK_DAYS)


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
