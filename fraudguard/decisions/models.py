"""The model registry: which releases there are, which is champion or challenger, and what challengers would have said.

The steps are append-only and the newest one is the head; taking a promotion back is one more step. Knows digests, names
and order; what is in a release, and which one is good enough, is fraudguard/models.py's.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fraudguard.decisions import audit
from fraudguard.decisions.connection import Open
from fraudguard.decisions.tables import MODEL_STEPS, MODELS
from fraudguard.domain import Outcome, Typology, format_time
from fraudguard.errors import BadInput, Conflict, NotFound

NOTE_CHARACTERS_MAX = 2_000
DIGEST_CHARACTERS_MIN = 8  # of a digest that is given by its beginning
ROWS_A_FETCH = 1_000

Action = Literal["shadow", "retire", "promote", "rollback"]
State = Literal["champion", "challenger", "former", "retired"]

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('fraudguard models'))")

# Asked by every worker with every batch: one row by an index's end, and at most two by their key.
_HEAD = text("""
SELECT s.id, s.actor, s.at,
       a.digest, a.name, a.version, a.graph, a.tokenizer, a.location,
       b.digest AS digest_b, b.name AS name_b, b.version AS version_b, b.graph AS graph_b, b.tokenizer AS tokenizer_b,
       b.location AS location_b
FROM (SELECT * FROM model_steps ORDER BY id DESC LIMIT 1) s
LEFT JOIN models a ON a.digest = s.champion
LEFT JOIN models b ON b.digest = s.challenger
""")

_WRITE = text("""
INSERT INTO shadow_scores (digest, decision_id, event_time, model, risk, typology, outcome, at)
SELECT * FROM unnest(CAST(:digests AS text[]), CAST(:decisions AS text[]), CAST(:times AS timestamptz[]),
                     CAST(:models AS text[]), CAST(:risks AS double precision[]), CAST(:typologies AS text[]),
                     CAST(:outcomes AS text[]), CAST(:ats AS timestamptz[]))
""")

# Row by row along the keys: a join that first reads every decision would outlast a statement's time.
_BY_KEY = "SET LOCAL enable_hashjoin = off", "SET LOCAL enable_mergejoin = off"
_SHADOWED = text("""
SELECT d.event_time, d.body #>> '{decision,model}' AS model, d.risk, d.outcome, s.risk AS risk_s,
       s.outcome AS outcome_s, l.verdict
FROM shadow_scores s
JOIN decisions d ON d.event_time = s.event_time AND d.decision_id = s.decision_id
LEFT JOIN LATERAL (
    SELECT verdict FROM labels WHERE target_event_id = d.event_id AND tenant = d.tenant
    ORDER BY event_time DESC, event_id DESC LIMIT 1
) l ON true
WHERE s.digest = :digest
""")


@dataclass(frozen=True, slots=True)
class Model:
    """A registered release. graph: "" where torch loads it, else an ONNX release's precision. location: its folder."""

    digest: str
    name: str
    version: str
    graph: str
    tokenizer: str
    location: str

    @property
    def id(self) -> str:
        """name@version, and what sets an ONNX release apart."""
        return f"{self.name}@{self.version}" + (f"+onnx-{self.graph}" if self.graph else "")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest step, and who stands after it. champion None: the model that each worker's settings name."""

    step: int
    champion: Model | None
    challenger: Model | None
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody did; digest None: to the model that the workers' settings name."""

    action: Action
    digest: str | None
    champion: str | None
    challenger: str | None
    forced: bool
    actor: str
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A model with its history, oldest step first. metrics: of its metrics.json, None where it brings none.

    state: `former` was champion and can be rolled back to.
    """

    model: Model
    state: State
    metrics: Mapping[str, Any] | None
    added_at: datetime
    added_by: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """What a challenger would have said of a decision. model: name@version+precision. outcome: the policy's."""

    digest: str
    decision_id: str
    event_time: datetime
    model: str
    risk: float
    typology: Typology
    outcome: Outcome
    at: datetime


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A decision and what the challenger would have made of it. verdict: of its newest label."""

    event_time: datetime
    model: str
    risk: float
    outcome: Outcome
    shadow_risk: float
    shadow_outcome: Outcome
    verdict: Literal["fraud", "legitimate"] | None


class ModelBook:
    """Every method raises StoreUnavailable when PostgreSQL does not answer; every change is audited with it."""

    def __init__(self, open_: Open) -> None:
        """open_: gives the transaction to work in."""
        self._open = open_

    async def head(self) -> Head | None:
        """Who stands now; None before the first step."""
        async with self._open() as connection:
            return await _head(connection)

    async def add(self, model: Model, metrics: Mapping[str, Any] | None, actor: str, at: datetime) -> None:
        """Keep a model; one that is known may have moved to another folder. It scores nothing until a step says so.

        Raises Conflict if another release has its name and version.
        """
        async with self._open() as connection:
            await connection.execute(_LOCK)
            c = MODELS.c
            same_name = (c.name == model.name) & (c.version == model.version) & (c.graph == model.graph)
            known = (await connection.execute(select(MODELS).where((c.digest == model.digest) | same_name))).all()
            if other := next((row for row in known if row.digest != model.digest), None):
                raise Conflict(
                    f"another release of {other.added_by} is {model.id}: {other.digest[:12]} in {other.location}",
                    hint="give this one a version of its own",
                )
            if known and known[0].location == model.location:
                return
            values = {name: getattr(model, name) for name in ("digest", "name", "version", "graph", "tokenizer")}
            if known:
                moved = update(MODELS).where(c.digest == model.digest).values(location=model.location)
                await connection.execute(moved)
            else:
                row = values | {"location": model.location, "metrics": metrics, "added_at": at, "added_by": actor}
                await connection.execute(insert(MODELS).values(row))
            detail = values | {"location": model.location, "before": known[0].location if known else None}
            await audit.append(connection, at, actor, "models.add", model.id, detail)

    async def find(self, which: str) -> Model:
        """The model of this name@version, as Model.id says it, or of this digest or its beginning. Raises NotFound."""
        async with self._open() as connection:
            models = [_model(row) for row in await connection.execute(select(MODELS))]
        by_digest = len(which) >= DIGEST_CHARACTERS_MIN
        found = [m for m in models if m.id == which or (by_digest and m.digest.startswith(which))]
        if len(found) != 1:
            reason = f"{len(found)} models have a digest that begins so" if found else f"no model {which!r}"
            raise NotFound(f"{reason}; `fraudguard model list` shows those that there are")
        return found[0]

    async def metrics(self, digest: str) -> Mapping[str, Any] | None:
        """What the model's metrics.json says. Raises NotFound."""
        async with self._open() as connection:
            row = (await connection.execute(select(MODELS.c.metrics).where(MODELS.c.digest == digest))).one_or_none()
        if row is None:
            raise NotFound(f"no model {digest!r}")
        return row.metrics  # type: ignore[no-any-return]  # of JSON

    async def take(
        self,
        action: Action,
        model: Model | None,
        actor: str,
        note: str,
        at: datetime,
        *,
        expected: int,
        forced: bool = False,
        objections: str = "",
    ) -> Head:
        """Do one step; who stands after it. model None: rollback alone, to the model that the workers' settings name.

        expected: the step that the caller saw as the head, 0 for none. objections: what a forced step went over.
        Raises Conflict if the head is another one or the step makes no sense, BadInput for the note.
        """
        if len(note) > NOTE_CHARACTERS_MAX:
            raise BadInput(f"must be at most {NOTE_CHARACTERS_MAX} characters", path="note")
        async with self._open() as connection:
            await connection.execute(_LOCK)
            head = await _head(connection)
            if expected != (head.step if head else 0):
                raise _overtaken(head)
            champion, challenger = _after(action, model, head)
            if action == "rollback" and _digest(model) not in await _turns(connection):
                raise Conflict(f"{_id(model)} was no champion, or was rolled back from", hint="promote it")
            row = {
                "action": action,
                "digest": _digest(model),
                "champion": _digest(champion),
                "challenger": _digest(challenger),
                "forced": forced,
            }
            written = insert(MODEL_STEPS).values(**row, actor=actor, note=note, at=at)
            step: int = (await connection.execute(written.returning(MODEL_STEPS.c.id))).scalar_one()
            detail: dict[str, str | Mapping[str, str | None] | None] = {
                "note": note,
                "digest": _digest(model),
                "before": {"champion": _id(head.champion), "challenger": _id(head.challenger)} if head else None,
                "after": {"champion": _id(champion), "challenger": _id(challenger)},
            }
            if forced:
                detail["forced_over"] = objections
            await audit.append(connection, at, actor, f"models.{action}", _id(model) or "settings", detail)
        return Head(step, champion, challenger, actor, at)

    async def former(self) -> list[Model | None]:
        """The champions before the one that stands, the last one first; None: that of the workers' settings.

        A rollback ends the turns of those after the one that it went back to.
        """
        async with self._open() as connection:
            turns = await _turns(connection)
            models = {row.digest: _model(row) for row in await connection.execute(select(MODELS))}
        return [models[digest] if digest else None for digest in turns[-2::-1]]

    async def entries(self) -> list[Entry]:
        """Every model, the last added first."""
        async with self._open() as connection:
            rows = (await connection.execute(select(MODELS).order_by(MODELS.c.added_at.desc(), MODELS.c.digest))).all()
            steps = (await connection.execute(select(MODEL_STEPS).order_by(MODEL_STEPS.c.id))).all()
            head, turns = await _head(connection), await _turns(connection)
        return [
            Entry(
                _model(row),
                _state(row.digest, head, turns),
                row.metrics,
                row.added_at,
                row.added_by,
                tuple(_step(step) for step in steps if step.digest == row.digest),
            )
            for row in rows
        ]

    async def shadowed(self, digest: str) -> AsyncGenerator[Shadowed, None]:
        """The decisions that this model scored in shadow, streamed, in no order.

        Holds one connection meanwhile; close it (contextlib.aclosing) when you stop early.
        """
        async with self._open() as connection:
            for setting in _BY_KEY:
                await connection.execute(text(setting))
            options = {"yield_per": ROWS_A_FETCH}
            async with connection.stream(_SHADOWED, {"digest": digest}, execution_options=options) as rows:
                async for row in rows:
                    live, shadow = Outcome(row.outcome), Outcome(row.outcome_s)
                    yield Shadowed(row.event_time, row.model, row.risk, live, row.risk_s, shadow, row.verdict)


async def write_shadow_scores(connection: AsyncConnection, scores: Sequence[ShadowScore]) -> None:
    """Store them in the transaction of their decisions; a unique violation if one is stored."""
    if not scores:
        return
    ordered = sorted(scores, key=lambda score: (score.digest, score.decision_id))
    await connection.execute(
        _WRITE,
        {
            "digests": [score.digest for score in ordered],
            "decisions": [score.decision_id for score in ordered],
            "times": [score.event_time for score in ordered],
            "models": [score.model for score in ordered],
            "risks": [score.risk for score in ordered],
            "typologies": [score.typology.value for score in ordered],
            "outcomes": [score.outcome.value for score in ordered],
            "ats": [score.at for score in ordered],
        },
    )


async def _head(connection: AsyncConnection) -> Head | None:
    row = (await connection.execute(_HEAD)).one_or_none()
    if row is None:
        return None
    challenger = None
    if row.digest_b is not None:
        challenger = Model(row.digest_b, row.name_b, row.version_b, row.graph_b, row.tokenizer_b, row.location_b)
    return Head(row.id, None if row.digest is None else _model(row), challenger, row.actor, row.at)


def _model(row: Row[Any]) -> Model:
    return Model(row.digest, row.name, row.version, row.graph, row.tokenizer, row.location)


def _step(row: Row[Any]) -> Step:
    return Step(row.action, row.digest, row.champion, row.challenger, row.forced, row.actor, row.note, row.at)


def _id(model: Model | None) -> str | None:
    return model.id if model else None


def _digest(model: Model | None) -> str | None:
    return model.digest if model else None


def _overtaken(head: Head | None) -> Conflict:
    now = f"{head.actor} changed it at {format_time(head.at)}" if head else "nothing stands there"
    return Conflict(f"the registry is not as it was: {now}", hint="look with `fraudguard model list`, and try again")


def _after(action: Action, model: Model | None, head: Head | None) -> tuple[Model | None, Model | None]:
    """Champion and challenger after the step. Raises Conflict for one that makes no sense."""
    champion, challenger = (head.champion, head.challenger) if head else (None, None)
    if action == "retire":
        if model is None or model != challenger:
            raise Conflict(f"{_id(model)} is no challenger", hint="only a challenger can be retired")
        return champion, None
    if model == champion:
        raise Conflict(f"{_id(model) or 'what FRAUDGUARD_MODEL names'} is the champion already")
    if action == "shadow":
        return champion, model
    return model, None if challenger == model else challenger


async def _turns(connection: AsyncConnection) -> list[str | None]:
    """The digests of the champions whose turns stand, the first one first: that of the workers' settings."""
    turns: list[str | None] = [None]
    for step in await connection.execute(select(MODEL_STEPS).order_by(MODEL_STEPS.c.id)):
        if step.action == "promote":
            turns.append(step.champion)
        elif step.action == "rollback":
            while turns[-1] != step.champion:
                turns.pop()
    return turns


def _state(digest: str, head: Head | None, turns: Sequence[str | None]) -> State:
    if head and head.champion and digest == head.champion.digest:
        return "champion"
    if head and head.challenger and digest == head.challenger.digest:
        return "challenger"
    return "former" if digest in turns else "retired"
