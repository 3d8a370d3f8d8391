"""The model registry: which models there are, how good they have been, who is champion.

Promotes what is registered, behind the gate, and goes back; what needs a model's folder is the command line's: taking
one in, and going over the gate.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, ConfigDict, Field

from fraudguard.api import examples, models_examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.schemas import ModelLine, Models, ModelStep
from fraudguard.api.services import Services, Use
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.models import Head
from fraudguard.decisions.rulebook import NOTE_CHARACTERS_MAX
from fraudguard.domain import Role
from fraudguard.promotion import Promoting
from fraudguard.quality import Quality, Share, WeekQuality, quality

router = APIRouter(tags=["models"])

_READERS = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR, house=True)
Admin = Annotated[Principal, Depends(Serves(house=True))]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class ShareLine(_Shape):
    """part of whole, with its 95 % interval; null without a whole."""

    part: int
    whole: int
    value: float | None
    low: float | None
    high: float | None


class MovedLine(_Shape):
    """The population stability index of the risks; usual: what chance alone may give."""

    psi: float
    usual: float
    level: str


class WeekLine(_Shape):
    """A week's alerts in full, its decisions in a sample. reference: the later weeks are compared with it."""

    week: str = Field(description="ISO week of the event time")
    alerts: int
    precision: ShareLine = Field(description="Confirmed fraud among alerts found fraud or harmless")
    sampled: int
    stopped: ShareLine
    degraded: ShareLine
    mean_risk: dict[str, float]
    moved: dict[str, MovedLine]
    reference: bool


class BinLine(_Shape):
    """Judged alerts whose risk lies from low to high. risk: their mean."""

    low: float
    high: float
    risk: float
    frauds: ShareLine


class TypologyLine(_Shape):
    """Alerts that the model called so; null: it gave no risk."""

    typology: str | None
    alerts: int
    precision: ShareLine


class BesideLine(_Shape):
    """The challenger beside what was decided."""

    sampled: int
    moved: float = Field(description="How much the risk changes on average")
    differing: int = Field(description="Of the sample, outcomes that would be others")
    frauds: ShareLine = Field(description="Of confirmed frauds that were alerted, those that it would alert too")
    false_alarms: ShareLine = Field(description="Of false positives, those that it would alert too")


class QualityLine(_Shape):
    """The last weeks with decisions, the oldest first."""

    scoring: str | None = Field(description="The model of the newest decision")
    weeks: tuple[WeekLine, ...]
    calibration: tuple[BinLine, ...]
    typologies: tuple[TypologyLine, ...]
    challenger: BesideLine | None


class PromotionWish(BaseModel):
    """Which registered model, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(max_length=200, description="NAME@VERSION as listed, or a digest or its beginning")
    note: str = Field(default="", max_length=NOTE_CHARACTERS_MAX)


class RollbackWish(BaseModel):
    """Back to the champion before, or to this earlier one; and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(default=None, max_length=200)
    note: str = Field(default="", max_length=NOTE_CHARACTERS_MAX)


class Champion(_Shape):
    """Who is champion now; null: what the workers' FRAUDGUARD_MODEL names. restart: running workers refuse it."""

    champion: str | None
    restart: bool = False


def promoting(services: Services) -> Promoting:
    """The registry's deeds."""
    return Promoting(services.settings, services.repository)


async def quality_of(services: Services, head: Head | None) -> Quality:
    """The last weeks, with the challenger that stands. Raises StoreUnavailable."""
    challenger = head.challenger if head else None
    return await quality(services.settings, services.repository, challenger, services.clock.now())


@router.get(
    "/v1/models",
    summary="The registered models",
    responses=shown(examples.MODELS) | refusals(401, 403, 503),
    dependencies=[Depends(Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR, house=True))],
)
async def models(services: Use) -> Models:
    """The last added first. Without a champion each worker scores with the model that its settings name."""
    head = await services.repository.models.head()
    lines = [
        ModelLine(
            id=entry.model.id,
            digest=entry.model.digest,
            state=entry.state,
            metrics=entry.metrics,
            added_at=entry.added_at,
            added_by=entry.added_by,
            steps=tuple(map(ModelStep.model_validate, entry.steps)),
        )
        for entry in await services.repository.models.entries()
    ]
    return Models(
        champion=head.champion.id if head and head.champion else None,
        challenger=head.challenger.id if head and head.challenger else None,
        models=tuple(lines),
    )


@router.get(
    "/v1/models/quality",
    summary="How good the model has been, by week",
    responses=shown(models_examples.QUALITY) | refusals(401, 403, 503),
    dependencies=[Depends(_READERS)],
)
async def model_quality(services: Use) -> QualityLine:
    """Precision of judged alerts, calibration, drift of the risk, the challenger beside. `fraudguard drift` counts
    every decision and every input, for whoever has minutes.
    """
    found = await quality_of(services, await services.repository.models.head())
    beside = found.beside
    return QualityLine(
        scoring=found.scoring,
        weeks=tuple(map(_week, found.weeks)),
        calibration=tuple(map(BinLine.model_validate, found.bins)),
        typologies=tuple(map(TypologyLine.model_validate, found.typologies)),
        challenger=beside
        and BesideLine(
            sampled=beside.sampled,
            moved=beside.moved,
            differing=sum(beside.outcomes.values()),
            frauds=_share(beside.frauds),
            false_alarms=_share(beside.false_alarms),
        ),
    )


@router.post(
    "/v1/models/promote",
    summary="Make a registered model champion",
    responses=shown(models_examples.PROMOTED) | refusals(401, 403, 404, 409, 422, 503),
)
async def promote(
    services: Use, caller: Admin, wish: Annotated[PromotionWish, Body(examples=[models_examples.PROMOTION])]
) -> Champion:
    """Behind the gate, whose objections a 409 names. Every worker checks the files and takes it over."""
    done = await promoting(services).promote(wish.model, actor(caller), wish.note, services.clock.now())
    return Champion(champion=done.model.id, restart=done.restart)


@router.post(
    "/v1/models/rollback",
    summary="Back to an earlier champion",
    responses=shown(models_examples.ROLLED_BACK) | refusals(401, 403, 404, 409, 422, 503),
)
async def rollback(
    services: Use, caller: Admin, wish: Annotated[RollbackWish, Body(examples=[models_examples.ROLLBACK])]
) -> Champion:
    """No gate: it was champion."""
    model = await promoting(services).rollback(wish.model, actor(caller), wish.note, services.clock.now())
    return Champion(champion=model.id if model else None)


def _week(week: WeekQuality) -> WeekLine:
    named: dict[str, Any] = {name: getattr(week, name) for name in WeekLine.model_fields if name != "week"}
    return WeekLine.model_validate({**named, "week": week.week.name}, from_attributes=True)


def _share(share: Share) -> ShareLine:
    return ShareLine.model_validate(share)
