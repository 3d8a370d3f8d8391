"""The life of a model: a sealed folder becomes challenger, the gate lets it be champion, one command takes it back.

Knows releases, engines and the registry, and what must hold between them: the folder is whole, the engine really scores
with it, and it was measured on the same events as the champion and is not worse. Knows no stream and no HTTP.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from fraudguard.assembly import open_engine
from fraudguard.config import Settings
from fraudguard.decisions.models import Head, Model
from fraudguard.decisions.repository import Repository
from fraudguard.domain import ScoreRequest, Transaction
from fraudguard.engine.release import Release, open_release, verify
from fraudguard.engine.release_metrics import Measures, Metrics, read_metrics
from fraudguard.engine.tokenizer import LineTokenizer, open_tokenizer
from fraudguard.errors import BadInput, BadModel, Conflict, NotFound
from fraudguard.features.feedback import FeedbackView
from fraudguard.features.money import load_rates
from fraudguard.features.shared import SharedWindows
from fraudguard.features.state import AccountState

_ROUNDING: Final = 1e-9  # 0.80 - 0.79 is more than 0.01 in binary


@dataclass(frozen=True, slots=True)
class Shadowing:
    """A challenger that was taken in. risk: of the sample event. restart: workers must be, once it is champion."""

    model: Model
    risk: float
    restart: bool


@dataclass(frozen=True, slots=True)
class Promotion:
    """A champion that was put in force. objections: of the gate, which force went over. restart: as in Shadowing."""

    model: Model
    objections: tuple[str, ...]
    restart: bool


class Releasing:
    """What may be done with models, on one registry."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        """settings: model is the champion where the registry names none; model_margin is the gate's."""
        self._settings, self._book = settings, repository.models

    async def shadow(self, folder: Path, actor: str, note: str, now: datetime) -> Shadowing:
        """Register the release and make it challenger: workers score with it beside the champion, and act on nothing.

        Raises BadModel if it is not sealed, not whole or cannot score; Conflict if it is champion, or another release
        has its name and version.
        """
        head = await self._book.head()
        model, metrics, risk = await asyncio.to_thread(self._examine, folder)
        restart = model.tokenizer != await asyncio.to_thread(self._tokenizer, head)
        await self._book.add(model, None if metrics is None else metrics.model_dump(mode="json"), actor, now)
        await self._book.take("shadow", model, actor, note, now, expected=_step(head))
        return Shadowing(model, risk, restart)

    async def named(self, which: str | None) -> Model:
        """The registered model of this name or digest, or the challenger. Raises NotFound."""
        if which is not None:
            return await self._book.find(which)
        head = await self._book.head()
        if head is None or head.challenger is None:
            raise NotFound("there is no challenger: `fraudguard model shadow FOLDER`, or name a model")
        return head.challenger

    async def retire(self, which: str, actor: str, note: str, now: datetime) -> Model:
        """End a challenger's shadow. Raises NotFound, Conflict if it is none."""
        head, model = await self._book.head(), await self._book.find(which)
        await self._book.take("retire", model, actor, note, now, expected=_step(head))
        return model

    async def promote(self, which: str, actor: str, note: str, now: datetime, *, force: bool = False) -> Promotion:
        """Make a registered model champion: every running worker scores with it once it has loaded it.

        force: whatever the gate says; note must then say why. Raises NotFound, Conflict with every objection of the
        gate, BadModel if the folder does not hold what was registered.
        """
        if force and not note.strip():
            raise BadInput("must say why the gate does not count", path="--reason")
        head, model = await self._book.head(), await self._book.find(which)
        if await asyncio.to_thread(verify, Path(model.location)) != model.digest:
            raise BadModel("is not the release that was registered", path=model.location, hint="shadow it again")
        refused = await self._gate(head, model)
        if refused and not force:
            raise Conflict("\n".join(("the gate refuses it:", *refused)), hint="--force --reason TEXT goes over it")
        restart = model.tokenizer != await asyncio.to_thread(self._tokenizer, head)
        await self._book.take(
            "promote",
            model,
            actor,
            note,
            now,
            expected=_step(head),
            forced=bool(refused),
            objections="\n".join(refused),
        )
        return Promotion(model, tuple(refused), restart)

    async def rollback(self, which: str | None, actor: str, note: str, now: datetime) -> Model | None:
        """Back to the champion before, or to this earlier one; None: the model that the workers' settings name.

        No gate: it was champion. Raises NotFound, Conflict where there was none before.
        """
        head = await self._book.head()
        if which is not None:
            model: Model | None = await self._book.find(which)
        elif former := await self._book.former():
            model = former[0]
        else:
            raise Conflict("no other model was champion before")
        await self._book.take("rollback", model, actor, note, now, expected=_step(head))
        return model

    async def _gate(self, head: Head | None, model: Model) -> list[str]:
        """Why the model may not take the champion's place; nothing where it may."""
        new = await self._stored_metrics(model)
        if head and head.champion:
            name, old = head.champion.id, await self._stored_metrics(head.champion)
        elif self._settings.model == "off":
            name, old = "off", None
        else:
            release = await asyncio.to_thread(open_release, self._settings.model)
            name, old = f"{release.name}@{release.version}", read_metrics(release)
        hint = "measure it with `python -m finetune.evaluate`, seal it, and shadow it"
        if new is None:
            return [f"{model.id} brings no metrics.json: {hint}"]
        if name == "off":
            return []
        if old is None:
            return [f"the champion {name} brings no metrics.json to compare with"]
        return objections(old, new, self._settings.model_margin)

    async def _stored_metrics(self, model: Model) -> Metrics | None:
        stored = await self._book.metrics(model.digest)
        return None if stored is None else Metrics.model_validate(stored)

    def _tokenizer(self, head: Head | None) -> str:
        """The id of the champion's."""
        if head and head.champion:
            return head.champion.tokenizer
        return open_tokenizer(
            open_release("starter" if self._settings.model == "off" else self._settings.model).base
        ).id

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


def _step(head: Head | None) -> int:
    return head.step if head else 0


def objections(champion: Metrics, other: Metrics, margin: float) -> list[str]:
    """Every measure that is worse than the champion's by more than the margin, with both values; or other events."""
    if other.dataset.digest != champion.dataset.digest:
        sets = (f"{m.model} on {m.dataset.name} ({m.dataset.digest[:12]})" for m in (champion, other))
        return [f"they were measured on different events: {', '.join(sets)}"]
    return [
        f"{name}: {new:.4f}, the champion's is {old:.4f}: worse by {old - new:.4f}, more than {margin:g}"
        for (name, old), (_, new) in zip(_judged(champion.measures), _judged(other.measures), strict=True)
        if old - new > margin + _ROUNDING
    ]


def _judged(measures: Measures) -> list[tuple[str, float]]:
    """What the gate looks at; more is better in each."""
    return [
        ("average precision", measures.average_precision),
        ("recall at 1 % FPR", measures.recall_at_1_fpr),
        ("1 - calibration error", 1 - measures.calibration_error),
    ]
