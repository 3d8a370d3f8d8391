"""The unmasked text of one line, for a reason: who read it and why is in the audit trail before it leaves the store."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console.readers import Working
from fraudguard.api.console.rendering import page
from fraudguard.api.console.sending import form_of
from fraudguard.api.problems import ProblemError
from fraudguard.api.services import Use
from fraudguard.errors import NotFound
from fraudguard.events.masking import open_sealed

router = APIRouter()


@router.post("/decisions/{decision_id}/text")
async def unmask(
    request: Request, services: Use, reader: Working, decision_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """The text in place of the masked one. 404 where it is not kept, 422 without a reason."""
    key = services.settings.raw_text_key
    if key is None:
        raise ProblemError(404, "text_not_kept", "unmasked text is not kept here")
    reason = (await form_of(request)).get("body", "")[:500]
    who, now = actor(reader.principal), services.clock.now()
    try:
        sealed = await services.repository.raw_text_of(decision_id, who, reason, now)
    except NotFound as error:
        raise ProblemError(404, "text_not_kept", str(error)) from error
    return page("unmasked.html", reader, "case", text=open_sealed(sealed, key.get_secret_value()))
