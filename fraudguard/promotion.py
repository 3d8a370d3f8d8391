"""Who is champion: the gate between a challenger and the champion, and the way back, on the registry alone.

Knows registered models and the measures that they brought. Opens no folder and no engine, so the API can do it too;
what needs them is models.py's.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fraudguard.config import Settings
from fraudguard.decisions.models import Head, Model
from fraudguard.decisions.repository import Repository
from fraudguard.errors import BadInput, Conflict, NotFound
from fraudguard.measures import Measures, Metrics

_ROUNDING: Final = 1e-9  # 0.80 - 0.79 is more than 0.01 in binary


@dataclass(frozen=True, slots=True)
class Promotion:
    """A champion that was put in force. objections: of the gate, which force went over. restart: as in Shadowing."""

    model: Model
    objections: tuple[str, ...]
    restart: bool


@dataclass(frozen=True, slots=True)
class Rival:
    """Whom a model has to match. name: `off` for no model. metrics: None where it brings none."""

    name: str
    metrics: Metrics | None


class Promoting:
    """What may be done with registered models, on one registry."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        """settings: model is the champion where the registry names none; model_margin is the gate's."""
        self._settings, self._book = settings, repository.models

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
        await self._book.take("retire", model, actor, note, now, expected=step_of(head))
        return model

    async def promote(self, which: str, actor: str, note: str, now: datetime, *, force: bool = False) -> Promotion:
        """Make a registered model champion: every running worker scores with it once it has loaded it.

        force: whatever the gate says; note must then say why. Raises NotFound, Conflict with every objection of the
        gate, BadModel if the folder does not hold what was registered.
        """
        if force and not note.strip():
            raise BadInput("must say why the gate does not count", path="--reason")
        head, model = await self._book.head(), await self._book.find(which)
        await self._check(model)
        refused = await self.objections(head, model)
        if refused and not force:
            raise Conflict("\n".join(("the gate refuses it:", *refused)), hint="--force --reason TEXT goes over it")
        restart = model.tokenizer != await self._tokenizer(head)
        await self._book.take(
            "promote",
            model,
            actor,
            note,
            now,
            expected=step_of(head),
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
        await self._book.take("rollback", model, actor, note, now, expected=step_of(head))
        return model

    async def objections(self, head: Head | None, model: Model) -> list[str]:
        """Why the gate does not let the model take the champion's place; nothing where it does.

        Raises Conflict where the champion is not registered and cannot be read here.
        """
        champion = head.champion if head else None
        rival = Rival(champion.id, await self._stored_metrics(champion)) if champion else await self._configured()
        new = await self._stored_metrics(model)
        hint = "measure it with `python -m finetune.evaluate`, seal it, and shadow it"
        if new is None:
            return [f"{model.id} brings no metrics.json: {hint}"]
        if rival.name == "off":
            return []
        if rival.metrics is None:
            return [f"the champion {rival.name} brings no metrics.json to compare with"]
        return objections(rival.metrics, new, self._settings.model_margin)

    async def _stored_metrics(self, model: Model) -> Metrics | None:
        stored = await self._book.metrics(model.digest)
        return None if stored is None else Metrics.model_validate(stored)

    async def _configured(self) -> Rival:
        """What scores where the registry names no champion: the workers' settings do, which are not this process's."""
        raise Conflict(
            "no champion is registered: the workers score with what their own FRAUDGUARD_MODEL names",
            hint="make the first promotion with `fraudguard model promote`, where that release can be read",
        )

    async def _check(self, model: Model) -> None:
        """Whether its folder holds what was registered: every worker looks before it takes the model over."""

    async def _tokenizer(self, head: Head | None) -> str:
        """The id of the champion's."""
        if head is None or head.champion is None:
            raise Conflict("no champion is registered")
        return head.champion.tokenizer


def step_of(head: Head | None) -> int:
    """What a change must name as the head that it saw."""
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
