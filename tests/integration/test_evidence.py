"""Evidence on the real PostgreSQL and the real starter: faithful, beside the decisions, made when wished for."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from api_support import until
from prometheus_client import REGISTRY
from sqlalchemy import text
from support import settings_for

from fraudguard.assembly import Parts, load_parts, open_pipeline
from fraudguard.clock import SystemClock
from fraudguard.decisions.evidence import CHANNEL, CLAIM, RETRY, WISH_KEPT, WISHES_MAX, Evidence, EvidenceBook
from fraudguard.decisions.notices import listen
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import (
    Contribution,
    DecisionRecord,
    Event,
    Message,
    Received,
    Score,
    ScoreRequest,
    Transaction,
)
from fraudguard.engine.batcher import BlockingEngine
from fraudguard.errors import EngineUnavailable
from fraudguard.evidence import QUEUE_MAX, EvidenceMaker, making_evidence
from fraudguard.explain import explain_one, render
from fraudguard.inputs import score_request
from fraudguard.pipeline import Decided, Pipeline
from fraudguard.stories import generate

CLOCK = SystemClock()
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
# int8 on batches of another shape moves a risk by at most this (docs/model-card.md), and an effect is two risks apart.
EFFECT_TOLERANCE = 2 * 2e-3
SAID = [
    ("counterparty", "您好，这里是市公安局，您的银行卡涉嫌洗钱"),
    ("customer", "什么案子？我不知道"),
    ("counterparty", "不要告诉任何人，也不要挂电话"),
    ("customer", "好的"),
    ("counterparty", "急用钱，马上把钱转到安全账户，否则冻结"),
    ("customer", "我现在就去转"),
]


@pytest.fixture(scope="module")
def scoring() -> Iterator[Parts]:
    """With the starter model."""
    parts = load_parts(settings_for("unused:1", "postgresql://unused", model="starter", precision="int8"))
    yield parts
    parts.close()


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's pipeline with evidence made beside it."""

    screen: Any
    pipeline: Pipeline
    repository: Repository


@asynccontextmanager
async def working(url: str, parts: Parts) -> AsyncIterator[Place]:
    """As the worker runs it, without Kafka."""
    settings = settings_for("unused:1", url)
    async with (
        open_pipeline(settings, parts, CLOCK) as pipeline,
        making_evidence(settings, pipeline, CLOCK) as screen,
        connect(url) as repository,
    ):
        yield Place(screen, pipeline, repository)


def story(account: str = "a-1") -> list[Event]:
    """A scam: six lines of talk, then the payment."""
    common: dict[str, Any] = {"version": 1, "account_id": account}
    said = [
        Message(
            **common, type="message", event_id=f"{account}-m{place}", event_time=NOON + timedelta(minutes=place),
            conversation_id="k-1", channel="chat", sender=sender, text=text,  # type: ignore[arg-type]  # pydantic's word
        )
        for place, (sender, text) in enumerate(SAID)
    ]  # fmt: skip
    payment = Transaction(
        **common, type="transaction", event_id=f"{account}-t", event_time=NOON + timedelta(minutes=10),
        direction="debit", kind="transfer", channel="app", amount=Decimal("50000.00"), currency="CNY",
        counterparty_id="c-9", memo="安全账户",
    )  # fmt: skip
    return [*said, payment]


async def screened(place: Place, events: Sequence[Event]) -> list[DecisionRecord]:
    """The events decided in one batch."""
    answers = await place.screen([Received(event, datetime.now(UTC)) for event in events])
    return [answer.record for answer in answers]


async def made_of(repository: Repository, record: DecisionRecord) -> Evidence:
    """The decision's evidence, once it is made."""
    decision_id = record.decision.decision_id

    async def there() -> bool:
        return await repository.evidence.of(decision_id) is not None

    await until(there, "the evidence is made", timeout_s=300)
    found = await repository.evidence.of(decision_id)
    assert found is not None
    return found


async def test_the_score_drops_as_the_evidence_states(database_url: str, scoring: Parts) -> None:
    """Scored again by the engine without the top line or the top feature, the risk falls by the stated effect."""
    async with working(database_url, scoring) as place:
        record = (await screened(place, story()))[-1]
        assert record.score is not None
        evidence = await made_of(place.repository, record)
        timeline = await place.repository.timeline(record)
        assert scoring.scorer is not None
        assert evidence.model == record.score.model
        assert abs(evidence.risk - record.score.risk) <= EFFECT_TOLERANCE / 2
        for contribution in evidence.contributions:
            lines, features = timeline.lines, dict(record.features)
            if contribution.kind == "line":
                gone = int(contribution.name) - timeline.start
                lines = lines[:gone] + lines[gone + 1 :]
            elif contribution.kind == "feature":
                windows = [f"{contribution.name}{end}" for end in ("", "_1h", "_1d", "_7d", "_30d")]
                features |= {name: None for name in windows if name in features}
            else:
                continue
            again = score_request(record.event, replace(timeline, lines=lines), features)
            (score,) = await scoring.scorer.score([again])
            assert score is not None
            assert abs((record.score.risk - score.risk) - contribution.effect) <= EFFECT_TOLERANCE, contribution
    explained = await explain_one(settings_for("unused:1", database_url), record.decision.decision_id)
    assert explained.moved[0].effect == evidence.contributions[0].effect
    top = next(one for one in evidence.contributions if one.kind == "line")
    said = timeline.lines[int(top.name) - timeline.start].text
    assert f"{top.effect:+.4f}  line {top.name}: {said}\n" in render(explained)
    assert top.effect > 10 * EFFECT_TOLERANCE, "the story has a line that tells"
    assert {one.name for one in evidence.contributions if one.kind == "line"} == {str(n) for n in range(1, 8)}


async def test_evidence_is_faithful_over_many_lives(database_url: str, scoring: Parts) -> None:
    """Of stories told anew: without the line that moved the risk most, the engine finds it lower by what is stated."""
    cast = generate(7, 30, datetime(2026, 10, 1, tzinfo=UTC), 2, 8, "train")
    checked = 0
    async with working(database_url, scoring) as place:
        answers = await place.screen([Received(item.event, datetime.now(UTC)) for item in cast.events][:200])
        for record in [answer.record for answer in answers if answer.alert][:8]:
            evidence, timeline = await made_of(place.repository, record), await place.repository.timeline(record)
            top = next((one for one in evidence.contributions if one.kind == "line"), None)
            if top is None:  # a timeline of one line
                continue
            gone = int(top.name) - timeline.start
            rest = replace(timeline, lines=timeline.lines[:gone] + timeline.lines[gone + 1 :])
            assert scoring.scorer is not None
            (score,) = await scoring.scorer.score([score_request(record.event, rest, record.features)])
            assert score is not None
            assert record.score is not None
            assert abs((record.score.risk - score.risk) - top.effect) <= EFFECT_TOLERANCE
            checked += 1
    assert checked >= 3


async def test_evidence_leaves_the_accounts_timelines_in_the_cache(database_url: str, scoring: Parts) -> None:
    """After it the account's next event still costs its own line only."""
    async with working(database_url, scoring) as place:
        record = (await screened(place, story("a-9")))[-1]
        await made_of(place.repository, record)
        timeline = await place.repository.timeline(record)
    engine = open_engine_of(scoring)
    assert engine.new_tokens(score_request(record.event, timeline, record.features)) == 1
    elsewhere = replace(timeline, account_id="a-10")
    assert engine.new_tokens(score_request(record.event, elsewhere, record.features)) > 1


def open_engine_of(parts: Parts) -> BlockingEngine:
    """The engine behind the queue and the guard."""
    assert parts.scorer is not None
    return parts.scorer.batcher._engine


async def test_a_wish_is_served_and_a_failed_one_is_told(database_url: str, scoring: Parts) -> None:
    """What needs nobody has evidence only when it is wished for; what failed is told, and may be wished for again."""
    async with working(database_url, scoring) as place:
        harmless = (await screened(place, story()))[1]
        book, now = place.repository.evidence, CLOCK.now()
        assert await book.of(harmless.decision.decision_id) is None
        assert await book.wish(harmless.decision.decision_id, now) == "waits"
        assert (await made_of(place.repository, harmless)).contributions
        assert await book.claim(now + timedelta(hours=1)) is None
        later = (await screened(place, story("a-2")))[0]

    async def off(_: Sequence[ScoreRequest]) -> list[Score | None]:
        raise EngineUnavailable("the model is switched off")

    async with connect(database_url) as repository:
        book, wished = repository.evidence, later.decision.decision_id
        assert [await book.wish(wished, now), await book.wish(wished, now)] == ["waits", "waits"]
        maker = EvidenceMaker(repository, off, CLOCK)
        running = asyncio.create_task(maker.run())
        maker.wake()
        await until(lambda: _failed(book, wished), "the wish has failed")
        running.cancel()
        assert await book.wish(wished, CLOCK.now() + RETRY * 2) == "waits"


async def _failed(book: EvidenceBook, wished: str) -> bool:
    return await book.wish(wished, CLOCK.now()) == "failed"


async def test_what_finds_no_room_is_dropped_and_counted(database_url: str, scoring: Parts) -> None:
    """The queue is bounded, a decision waits for nothing, and what is dropped can be wished for."""
    async with open_pipeline(settings_for("unused:1", database_url), scoring, CLOCK) as pipeline:
        answers = await pipeline.screen([Received(event, datetime.now(UTC)) for event in story()])
        alerts = [answer for answer in answers if isinstance(answer, Decided) and answer.alert]
        assert alerts
        assert len(alerts) < len(answers)
        async with connect(database_url) as repository:
            maker, before = EvidenceMaker(repository, pipeline.score_aside, CLOCK), _dropped()
            for _ in range(QUEUE_MAX):
                maker.offer(alerts[:1])
            maker.offer(answers)
            maker.offer(await pipeline.screen([Received(event, datetime.now(UTC)) for event in story()]))
            assert _dropped() - before == len(alerts), "repeated events are no alerts"
            assert await repository.evidence.wish(alerts[0].record.decision.decision_id, CLOCK.now()) == "waits"


def _dropped() -> float:
    return REGISTRY.get_sample_value("fraudguard_evidence_total", {"fate": "dropped"}) or 0.0


async def test_wishes_are_bounded_and_one_worker_serves_each(repository: Repository) -> None:
    """Beyond WISHES_MAX no more are taken; two workers never claim the same, until the claim of one ran out."""
    book, now = repository.evidence, CLOCK.now()
    for number in range(WISHES_MAX):
        assert await book.wish(f"d-{number}", now + timedelta(microseconds=number)) == "waits"
    assert await book.wish("d-more", now) == "too_many"
    assert await book.wish("d-0", now) == "waits"
    assert await asyncio.gather(book.claim(now), book.claim(now)) in (["d-0", "d-1"], ["d-1", "d-0"])
    assert await book.claim(now + CLAIM * 2) in ("d-0", "d-1")
    await book.put(Evidence("d-0", "m", 0.5, (Contribution("line", "1", -0.25),), now))
    await book.put(Evidence("d-0", "other", 0.1, (), now))
    assert await book.of("d-0") == Evidence("d-0", "m", 0.5, (Contribution("line", "1", -0.25),), now)
    assert await book.wish("d-more", now) == "waits"
    await book.prune(now + WISH_KEPT * 2)
    assert await book.claim(now + WISH_KEPT * 2) is None


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[Repository]:
    """On a fresh database."""
    async with connect(database_url) as repository:
        yield repository


async def test_a_notice_is_heard_and_a_lost_connection_comes_back(repository: Repository, database_url: str) -> None:
    """Whoever listens hears every wish, also after the server ended the connection."""
    heard = asyncio.Event()
    running = asyncio.create_task(listen(database_url, CHANNEL, heard.set))
    await asyncio.wait_for(heard.wait(), 30)
    heard.clear()
    await repository.evidence.wish("d-1", CLOCK.now())
    await asyncio.wait_for(heard.wait(), 30)
    heard.clear()
    async with repository._open() as connection:
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert (await connection.execute(text(ending))).rowcount == 1
    await asyncio.wait_for(heard.wait(), 30)
    running.cancel()
