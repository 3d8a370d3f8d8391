"""The model registry, to be read: which models there are and what was done. Changes are the command line's."""

from fastapi import APIRouter, Depends

from fraudguard.api import examples
from fraudguard.api.auth import Serves
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.schemas import ModelLine, Models, ModelStep
from fraudguard.api.services import Use
from fraudguard.domain import Role

router = APIRouter(tags=["models"])


@router.get(
    "/v1/models",
    summary="The registered models",
    responses=shown(examples.MODELS) | refusals(401, 403, 503),
    dependencies=[Depends(Serves(Role.VIEWER, Role.ANALYST, Role.LEAD, Role.RULE_EDITOR, house=True))],
)
async def models(services: Use) -> Models:
    """The last added first. Without a champion each worker scores with the model that its settings name."""
    head = await services.repository.models.head()
    lines = [
        ModelLine(
            id=entry.model.id,
            digest=entry.model.digest,
            state=entry.state,
            metrics=entry.metrics,
            added_at=entry.added_at,
            added_by=entry.added_by,
            steps=tuple(map(ModelStep.model_validate, entry.steps)),
        )
        for entry in await services.repository.models.entries()
    ]
    return Models(
        champion=head.champion.id if head and head.champion else None,
        challenger=head.challenger.id if head and head.challenger else None,
        models=tuple(lines),
    )
