"""Makes evidence beside the decisions: of those that need a person when they are committed, of others when asked.

Runs in the worker, behind its events: what it asks of the model is read when no event waits, its queue is bounded, and
what finds no room in it is dropped and counted, for a wish can have it made later. Knows what is asked and where it is
stored; knows no SQL, no torch and no Kafka.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fraudguard import metrics
from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.contributions import contributions, questions
from fraudguard.decisions.evidence import CHANNEL, Evidence
from fraudguard.decisions.notices import listen
from fraudguard.decisions.repository import Repository, connect
from fraudguard.domain import DecisionRecord, Received, Score, ScoreRequest
from fraudguard.errors import EngineUnavailable, FraudguardError, Transient
from fraudguard.pipeline import Answer, Decided, Pipeline

log = logging.getLogger(__name__)

QUEUE_MAX: Final = 256  # decisions that wait for their evidence in one worker
LOOK_S: Final = 5.0  # between two looks at the wishes, should no notification come
REST: Final = 4.0  # times as long as one took: evidence has a fifth of the time, or decisions feel it on few cores

Ask = Callable[[Sequence[ScoreRequest]], Awaitable[Sequence[Score | None]]]


class EvidenceMaker:
    """One a worker; all of it on the worker's event loop."""

    def __init__(self, repository: Repository, ask: Ask, clock: Clock) -> None:
        """ask: scores in order, aside of the decisions; raises EngineUnavailable."""
        self._repository, self._ask, self._clock = repository, ask, clock
        self._waiting: deque[DecisionRecord] = deque()
        self._woken = asyncio.Event()

    def offer(self, answers: Sequence[Answer]) -> None:
        """Take what needs evidence among committed answers, as far as there is room; returns at once."""
        for answer in answers:
            if not isinstance(answer, Decided) or not answer.alert or answer.record.score is None:
                continue
            if len(self._waiting) >= QUEUE_MAX:
                metrics.EVIDENCE.labels("dropped").inc()
                continue
            self._waiting.append(answer.record)
            self._woken.set()

    def wake(self) -> None:
        """There may be a wish."""
        self._woken.set()

    async def run(self) -> None:
        """Make what waits, then what is wished for, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                began = self._clock.monotonic()
                while await self._next():
                    await asyncio.sleep(REST * (self._clock.monotonic() - began))
                    began = self._clock.monotonic()
            except FraudguardError as error:
                log.warning("no evidence for now: %s", error)

    async def _next(self) -> bool:
        """Make one; whether there was one to make. Raises StoreUnavailable, and then it still waits."""
        if self._waiting:
            await self._tried(self._waiting[0])
            self._waiting.popleft()
            return True
        book = self._repository.evidence
        wish = await book.claim(self._clock.now())
        if wish is None:
            return False
        if await book.of(wish) is not None:
            await book.forget(wish)
        elif reason := await self._tried(await self._repository.record(wish)):
            await book.fail(wish, reason, self._clock.now())
        return True

    async def _tried(self, record: DecisionRecord) -> str:
        """Why a decision's evidence could not be made, or nothing. Raises StoreUnavailable."""
        try:
            reason = await self._make(record)
        except Transient:
            raise
        except Exception as error:  # of this one decision: the others' evidence must go on
            log.exception("no evidence of decision %s", record.decision.decision_id)
            reason = f"internal error: {type(error).__name__}"
        metrics.EVIDENCE.labels("failed" if reason else "made").inc()
        if reason:
            log.warning("no evidence of decision %s: %s", record.decision.decision_id, reason)
        return reason

    async def _make(self, record: DecisionRecord) -> str:
        """Make and store a decision's evidence; why it could not be made, or nothing. Raises StoreUnavailable."""
        decision = record.decision
        timeline = await self._repository.timeline(record)
        lines = await self._repository.evidence.risks(
            decision.account_id, decision.tenant, timeline.start, decision.sequence
        )
        asked = questions(record, timeline, {line.sequence: line.risk for line in lines})
        try:
            scores = await self._ask([question.request for question in asked])
        except EngineUnavailable as error:
            return f"the model does not answer: {error}"
        read = [score for score in scores if score is not None]
        if len(read) < len(scores) or len({score.model for score in read}) != 1:
            return "the model has no time, or was just replaced"
        made = contributions(asked, read)
        await self._repository.evidence.put(
            Evidence(decision.decision_id, read[0].model, read[0].risk, made, self._clock.now())
        )
        return ""


@asynccontextmanager
async def making_evidence(
    settings: Settings, pipeline: Pipeline, clock: Clock
) -> AsyncIterator[Callable[[Sequence[Received]], Awaitable[list[Answer]]]]:
    """The pipeline's `screen`, with evidence made of what it decides, and of what is wished for.

    On connections of its own: no batch waits for one. Without a model there is none to make.
    """
    if settings.model == "off":
        yield pipeline.screen
        return
    url = settings.database_url.get_secret_value()
    async with connect(url) as repository:
        maker = EvidenceMaker(repository, pipeline.score_aside, clock)

        async def screen(batch: Sequence[Received]) -> list[Answer]:
            answers = await pipeline.screen(batch)
            maker.offer(answers)
            return answers

        running = [asyncio.create_task(maker.run()), asyncio.create_task(listen(url, CHANNEL, maker.wake))]
        for task in running:
            task.add_done_callback(_report)
        try:
            yield screen
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)


def _report(task: asyncio.Task[None]) -> None:
    """Both only end when they are cancelled: anything else is a bug, after which decisions go on without evidence."""
    if not task.cancelled() and (error := task.exception()):
        log.critical("no more evidence from this worker", exc_info=error)
