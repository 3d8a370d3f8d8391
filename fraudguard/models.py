"""The life of a model where its folder is: a sealed folder becomes challenger, and may be promoted once it is whole.

Knows releases and engines, and what must hold between them: the folder is whole, and the engine really scores with it.
The registry, the gate and the way back are promotion.py's. Knows no stream and no HTTP.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from fraudguard.assembly import open_engine
from fraudguard.decisions.models import Head, Model
from fraudguard.domain import ScoreRequest, Transaction
from fraudguard.engine.release import Release, open_release, verify
from fraudguard.engine.release_metrics import read_metrics
from fraudguard.engine.tokenizer import LineTokenizer, open_tokenizer
from fraudguard.errors import BadModel
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState
from fraudguard.measures import Metrics
from fraudguard.promotion import Promoting, Rival, step_of


@dataclass(frozen=True, slots=True)
class Shadowing:
    """A challenger that was taken in. risk: of the sample event. restart: workers must be, once it is champion."""

    model: Model
    risk: float
    restart: bool


class Releasing(Promoting):
    """What may be done with models where their folders are."""

    async def shadow(self, folder: Path, actor: str, note: str, now: datetime) -> Shadowing:
        """Register the release and make it challenger: workers score with it beside the champion, and act on nothing.

        Raises BadModel if it is not sealed, not whole or cannot score; Conflict if it is champion, or another release
        has its name and version.
        """
        head = await self._book.head()
        model, metrics, risk = await asyncio.to_thread(self._examine, folder)
        restart = model.tokenizer != await self._tokenizer(head)
        await self._book.add(model, None if metrics is None else metrics.model_dump(mode="json"), actor, now)
        await self._book.take("shadow", model, actor, note, now, expected=step_of(head))
        return Shadowing(model, risk, restart)

    async def _check(self, model: Model) -> None:
        if await asyncio.to_thread(verify, Path(model.location)) != model.digest:
            raise BadModel("is not the release that was registered", path=model.location, hint="shadow it again")

    async def _configured(self) -> Rival:
        if self._settings.model == "off":
            return Rival("off", None)
        release = await asyncio.to_thread(open_release, self._settings.model)
        return Rival(f"{release.name}@{release.version}", read_metrics(release))

    async def _tokenizer(self, head: Head | None) -> str:
        if head and head.champion:
            return head.champion.tokenizer
        name = "starter" if self._settings.model == "off" else self._settings.model
        return (await asyncio.to_thread(lambda: open_tokenizer(open_release(name).base))).id

    def _examine(self, folder: Path) -> tuple[Model, Metrics | None, float]:
        """What the folder holds, and the risk that its engine gives one event."""
        folder = folder.resolve()
        digest = verify(folder)
        release = open_release(folder)
        tokenizer = open_tokenizer(release.base)
        risk = self._try(release, tokenizer)
        graph = release.graph.stem if release.graph else ""
        model = Model(digest, release.name, release.version, graph, tokenizer.id, str(folder))
        return model, read_metrics(release), risk

    def _try(self, release: Release, tokenizer: LineTokenizer) -> float:
        engine = open_engine(self._settings.model_copy(update={"model": str(release.folder)}))
        (score,) = engine.score([self._sample(tokenizer)])
        if not 0 <= score.risk <= 1:  # NaN neither
            raise BadModel(f"gives a risk of {score.risk}", path=str(release.folder), hint="its weights are damaged")
        return score.risk

    def _sample(self, tokenizer: LineTokenizer) -> ScoreRequest:
        """A first payment of an account, with the features and the line that this build makes of it."""
        settings = self._settings
        state = AccountState(
            "sample",
            tokenizer,
            rates=load_rates(settings.base_currency, settings.rates_path),
            tokens_max=settings.timeline_tokens_max,
            lateness_s=settings.lateness_s,
            zone=ZoneInfo(settings.time_zone),
            windows=(),
        )
        event = Transaction(
            type="transaction", version=1, event_id="sample", account_id="sample",
            event_time=datetime(2026, 1, 1, tzinfo=UTC), direction="debit", kind="transfer", channel="app",
            amount=Decimal(1000), currency="CNY", counterparty_id="payee", memo="sample",
        )  # fmt: skip
        snapshot = state.take(event, FeedbackView((), settings.label_delay_days), SharedWindows((), ()))
        return ScoreRequest(snapshot.timeline, snapshot.features)
