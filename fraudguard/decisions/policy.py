"""From a score and rule hits to an outcome with its reasons, as a policy file says. Pure.

Knows no database, no model and no rule's inside. See docs/policy.md for the file.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from fraudguard.domain import SEVERITIES, Hit, Outcome, Score, Severity, Typology
from fraudguard.errors import BadPolicy

EventType = Literal["transaction", "message"]
_TYPES: Final[tuple[EventType, ...]] = ("transaction", "message")
LATE_EVENT = "LATE_EVENT"
SOURCE_BYTES_MAX = 65_536
_DUE_MINUTES: Final = {"step_up": 1_440, "review": 240, "block": 30}

_OutcomeName = Literal["approve", "step_up", "review", "block"]
_Risk = Annotated[float, Field(gt=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _rise(step_up: float | None, review: float | None, block: float | None) -> bool:
    stated = [risk for risk in (step_up, review, block) if risk is not None]
    return all(low < high for low, high in pairwise(stated))


class _Override(_Strict):
    """What a typology states of its own; null is a threshold too: never reached."""

    step_up: _Risk | None = None
    review: _Risk | None = None
    block: _Risk | None = None


_ByTypology: type[_Strict] = create_model(
    "_ByTypology", __base__=_Strict, **{typology.value: (_Override, None) for typology in Typology}
)  # type: ignore[call-overload]  # mypy wants the fields by name


class _Thresholds(_Strict):
    step_up: _Risk | None = None
    review: _Risk | None = None
    block: _Risk | None = None
    by_typology: _ByTypology = Field(default_factory=_ByTypology)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not _rise(self.step_up, self.review, self.block):
            raise ValueError("a more severe outcome must need a higher risk: step_up < review < block")
        return self

    def of(self, typology: Typology) -> dict[Outcome, float | None]:
        """The thresholds that hold for a typology: what it states, else the general ones."""
        own: _Override | None = getattr(self.by_typology, typology.value)
        return {
            outcome: getattr(own if own and outcome.value in own.model_fields_set else self, outcome.value)
            for outcome in Outcome
            if outcome is not Outcome.APPROVE
        }


class _Model(_Strict):
    transaction: _Thresholds
    message: _Thresholds


class _ByType(_Strict):
    transaction: _OutcomeName
    message: _OutcomeName


class _Degraded(_Strict):
    ENGINE_UNAVAILABLE: _ByType
    OVERLOAD: _ByType
    ENGINE_OFF: _ByType


DEGRADED: Final = frozenset(_Degraded.model_fields)  # why a decision was made without the model: its reason codes


class _Severities(_Strict):
    step_up: Severity
    review: Severity
    block: Severity


_Minutes = Annotated[int, Field(ge=1, le=43_200)]


class _Due(_Strict):
    step_up: _Minutes
    review: _Minutes
    block: _Minutes


class _Allow(_Strict):
    takes_back: _ByType


class _Cases(_Strict):
    transaction: list[_OutcomeName]
    message: list[_OutcomeName]


class _File(_Strict):
    version: Literal[1]
    model: _Model
    degraded: _Degraded
    cases: _Cases
    # Policies stored before these existed are still read: the model then asks without a severity, allow rules take
    # nothing back, and alerts are due as in _DUE_MINUTES.
    severity: _Severities | None = None
    allow: _Allow | None = None
    due: _Due | None = None

    @field_validator("severity", "allow", "due", mode="before")
    @classmethod
    def _stated(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must be a mapping")
        return value


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that asked for an outcome. rule: its id; "" for the model and the floor of a degraded decision.

    severity: None where the policy states none. taken_back: an allow rule took it back, so it counts for nothing.
    """

    source: Literal["model", "rule", "floor"]
    outcome: Outcome
    reason: str
    severity: Severity | None
    rule: str = ""
    taken_back: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy makes of one event. severity: None where nothing with a severity asked for the outcome.

    asked: what stands in the order of the reasons, then what was taken back.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    severity: Severity | None
    asked: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in force. version: 12 hex digits of the source's SHA-256; source: the file's text.

    thresholds: the most severe first. takes_back: the most severe outcome that an allow rule takes back; approve is
    nothing. due: how long after it was decided an alert should have been judged.
    """

    version: str
    source: str
    thresholds: Mapping[EventType, Mapping[Typology, tuple[tuple[Outcome, float], ...]]]
    floors: Mapping[str, Mapping[EventType, Outcome]]
    cases: Mapping[EventType, frozenset[Outcome]]
    severities: Mapping[Outcome, Severity]
    takes_back: Mapping[EventType, Outcome]
    due: Mapping[Outcome, timedelta]

    @classmethod
    def from_source(cls, text: str, path: str = "policy.yaml") -> Self:
        """Read a policy; `path` only names it in errors. Raises BadPolicy with path:line:column and a hint."""
        file = _read(text, path)
        return cls(
            version=hashlib.sha256(text.encode()).hexdigest()[:12],
            source=text,
            thresholds={
                event_type: {
                    typology: tuple(
                        (outcome, risk)
                        for outcome, risk in reversed(getattr(file.model, event_type).of(typology).items())
                        if risk is not None
                    )
                    for typology in Typology
                }
                for event_type in _TYPES
            },
            floors={
                reason: {event_type: Outcome(getattr(floor, event_type)) for event_type in _TYPES}
                for reason, floor in file.degraded
            },
            cases={event_type: frozenset(map(Outcome, getattr(file.cases, event_type))) for event_type in _TYPES},
            severities={Outcome(name): severity for name, severity in file.severity} if file.severity else {},
            takes_back={
                event_type: Outcome(getattr(file.allow.takes_back, event_type)) if file.allow else Outcome.APPROVE
                for event_type in _TYPES
            },
            due=due_of(dict(file.due) if file.due else _DUE_MINUTES),
        )

    @property
    def degraded_reasons(self) -> frozenset[str]:
        """Every reason for which `decide` knows a floor."""
        return frozenset(self.floors)

    def decide(
        self, event_type: EventType, score: Score | None, hits: Sequence[Hit], degraded_reason: str | None, late: bool
    ) -> Verdict:
        """The most severe of model, live rules and degrade floor that no allow rule took back, and why.

        Reasons come most severe first (at equal severity: allow rules that took something back, model, rules by code,
        degrade), none twice, LATE_EVENT last. Shadow hits count for nothing. Raises KeyError for a degraded_reason the
        policy does not name.
        """
        asked: list[Ask] = []
        if score is not None:
            asked.extend(self._model(event_type, score))
        live = sorted((hit for hit in hits if hit.state == "live"), key=lambda hit: (hit.reason, hit.rule))
        asked.extend(Ask("rule", hit.outcome, hit.reason, hit.severity, hit.rule) for hit in live)
        standing, taken = self._take_back(event_type, asked)
        if degraded_reason is not None:
            floor = self.floors[degraded_reason][event_type]
            standing.append(Ask("floor", floor, degraded_reason, self.severities.get(floor)))
        standing.sort(key=lambda ask: -ask.outcome.severity)
        outcome = standing[0].outcome if standing else Outcome.APPROVE
        severities = {ask.severity for ask in standing if ask.outcome is outcome and ask.severity is not None}
        reasons = [ask.reason for ask in standing] + ([LATE_EVENT] if late else [])
        return Verdict(
            outcome,
            tuple(dict.fromkeys(reasons)),
            max(severities, key=SEVERITIES.index, default=None),
            (*standing, *taken),
        )

    def _model(self, event_type: EventType, score: Score) -> list[Ask]:
        for outcome, least in self.thresholds[event_type][score.typology]:
            if score.risk >= least:
                return [Ask("model", outcome, f"MODEL_RISK_{outcome.name}", self.severities.get(outcome))]
        return []

    def _take_back(self, event_type: EventType, asked: list[Ask]) -> tuple[list[Ask], list[Ask]]:
        """What stands, allow rules first where they took something back; and what they took back."""
        allowing = [ask for ask in asked if ask.outcome is Outcome.APPROVE]
        if not allowing:
            return asked, []
        limit = self.takes_back[event_type].severity
        taken = [replace(ask, taken_back=True) for ask in asked if 0 < ask.outcome.severity <= limit]
        if not taken:
            return asked, []
        return allowing + [ask for ask in asked if ask.outcome.severity > limit], taken

    def opens_case(self, event_type: EventType, outcome: Outcome) -> bool:
        """Whether a person must look at such a decision."""
        return outcome in self.cases[event_type]


def due_of(minutes: Mapping[str, int] = _DUE_MINUTES) -> dict[Outcome, timedelta]:
    """Minutes by outcome as times; an approved event that opens a case is as urgent as a step-up."""
    return {
        outcome: timedelta(minutes=minutes["step_up" if outcome is Outcome.APPROVE else outcome.value])
        for outcome in Outcome
    }


def json_schema() -> dict[str, Any]:
    """What an editor checks a policy file against."""
    return _File.model_json_schema()


def load_policy(path: Path) -> Policy:
    """Read the policy file. Raises BadPolicy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadPolicy(f"cannot be read: {error}", path=str(path), hint="set FRAUDGUARD_POLICY_PATH") from error
    return Policy.from_source(text, str(path))


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _read(text: str, path: str) -> _File:
    if len(text.encode()) > SOURCE_BYTES_MAX:
        raise BadPolicy(f"is longer than {SOURCE_BYTES_MAX} bytes", path=path, hint="is it the right file?")
    try:
        root = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise BadPolicy(error.problem or "is not YAML", path=place, hint="mend the YAML") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: `!!int x`
        raise BadPolicy(f"is not YAML: {error}", path=path, hint="mend the YAML") from error
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = tuple(first["loc"])
        name = ".".join(map(str, where))
        message = _MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise BadPolicy(
            f"{name}: {message}" if name else message, path=f"{path}:{_place(root, where)}", hint=_hint(first)
        ) from error
    _check_typologies(file, root, path)
    return file


def _check_typologies(file: _File, root: yaml.Node | None, path: str) -> None:
    """Raise BadPolicy where a typology's thresholds together with the general ones do not rise."""
    for event_type in _TYPES:
        for typology in Typology:
            merged = getattr(file.model, event_type).of(typology)
            if not _rise(*merged.values()):
                where = ("model", event_type, "by_typology", typology.value)
                shown = ", ".join(f"{outcome} {risk:g}" for outcome, risk in merged.items() if risk is not None)
                raise BadPolicy(
                    f"{'.'.join(where)}: with the general thresholds this is {shown}; "
                    "a more severe outcome must need a higher risk",
                    path=f"{path}:{_place(root, where)}",
                    hint="state the others here too; null is never",
                )


def _place(node: yaml.Node | None, where: Sequence[str | int]) -> str:
    """Line and column of the deepest node on the way to `where` that exists."""
    mark = node.start_mark if node else None
    for step in where:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                break
            mark, node = found[0].start_mark, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            mark = node.start_mark
    return f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"


_MESSAGES = {"extra_forbidden": "unknown field", "missing": "is missing", "model_type": "must be a mapping"}
_FIELDS = {
    name
    for part in (_File, _Model, _Thresholds, _ByTypology, _Degraded, _ByType, _Severities, _Allow, _Cases, _Due)
    for name in part.model_fields
}


def _hint(error: Any) -> str:
    name = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        close = get_close_matches(name, sorted(_FIELDS), n=1)
        return f"did you mean {close[0]!r}?" if close else "remove it"
    if error["type"] == "missing":
        return f"add {name!r}; docs/policy.md shows the whole file"
    return "docs/policy.md shows the whole file"
