"""Evidence out: what moved a decision's risk, from the store alone; where none was made, a worker is asked for it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import JSONResponse

from fraudguard.api import examples
from fraudguard.api.auth import Serves
from fraudguard.api.evidence_schemas import (
    AskedFor,
    DecisionEvidence,
    EvidenceFeature,
    EvidenceLine,
    EvidencePending,
    NearlyHit,
)
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import ProblemError, unavailable
from fraudguard.api.services import Services, Use
from fraudguard.api.why import explanation
from fraudguard.decisions.evidence import RETRY, Evidence
from fraudguard.domain import DecisionRecord, Role
from fraudguard.features.registry import families

router = APIRouter(tags=["decisions"])

READERS = Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR)
RETRY_AFTER_S = 1

_DECISION_ID = Path(max_length=64, examples=[examples.DECISION_ID])
_WAITS = {"model": EvidencePending, "description": "A worker was asked for it; ask again after Retry-After"}


@router.get(
    "/v1/decisions/{decision_id}/evidence",
    summary="What moved a decision's risk",
    response_model=DecisionEvidence,
    responses=shown(examples.EVIDENCE)
    | {202: _WAITS | {"content": {"application/json": {"example": examples.EVIDENCE_WAITS}}}}
    | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def get_evidence(services: Use, decision_id: Annotated[str, _DECISION_ID]) -> DecisionEvidence | JSONResponse:
    """The risk after each line, and what leaving out each line and each feature takes from the decision's risk.

    Made when a decision needs a person; of another one when it is first asked for: 202 until then.
    """
    record = await services.repository.record(decision_id)
    made = await services.repository.evidence.of(decision_id)
    if made is None and record.score is not None:
        await wish(services, decision_id)
        pending = EvidencePending(decision_id=decision_id)
        return JSONResponse(pending.model_dump(), 202, {"Retry-After": str(RETRY_AFTER_S)})
    return await evidence_of(services, record, made)


async def wish(services: Services, decision_id: str) -> None:
    """Have it made. Ends the request with 503 where it could not be made a moment ago, or too many wait."""
    fate = await services.repository.evidence.wish(decision_id, services.clock.now())
    if fate == "failed":
        raise ProblemError(
            503,
            "evidence_unavailable",
            "no worker could make this evidence just now",
            hint="the workers' logs and the metric fraudguard_evidence say why",
            headers={"Retry-After": str(int(RETRY.total_seconds()))},
        )
    if fate == "too_many":
        raise unavailable("evidence_busy", "too much evidence is wished for already")


async def evidence_of(services: Services, record: DecisionRecord, made: Evidence | None) -> DecisionEvidence:
    """What is known of this decision. made: what was made of it."""
    decision = record.decision
    risks = await services.repository.evidence.risks(
        decision.account_id, decision.tenant, record.timeline_start, decision.sequence
    )
    explained = await explanation(services, record)
    found = made.contributions if made else ()
    effects = {int(one.name): one.effect for one in found if one.kind == "line"}
    members = {name: names for (_, name), names in families(record.features).items()}
    features = tuple(
        EvidenceFeature(
            kind="feature" if one.kind == "feature" else "group",
            name=one.name,
            effect=one.effect,
            values={name: record.features[name] for name in members.get(one.name, ())} if one.kind == "feature" else {},
        )
        for one in found
        if one.kind != "line"
    )
    return DecisionEvidence(
        decision_id=decision.decision_id,
        status="made" if made else "none",
        risk=decision.risk,
        model=made.model if made else None,
        model_risk=made.risk if made else None,
        made_at=made.made_at if made else None,
        lines=tuple(
            EvidenceLine(
                sequence=line.sequence,
                decision_id=line.decision_id,
                event_type=line.event_type,
                event_time=line.event_time,
                outcome=line.outcome,
                risk=line.risk,
                line=line.line,
                effect=effects.get(line.sequence),
            )
            for line in risks
        ),
        features=features,
        asked=tuple(map(AskedFor.of, explained.asked)) if explained else (),
        near_misses=tuple(map(NearlyHit.of, explained.near_misses)) if explained else (),
        explained=explained is not None,
    )
