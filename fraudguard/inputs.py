"""What the engine and the rules are asked of a decided event, from what its record stores.

Knows the timeline's shape and the names of the score's values; scores nothing and evaluates nothing.
"""

from collections.abc import Mapping

from fraudguard.domain import Scalar, Score, ScoreRequest, Screenable, Timeline
from fraudguard.features.timeline import chat
from fraudguard.tenants import tenant_of


def score_request(event: Screenable, timeline: Timeline, features: Mapping[str, Scalar]) -> ScoreRequest:
    """What the engine is asked of an event; its tenant is the text of its attribute `tenant`."""
    return ScoreRequest(timeline, features, tenant_of(event) or None)


def rule_inputs(features: Mapping[str, Scalar], timeline: Timeline, score: Score | None) -> dict[str, Scalar]:
    """Everything a rule may name, by name: the stored features, the recent conversation and the score."""
    return {
        **features,
        "chat": chat(timeline),
        "risk": score.risk if score else None,
        "typology": score.typology.value if score else None,
        "degraded": score is None,
    }
