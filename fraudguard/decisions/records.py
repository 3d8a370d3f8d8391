"""A DecisionRecord as the exact text of the `body` column, and back, bit for bit.

Floats keep their value (-0.0 too), integers stay integers, amounts decimal strings, and times keep microseconds.
Knows nothing of SQL. The sealed text is not in the body: it has a column that only audited reading opens.
"""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fraudguard.domain import Decision, DecisionRecord, Hit, Scalar, Score, Screenable


class _Body(BaseModel):
    # NaN and infinity are written as such, so that PostgreSQL refuses them: as null they would silently change.
    model_config = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")

    decision: Decision
    event: Annotated[Screenable, Field(discriminator="type")]
    received_at: AwareDatetime
    late: bool
    line: str
    timeline_start: int
    timeline_hash: str
    features: dict[str, Scalar]
    score: Score | None
    hits: tuple[Hit, ...]
    policy_version: str


def dump_record(record: DecisionRecord) -> str:
    """JSON text of everything but the sealed text."""
    return _Body.model_construct(
        decision=record.decision,
        event=record.event,
        received_at=record.received_at,
        late=record.late,
        line=record.line,
        timeline_start=record.timeline_start,
        timeline_hash=record.timeline_hash,
        features=dict(record.features),
        score=record.score,
        hits=record.hits,
        policy_version=record.policy_version,
    ).model_dump_json()


def load_record(body: str, sealed_text: bytes | None) -> DecisionRecord:
    """The record that was dumped."""
    parsed = _Body.model_validate_json(body)
    return DecisionRecord(
        decision=parsed.decision,
        event=parsed.event,
        received_at=parsed.received_at,
        late=parsed.late,
        line=parsed.line,
        timeline_start=parsed.timeline_start,
        timeline_hash=parsed.timeline_hash,
        features=parsed.features,
        score=parsed.score,
        hits=parsed.hits,
        policy_version=parsed.policy_version,
        sealed_text=sealed_text,
    )
