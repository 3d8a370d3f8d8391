"""The operations page: latency against the budget, degraded decisions, where the workers stand, dead letters.

Three parts that refresh themselves: Kafka may be slow or away, and must not keep the page from what is known without.
"""

from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import plots
from fraudguard.api.console.readers import HouseLeading, HouseRuling
from fraudguard.api.console.rendering import Reader, page, part, refusing
from fraudguard.api.console.sending import form_of
from fraudguard.api.operations import Wish, letters_of, pulse_of, selection_of, standing_of
from fraudguard.api.pulse import Lately
from fraudguard.api.services import Use
from fraudguard.events.standing import Standing
from fraudguard.events.topics import INPUTS

router = APIRouter()

CHANGED: Final = {"HX-Trigger": "lettersChanged"}
COLUMN_MINUTES: Final = 5
DEGRADED_SHOWN: Final = 0.04  # the scale's least top: 1 % should not look like all
PARTITIONS_SHOWN: Final = 32


@router.get("/operations")
async def show(request: Request, services: Use, reader: HouseLeading) -> Response:
    """The page with what the decisions say; the rest comes after it."""
    found = await pulse_of(services)
    template = part(request, "operations.html", "operations_pulse.html", "operations_pulse.html")
    return page(template, reader, "operations", lately=found, **_charts(found, reader))


@router.get("/operations/kafka")
async def kafka(services: Use, reader: HouseLeading) -> Response:
    """Lag by partition, and who has which."""
    standing, problem = await standing_of(services)
    rows = _partitions(standing) if standing else []
    values: dict[str, Any] = {"standing": standing, "problem": problem, "topics": INPUTS}
    rows.sort(key=lambda row: (-row["lag"], row["partition"]))
    shown = sorted(rows[:PARTITIONS_SHOWN], key=lambda row: row["partition"])
    return page("operations_kafka.html", reader, "operations", rows=shown, hidden=len(rows) - len(shown), **values)


@router.get("/operations/letters")
async def letters(services: Use, reader: HouseLeading) -> Response:
    """The newest dead letters, and how the last replay went."""
    found, problem = await letters_of(services)
    last = await services.repository.letters.last()
    return page("operations_letters.html", reader, "operations", found=found, problem=problem, replay=last)


@router.post("/operations/replay")
async def replay(request: Request, services: Use, reader: HouseRuling) -> Response:
    """Send one letter again, or all that were not yet."""
    one = (await form_of(request)).get("ids", "")
    with refusing():
        await services.replays.start(selection_of(Wish(ids=(one,) if one else ())), actor(reader.principal))
    services.letters.forget()
    return Response(status_code=204, headers=CHANGED)


def _charts(found: Lately, reader: Reader) -> dict[str, Any]:
    zone, minutes = reader.zone, found.minutes
    columns = [_clock(one.at, zone) if one.at.minute % COLUMN_MINUTES == 0 else "" for one in minutes]
    series = {name: [getattr(one.latency, name) for one in minutes] for name in ("p50", "p95", "p99")}
    known = [value for values in series.values() for value in values if value is not None]
    budget = float(found.budget_ms)
    degraded = [one.latency.degraded for one in minutes]
    titles = [f"{_clock(one.at, zone)}  {_percent(one.latency.degraded or 0)}" for one in minutes]
    shares = plots.scale([share for share in degraded if share], "linear", DEGRADED_SHOWN)
    return {
        "latency": plots.lines(
            series, columns, plots.scale([*known, budget], "log", 1), _milliseconds, (budget, f"{budget:,.0f}")
        ),
        "degraded": plots.bars(degraded, columns, titles, shares, _percent),
    }


def _partitions(standing: Standing) -> list[dict[str, Any]]:
    """One row a partition number: its lag on each topic, and who has it; a number is one worker's on all topics."""
    rows: dict[int, dict[str, Any]] = {}
    for share in standing.shares:
        row = rows.setdefault(share.partition, {"partition": share.partition, "lags": {}, "worker": None, "lag": 0})
        row["lags"][share.topic] = share.lag
        row["lag"] += share.lag
        row["worker"] = share.worker if share.worker is not None else row["worker"]
    return list(rows.values())


def _clock(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%H:%M}"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value < 1_000 else f"{value / 1_000:,.0f} s"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %" if share < 0.9995 else "100 %"  # 1e+02 otherwise
