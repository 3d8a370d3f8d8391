"""Files that people attach to a case from the console. They are handed out by the REST API, as downloads."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console.readers import Working
from fraudguard.api.console.sending import version_of
from fraudguard.api.services import Use

router = APIRouter()


@router.post("/cases/{case_id}/files")
async def attach(
    request: Request,
    services: Use,
    reader: Working,
    case_id: Annotated[str, Path(max_length=64)],
    name: Annotated[str, Query(max_length=256)] = "",
    seen: Annotated[str, Query(max_length=32)] = "",
) -> Response:
    """The body is the file, with its own Content-Type, as `POST /v1/cases/{case_id}/files` takes it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body, version = await request.body(), version_of({"seen": seen})
    who, now = actor(reader.principal), services.clock.now()
    await services.repository.cases.attach(case_id, version, name, kind, body, who, now)
    return Response(status_code=204)
