"""The shapes of evidence: what moved a decision's risk, line by line and feature by feature. Shapes only."""

from typing import Literal

from pydantic import Field

from fraudguard.api.schemas import EventType, _Body
from fraudguard.domain import Outcome, Scalar, Time


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


class EvidencePending(_Body):
    """A worker makes it when it has time: ask again."""

    decision_id: str
    status: Literal["waits"] = "waits"
