"""The model page: champion beside challenger, precision of judged alerts, calibration, drift; promote, go back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import plots
from fraudguard.api.console.readers import HouseReading, HouseRuling
from fraudguard.api.console.rendering import Reader, page, refusing
from fraudguard.api.console.sending import form_of
from fraudguard.api.models import promoting, quality_of
from fraudguard.api.services import Services, Use
from fraudguard.decisions.models import Entry, Head, Step
from fraudguard.errors import Conflict
from fraudguard.measures import Metrics, shipped
from fraudguard.quality import Bin, Share, WeekQuality

router = APIRouter()

STEPS_SHOWN: Final = 6
_ROWS: Final = (
    ("average_precision", True),
    ("recall_at_01_fpr", True),
    ("recall_at_1_fpr", True),
    ("roc_auc", True),
    ("precision_at_k", True),
    ("calibration_error", False),
    ("early_share", True),
)


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the comparison. better: whether the challenger is; None where they are equal or one has none."""

    name: str
    champion: float | None
    challenger: float | None
    better: bool | None


@router.get("/model")
async def show(services: Use, reader: HouseReading) -> Response:
    """Everything that the page has; nothing on it needs more than some hundred milliseconds."""
    book = services.repository.models
    head, entries, former = await book.head(), await book.entries(), await book.former()
    found = await quality_of(services, head)
    old, new = _metrics(head, entries, found.scoring)
    challenger = head.challenger if head else None
    return page(
        "model.html",
        reader,
        "model",
        head=head,
        found=found,
        old=old,
        new=new,
        measures=_measures(old, new),
        gate=await _gate(services, head) if challenger else None,
        back=former[0] if former else None,
        can_go_back=bool(former),
        steps=_steps(entries)[:STEPS_SHOWN],
        precision=_precision(found.weeks),
        calibration=_calibration(found.bins, reader),
    )


@router.post("/model/promote")
async def promote(request: Request, services: Use, reader: HouseRuling) -> Response:
    """The challenger that the page showed; the gate's objections are shown in full."""
    fields = await form_of(request)
    who, now = actor(reader.principal), services.clock.now()
    with refusing():
        await promoting(services).promote(fields.get("model", ""), who, fields.get("note", ""), now)
    return Response(status_code=204, headers={"HX-Refresh": "true"})


@router.post("/model/rollback")
async def rollback(request: Request, services: Use, reader: HouseRuling) -> Response:
    """To the champion before."""
    who, now = actor(reader.principal), services.clock.now()
    with refusing():
        await promoting(services).rollback(None, who, (await form_of(request)).get("note", ""), now)
    return Response(status_code=204, headers={"HX-Refresh": "true"})


async def _gate(services: Services, head: Head | None) -> Sequence[str]:
    """Why the challenger may not be promoted from here; nothing where it may."""
    if head is None or head.challenger is None:
        return ()
    try:
        return await promoting(services).objections(head, head.challenger)
    except Conflict as error:
        return (error.reason, error.hint)


def _metrics(head: Head | None, entries: Sequence[Entry], scoring: str | None) -> tuple[Metrics | None, Metrics | None]:
    """What champion and challenger were measured to be; of an unregistered champion, if it is the one that ships."""
    stored: Mapping[str, Any] = {entry.model.digest: entry.metrics for entry in entries}
    found: list[Metrics | None] = []
    for model in (head.champion, head.challenger) if head else (None, None):
        held = stored.get(model.digest) if model else None
        found.append(Metrics.model_validate(held) if held else None)
    known = None if head and head.champion else shipped()
    if known and scoring and known.model.partition("+")[0] == scoring.partition("+")[0]:
        found[0] = known
    return found[0], found[1]


def _measures(old: Metrics | None, new: Metrics | None) -> list[Measure]:
    rows = []
    for name, more_is_better in _ROWS:
        a, b = (getattr(one.measures, name) if one else None for one in (old, new))
        better = None if a is None or b is None or a == b else (b > a) is more_is_better
        rows.append(Measure(name, a, b, better))
    return rows


def _steps(entries: Sequence[Entry]) -> list[tuple[str, Step]]:
    """Who did what with which model, the newest first."""
    done = [(entry.model.id, step) for entry in entries for step in entry.steps]
    return sorted(done, key=lambda one: one[1].at, reverse=True)


def _precision(weeks: Sequence[WeekQuality]) -> plots.Plot | None:
    room = 1 / max(1, len(weeks))
    middles = [room * (place + 0.5) for place in range(len(weeks))]
    places = [
        _place(middle, week.precision, f"{week.week.name}: {_of(week.precision)}")
        for middle, week in zip(middles, weeks, strict=True)
        if week.precision.whole
    ]
    columns = [(middle, week.week.name[5:]) for middle, week in zip(middles, weeks, strict=True)]
    return plots.points(places, columns, _percent) if places else None


def _calibration(bins: Sequence[Bin], reader: Reader) -> plots.Plot | None:
    places = [
        _place(one.risk, one.frauds, reader.words("model.bin", low=one.low, high=one.high, share=_of(one.frauds)))
        for one in bins
    ]
    columns = [(share, f"{share:.1f}") for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    return plots.points(places, columns, _percent, even=True) if places else None


def _place(x: float, share: Share, title: str) -> tuple[float, float, float, float, str]:
    return x, share.value or 0.0, share.low or 0.0, share.high or 0.0, title


def _of(share: Share) -> str:
    return f"{share.part:,} / {share.whole:,}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
