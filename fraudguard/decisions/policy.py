"""From a score and rule hits to an outcome with its reasons, as a policy file says. Pure.

Knows no database, no model and no rule's inside. See docs/policy.md for the file.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fraudguard.domain import Hit, Outcome, Score
from fraudguard.errors import BadPolicy

EventType = Literal["transaction", "message"]
LATE_EVENT = "LATE_EVENT"
SOURCE_BYTES_MAX = 65_536

_OutcomeName = Literal["approve", "step_up", "review", "block"]
_Risk = Annotated[float, Field(gt=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Thresholds(_Strict):
    step_up: _Risk | None = None
    review: _Risk | None = None
    block: _Risk | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        stated = [risk for risk in (self.step_up, self.review, self.block) if risk is not None]
        if any(low >= high for low, high in pairwise(stated)):
            raise ValueError("a more severe outcome must need a higher risk: step_up < review < block")
        return self


class _Model(_Strict):
    transaction: _Thresholds
    message: _Thresholds


class _Floor(_Strict):
    transaction: _OutcomeName
    message: _OutcomeName


class _Degraded(_Strict):
    ENGINE_UNAVAILABLE: _Floor
    OVERLOAD: _Floor
    ENGINE_OFF: _Floor


class _Cases(_Strict):
    transaction: list[_OutcomeName]
    message: list[_OutcomeName]


class _File(_Strict):
    version: Literal[1]
    model: _Model
    degraded: _Degraded
    cases: _Cases


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in force. version: 12 hex digits of the source's SHA-256; source: the file's text."""

    version: str
    source: str
    thresholds: Mapping[EventType, tuple[tuple[Outcome, float], ...]]
    floors: Mapping[str, Mapping[EventType, Outcome]]
    cases: Mapping[EventType, frozenset[Outcome]]

    @classmethod
    def from_source(cls, text: str, path: str = "policy.yaml") -> Self:
        """Read a policy; `path` only names it in errors. Raises BadPolicy with path:line:column and a hint."""
        file = _read(text, path)
        types: tuple[EventType, EventType] = ("transaction", "message")
        return cls(
            version=hashlib.sha256(text.encode()).hexdigest()[:12],
            source=text,
            thresholds={
                event_type: tuple(
                    (outcome, risk)
                    for outcome in sorted(Outcome, key=lambda o: -o.severity)
                    if (risk := getattr(getattr(file.model, event_type), outcome.value, None)) is not None
                )
                for event_type in types
            },
            floors={
                reason: {event_type: Outcome(getattr(floor, event_type)) for event_type in types}
                for reason, floor in file.degraded
            },
            cases={event_type: frozenset(map(Outcome, getattr(file.cases, event_type))) for event_type in types},
        )

    @property
    def degraded_reasons(self) -> frozenset[str]:
        """Every reason for which `decide` knows a floor."""
        return frozenset(self.floors)

    def decide(
        self, event_type: EventType, score: Score | None, hits: Sequence[Hit], degraded_reason: str | None, late: bool
    ) -> tuple[Outcome, tuple[str, ...]]:
        """The most severe of model, live rules and degrade floor, and why.

        Reasons come most severe first (at equal severity: model, rules by code, degrade), none twice, LATE_EVENT last.
        Shadow hits count for nothing. Raises KeyError for a degraded_reason the policy does not name.
        """
        asked: list[tuple[Outcome, str]] = []
        if score is not None:
            asked.extend(self._model(event_type, score.risk))
        asked.extend(sorted(((hit.outcome, hit.reason) for hit in hits if hit.state == "live"), key=lambda a: a[1]))
        if degraded_reason is not None:
            asked.append((self.floors[degraded_reason][event_type], degraded_reason))
        asked.sort(key=lambda a: -a[0].severity)
        reasons = [reason for _, reason in asked] + ([LATE_EVENT] if late else [])
        return (asked[0][0] if asked else Outcome.APPROVE), tuple(dict.fromkeys(reasons))

    def _model(self, event_type: EventType, risk: float) -> list[tuple[Outcome, str]]:
        for outcome, least in self.thresholds[event_type]:
            if risk >= least:
                return [(outcome, f"MODEL_RISK_{outcome.name}")]
        return []

    def opens_case(self, event_type: EventType, outcome: Outcome) -> bool:
        """Whether a person must look at such a decision."""
        return outcome in self.cases[event_type]


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
        return _File.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = tuple(first["loc"])
        name = ".".join(map(str, where))
        message = _MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise BadPolicy(
            f"{name}: {message}" if name else message, path=f"{path}:{_place(root, where)}", hint=_hint(first)
        ) from error


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
_FIELDS = {name for part in (_File, _Model, _Thresholds, _Degraded, _Floor, _Cases) for name in part.model_fields}


def _hint(error: Any) -> str:
    name = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        close = get_close_matches(name, sorted(_FIELDS), n=1)
        return f"did you mean {close[0]!r}?" if close else "remove it"
    if error["type"] == "missing":
        return f"add {name!r}; docs/policy.md shows the whole file"
    return "docs/policy.md shows the whole file"
