"""The models that a worker scores with: the champion, and beside it the challenger, as the registry names them.

Follows the registry's head: loads what is named on a thread while the old one scores, and puts it in place between two
batches. What cannot be loaded changes nothing, is logged and counted, and is tried again. A challenger scores after the
live decisions are made, within a bound. Knows no torch, no SQL, no rules; how a model is opened is given to it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal

from fraudguard import metrics
from fraudguard.config import Settings
from fraudguard.decisions.models import Head, Model, ShadowScore
from fraudguard.domain import DecisionRecord, Outcome, Score, ScoreRequest
from fraudguard.engine.batcher import Batcher, BlockingEngine
from fraudguard.engine.guard import GuardedEngine
from fraudguard.errors import BadModel, EngineUnavailable, FraudguardError

log = logging.getLogger(__name__)

RETRY_S: Final = 60.0  # between attempts to load a model that could not be loaded

# None: the model that settings name. Blocks; raises FraudguardError.
Role = Literal["champion", "challenger"]
Opener = Callable[[Model | None], BlockingEngine]
Judge = Callable[[ScoreRequest, DecisionRecord, Score], Outcome]


class Serving:
    """`live` scores for decisions. All methods belong to one event loop; follow and reload need it running."""

    def __init__(self, live: GuardedEngine, using: Model | None, open_: Opener, tokenizer: str, settings: Settings):
        """using: what `live` was opened with. tokenizer: the id of the one that cuts timelines in this process."""
        self.live, self._settings, self._tokenizer = live, settings, tokenizer
        self._champion = _Place("champion", lambda model: self._fitting(open_(model), model), using)
        self._challenger = _Place("challenger", open_, None)
        self._shadow: GuardedEngine | None = None
        self._shown: dict[str, str] = {}
        self._show("champion", live.name)

    def _fitting(self, engine: BlockingEngine, model: Model | None) -> BlockingEngine:
        if engine.tokenizer.id != self._tokenizer:
            raise BadModel(f"{engine.name} has another tokenizer", hint="restart the workers, which then start with it")
        return engine

    @property
    def challenger(self) -> Model | None:
        """Who scores in shadow."""
        return self._challenger.using

    def follow(self, head: Head | None) -> None:
        """Begin to load what the registry names and is not in use here."""
        self._champion.want(head.champion if head else None, self._stays)
        if head is None or head.challenger is None:
            self._challenger.leave()
        else:
            self._challenger.want(head.challenger, lambda: "no challenger here")

    def reload(self) -> None:
        """Load the champion again, whatever is in use."""
        self._champion.want(self._champion.wanted, self._stays, anew=True)

    def turn(self) -> None:
        """Between two batches: put in place what was loaded, and let a challenger go that is none any more."""
        if engine := self._champion.loaded():
            self.live.batcher.swap(engine)
            self._show("champion", engine.name)
        if (engine := self._challenger.loaded()) or self._challenger.using is None:
            self._close_shadow()
        if engine:
            self._shadow = self._behind_a_guard(engine)
            self._show("challenger", engine.name)

    def _stays(self) -> str:
        return f"still scoring with {self.live.name}"

    def _behind_a_guard(self, engine: BlockingEngine) -> GuardedEngine:
        settings = self._settings
        return GuardedEngine(
            Batcher(engine, pass_s=settings.shadow_ms / 1000, queue_max=settings.batch_events_max),
            timeout_s=settings.engine_timeout_ms / 1000,
            failures_max=settings.engine_failures_max,
            retry_s=settings.engine_retry_ms / 1000,
        )

    async def shadow(
        self,
        decided: Sequence[tuple[ScoreRequest, DecisionRecord]],
        within_s: float,
        judge: Judge,
        at: datetime,
    ) -> list[ShadowScore]:
        """What the challenger says of decisions that are made, in the order given; takes at most within_s.

        judge: the outcome that the policy would give; called for one decision after the other while there is time.
        """
        model, engine = self.challenger, self._shadow
        if model is None or engine is None:
            return []
        asked = [(request, record) for request, record in decided if record.score is not None]
        fates = {"degraded": len(decided) - len(asked)}
        ends = asyncio.get_running_loop().time() + within_s
        found: list[ShadowScore] = []
        try:
            scores = await self._ask(engine, [request for request, _ in asked], within_s)
        except _NoScoresError as error:
            fates[error.fate] = len(asked)
        else:
            for (request, record), score in zip(asked, scores, strict=True):
                if score is None or asyncio.get_running_loop().time() >= ends:
                    continue
                outcome = judge(request, record, score)
                time, decision_id = record.event.event_time, record.decision.decision_id
                found.append(
                    ShadowScore(model.digest, decision_id, time, score.model, score.risk, score.typology, outcome, at)
                )
            fates |= {"scored": len(found), "late": len(asked) - len(found)}
        for fate, count in fates.items():
            metrics.SHADOW.labels(fate).inc(count)
        return found

    async def _ask(
        self, engine: GuardedEngine, requests: Sequence[ScoreRequest], within_s: float
    ) -> Sequence[Score | None]:
        if not requests:
            return []
        if engine.batcher.busy:  # a second pass behind an overlong one would only take more from the live model
            raise _NoScoresError("busy")
        try:
            async with asyncio.timeout(within_s):
                return await engine.score(requests, [within_s] * len(requests))
        except TimeoutError:
            raise _NoScoresError("late") from None
        except EngineUnavailable as error:
            log.warning("no scores of the challenger %s: %s", engine.name, error)
            raise _NoScoresError("failed") from error

    def close(self) -> None:
        """Let the challenger's thread go; `live` is its owner's."""
        self._champion.close()
        self._challenger.close()
        self._close_shadow()
        self._show("champion", None)

    def _close_shadow(self) -> None:
        if self._shadow:
            self._shadow.close()
            self._shadow = None
            self._show("challenger", None)

    def _show(self, role: Role, name: str | None) -> None:
        if before := self._shown.pop(role, None):
            metrics.MODEL.remove(role, before)
        if name is not None:
            self._shown[role] = name
            metrics.MODEL.labels(role, name).set(1)


class _NoScoresError(Exception):
    """fate: why, as metrics.SHADOW counts it."""

    def __init__(self, fate: str) -> None:
        self.fate = fate


class _Place:
    """A role: the model in use, the one that is wanted, and the one that is being loaded."""

    def __init__(self, role: Role, open_: Opener, using: Model | None) -> None:
        self._role, self._open = role, open_
        self.using, self.wanted = using, using
        self._loading: asyncio.Task[BlockingEngine | None] | None = None
        self._loads: Model | None = None  # what the task loads
        self._stale = False
        self._again_at = 0.0

    def want(self, model: Model | None, stays: Callable[[], str], *, anew: bool = False) -> None:
        """Begin to load it unless it is in use or under way; anew: even if it is in use.

        stays: what to say of things as they are where it cannot be loaded.
        """
        if anew or model != self.wanted:
            self.wanted, self._again_at, self._stale = model, 0.0, self._stale or anew
        loop, loading = asyncio.get_running_loop(), self._loading
        if (loading is not None and not loading.done()) or loop.time() < self._again_at:
            return
        there = loading is not None and self._loads == self.wanted
        if self._stale or (self.wanted != self.using and not there):
            self._loads, self._stale = self.wanted, False
            self._loading = loop.create_task(self._load(self.wanted, stays))

    def leave(self) -> None:
        """Use nothing from now on."""
        self.using = self.wanted = None

    async def _load(self, model: Model | None, stays: Callable[[], str]) -> BlockingEngine | None:
        try:
            engine = await asyncio.to_thread(self._open, model)
        except Exception as error:  # whatever it is, the model in use must go on scoring
            metrics.MODEL_REFUSALS.labels(self._role).inc()
            named = model.id if model else "the configured model"
            expected = isinstance(error, FraudguardError)
            log.error("%s: cannot load %s: %s", stays(), named, error, exc_info=not expected)
            self._loading, self._again_at = None, asyncio.get_running_loop().time() + RETRY_S
            return None
        log.warning("loaded as %s from the next batch on: %s", self._role, engine.name)
        return engine

    def loaded(self) -> BlockingEngine | None:
        """The engine to use from now on; None if there is no other one, or not yet."""
        if self._loading is None or not self._loading.done():
            return None
        engine, self._loading = self._loading.result(), None
        if self._loads != self.wanted:
            return None
        self.using = self._loads
        return engine

    def close(self) -> None:
        """Wait for nothing that is under way."""
        if self._loading:
            self._loading.cancel()
