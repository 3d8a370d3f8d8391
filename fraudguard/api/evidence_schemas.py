"""The shapes of evidence: what moved a decision's risk, line by line and feature by feature. Shapes only."""

from typing import Literal

from pydantic import Field

from fraudguard.api.schemas import EventType, _Body, _Query
from fraudguard.domain import Outcome, Scalar, Severity, Time
from fraudguard.explain import Asked, NearMiss
from fraudguard.rules.trace import Part


class EvidenceLine(_Body):
    """A line of the timeline, masked, and the risk after it. effect: what leaving it out takes from the risk."""

    sequence: int
    decision_id: str
    event_type: EventType
    event_time: Time
    outcome: Outcome
    risk: float | None
    line: str
    effect: float | None = Field(description="Probability; null where it was not left out")


class EvidenceFeature(_Body):
    """A feature family with its values, or a whole group of families. effect: what its being missing takes away."""

    kind: Literal["feature", "group"]
    name: str
    effect: float
    values: dict[str, Scalar] = Field(description="By feature; empty for a group")


class Found(_Body):
    """A phrase that a test found, with the text around it."""

    phrase: str
    excerpt: str


class RuleTest(_Body):
    """One test of a rule's condition, as written, with what it read and whether it held."""

    text: str
    holds: bool
    values: dict[str, Scalar]
    found: tuple[Found, ...]


class AskedFor(_Body):
    """What asked for an outcome: the model (at `threshold`), a rule with its tests, or the floor without a model."""

    source: Literal["model", "rule", "floor"]
    outcome: Outcome
    reason: str
    severity: Severity | None
    taken_back: bool
    rule: str | None
    version: int | None
    threshold: float | None
    tests: tuple[RuleTest, ...]
    without: Outcome = Field(description="The decision's outcome had this not asked")

    @classmethod
    def of(cls, asked: Asked) -> "AskedFor":
        """As explained."""
        ask = asked.ask
        return cls(
            source=ask.source,
            outcome=ask.outcome,
            reason=ask.reason,
            severity=ask.severity,
            taken_back=ask.taken_back,
            rule=ask.rule or None,
            version=asked.version,
            threshold=asked.threshold,
            tests=_tests(asked.condition) if asked.condition else (),
            without=asked.without,
        )


class NearlyHit(_Body):
    """A live rule of which one test did not hold. needs: single changes with which it would have acted."""

    rule: str
    version: int
    outcome: Outcome
    tests: tuple[RuleTest, ...]
    needs: tuple[str, ...]

    @classmethod
    def of(cls, near: NearMiss) -> "NearlyHit":
        """As explained."""
        return cls(
            rule=near.rule,
            version=near.version,
            outcome=near.outcome,
            tests=_tests(near.part),
            needs=tuple(turn.change.text for turn in near.needs),
        )


def _tests(part: Part) -> tuple[RuleTest, ...]:
    if part.kind != "test":
        return tuple(test for below in part.parts for test in _tests(below))
    found = tuple(Found(phrase=one.phrase, excerpt=one.excerpt) for one in part.found)
    return (RuleTest(text=part.text, holds=part.holds, values=dict(part.values), found=found),)


class DecisionEvidence(_Body):
    """Effects are of `model_risk`, the risk that `model` gives everything; it is the decision's within a tolerance."""

    decision_id: str
    status: Literal["made", "none"] = Field(description="`none`: decided without the model, so nothing moved its risk")
    risk: float | None = Field(description="As decided")
    model: str | None
    model_risk: float | None
    made_at: Time | None
    lines: tuple[EvidenceLine, ...] = Field(description="The timeline that was decided on, oldest first")
    features: tuple[EvidenceFeature, ...] = Field(description="The greatest effect first")
    asked: tuple[AskedFor, ...] = Field(description="What asked for the outcome; what was taken back comes last")
    near_misses: tuple[NearlyHit, ...]
    explained: bool = Field(description="False where the rules that decided cannot be read any more")


class EvidencePending(_Body):
    """A worker makes it when it has time: ask again."""

    decision_id: str
    status: Literal["waits"] = "waits"


class NarrativeQuery(_Query):
    """How to tell it."""

    language: Literal["zh", "en"] = "zh"
