"""How the service runs: latency and degraded decisions lately, where the workers stand, dead letters and their replay.

Everything is bounded: decisions are sampled, Kafka is asked off the event loop and at most every few seconds.
"""

import re
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, ConfigDict, Field

from fraudguard.api import operations_examples as examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import unavailable
from fraudguard.api.pulse import Lately, lately
from fraudguard.api.services import Services, Use
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role
from fraudguard.errors import BadInput, BrokerUnavailable, NotFound
from fraudguard.events.dead_letter import Listing, Selection
from fraudguard.events.standing import Standing

router = APIRouter(tags=["operations"])

IDS_MAX: Final = 100
_LEADS = Serves(Role.LEAD, house=True)
Admin = Annotated[Principal, Depends(Serves(house=True))]
_LETTER_ID = re.compile(r"(\d{1,6})/(\d{1,18})", re.ASCII)


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class LatencyLine(_Shape):
    """Milliseconds from received to decided; null where nothing was sampled."""

    sampled: int
    p50: float | None
    p95: float | None
    p99: float | None
    over: float | None = Field(description="Share that took longer than `budget_ms`")
    degraded: float | None = Field(description="Share decided without the model")


class MinuteLine(_Shape):
    """One minute of the clock."""

    at: datetime
    latency: LatencyLine


class LatelyLine(_Shape):
    """A sample of the decisions that were made lately: at most 12 of every ten seconds."""

    first: datetime
    before: datetime
    budget_ms: int = Field(description="FRAUDGUARD_DEADLINE_MS of this process, else FRAUDGUARD_SCREEN_DEADLINE_MS")
    all: LatencyLine
    by_type: dict[str, LatencyLine]
    minutes: tuple[MinuteLine, ...]
    reasons: dict[str, int] = Field(description="Of the degraded ones in the sample, by reason code")


class ShareLine(_Shape):
    """One partition of an input topic. worker: its place in `workers`, null while nobody has it."""

    topic: str
    partition: int
    end: int
    committed: int | None
    lag: int = Field(description="Records that are not decided yet, as far as was committed")
    worker: int | None


class WorkerLine(_Shape):
    """A member of the workers' consumer group."""

    member: str
    client: str
    host: str
    partitions: int


class StandingLine(_Shape):
    """Where the workers stand. state: Kafka's word for the group."""

    state: str
    lag: int
    workers: tuple[WorkerLine, ...]
    shares: tuple[ShareLine, ...]


class Operations(_Shape):
    """kafka null: it does not answer, and kafka_problem says how."""

    lately: LatelyLine
    kafka: StandingLine | None
    kafka_problem: str | None


class ReplayLine(_Shape):
    """The newest replay. sent, before, refused: null while it runs, and where it ended with a problem."""

    which: str = Field(description="PARTITION/OFFSET, a reason code, or `all`")
    actor: str
    at: datetime
    runs: bool
    sent: int | None
    before: int | None = Field(description="Passed over: sent again before")
    refused: int | None = Field(description="Cannot be sent again: too large to be kept, or from no input topic")
    problem: str | None


class LetterLine(_Shape):
    """A record that could not be used. key and preview are masked."""

    id: str = Field(description="PARTITION/OFFSET in the dead-letter topic")
    code: str
    reason: str
    path: str
    hint: str
    source: str = Field(description="TOPIC/PARTITION/OFFSET of the record")
    key: str
    source_time: datetime
    time: datetime
    replays: int
    replayed: bool
    size: int
    preview: str


class Letters(_Shape):
    """The newest dead letters, and how many of each reason are among the newest records."""

    letters: tuple[LetterLine, ...]
    counts: dict[str, int]
    replay: ReplayLine | None


class Wish(BaseModel):
    """Which letters to send again: these, those of a reason, or all that were not yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[Annotated[str, Field(max_length=32)], ...] = Field(default=(), max_length=IDS_MAX)
    reason: str | None = Field(default=None, max_length=64)
    again: bool = Field(default=False, description="Also those that were sent again before")


def budget_ms(services: Services) -> int:
    """What a payment can wait, as far as this process knows."""
    return services.settings.deadline_ms or services.settings.screen_deadline_ms


async def pulse_of(services: Services) -> Lately:
    """The last half hour. Raises StoreUnavailable."""
    return await lately(services.repository.pulse, services.clock, budget_ms(services))


async def standing_of(services: Services) -> tuple[Standing | None, str | None]:
    """Where the workers stand, or why that is not known."""
    try:
        return await services.standing.see(), None
    except BrokerUnavailable as error:
        return None, str(error)


async def letters_of(services: Services) -> tuple[Listing | None, str | None]:
    """The newest dead letters, or why they cannot be read."""
    try:
        return await services.letters.see(), None
    except (BrokerUnavailable, NotFound) as error:
        return None, str(error)


def selection_of(wish: Wish) -> Selection:
    """What the wish chooses. Raises BadInput."""
    places = [_LETTER_ID.fullmatch(one) for one in wish.ids]
    if not all(places):
        raise BadInput("must be PARTITION/OFFSET", path="ids", hint="GET /v1/dead-letters has them as `id`")
    return Selection(wish.reason, frozenset((int(p[1]), int(p[2])) for p in places if p), wish.again)


@router.get(
    "/v1/operations",
    summary="How the service runs",
    responses=shown(examples.OPERATIONS) | refusals(401, 403, 503),
    dependencies=[Depends(_LEADS)],
)
async def operations(services: Use) -> Operations:
    """Latency, degraded decisions, lag by partition. Prometheus has all of it in full: docs/operations.md."""
    found = await pulse_of(services)
    standing, problem = await standing_of(services)
    return Operations(
        lately=LatelyLine.model_validate(found),
        kafka=standing and StandingLine.model_validate(standing),
        kafka_problem=problem,
    )


@router.get(
    "/v1/dead-letters",
    summary="The newest dead letters",
    responses=shown(examples.LETTERS) | refusals(401, 403, 503),
    dependencies=[Depends(_LEADS)],
)
async def dead_letters(services: Use) -> Letters:
    """Newest first, 50 at most, of the newest 200 records of each partition; masked."""
    found, problem = await letters_of(services)
    if found is None:
        raise unavailable("broker_unavailable", problem or "")
    last = await services.repository.letters.last()
    return Letters(
        letters=tuple(map(LetterLine.model_validate, found.letters)),
        counts=dict(found.counts),
        replay=last and ReplayLine.model_validate(last),
    )


@router.post(
    "/v1/dead-letters/replay",
    status_code=202,
    summary="Send dead letters again",
    responses=shown(examples.REPLAY, 202) | refusals(401, 403, 409, 422, 503),
)
async def replay(services: Use, caller: Admin, wish: Annotated[Wish, Body(examples=[examples.WISH])]) -> ReplayLine:
    """To their own topics, the same bytes, once each. Audited before the first is sent; it goes on after this answer,
    and `GET /v1/dead-letters` says how it went.
    """
    note = await services.replays.start(selection_of(wish), actor(caller))
    services.letters.forget()
    return ReplayLine.model_validate(note)
