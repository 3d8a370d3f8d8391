"""Files of cases: sent as they are, kept with their hash, handed out as downloads and never shown."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from fraudguard.api import case_examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.case_actions import Analyst, CaseId
from fraudguard.api.case_schemas import FileLine, FileQuery
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.services import Use
from fraudguard.api.versions import Seen, etag
from fraudguard.decisions.case_files import MEDIA_TYPES
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role

router = APIRouter(tags=["cases"])

_BYTES = {"type": "string", "format": "binary"}
_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, as it came",
        "content": {"application/octet-stream": {"schema": _BYTES, "example": case_examples.FILE_TEXT}},
    }
}


@router.post(
    "/v1/cases/{case_id}/files",
    status_code=201,
    summary="Attach a file",
    responses=shown(case_examples.FILE, 201) | refusals(401, 403, 404, 409, 412, 413, 422, 428, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                kind: {"schema": _BYTES, "example": case_examples.FILE_TEXT}
                if kind == "text/plain"
                else {"schema": _BYTES}
                for kind in MEDIA_TYPES
            },
        }
    },
)
async def attach(
    request: Request,
    services: Use,
    response: Response,
    caller: Analyst,
    case_id: CaseId,
    seen: Seen,
    query: Annotated[FileQuery, Query()],
) -> FileLine:
    """The body is the file, 4 MiB at most, with its own Content-Type: PDF, JPEG, PNG or plain text in UTF-8."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    case, file = await services.repository.cases.attach(
        case_id, seen, query.name, kind, await request.body(), actor(caller), services.clock.now()
    )
    response.headers.update(etag(case.version))
    return FileLine.model_validate(file)


@router.get(
    "/v1/cases/{case_id}/files/{sha256}",
    summary="Download a file",
    response_class=Response,
    responses=_DOWNLOAD | refusals(401, 403, 404, 422, 503),
)
async def download(
    services: Use,
    caller: Annotated[Principal, Depends(Serves(Role.ANALYST, Role.LEAD))],
    case_id: CaseId,
    sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", examples=[case_examples.FILE["sha256"]])],
) -> Response:
    """Who read which file is in the audit trail. Whatever it is, a browser saves it and does not open it."""
    file, body = await services.repository.cases.read_file(case_id, sha256, actor(caller), services.clock.now())
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body, headers=headers, media_type="application/octet-stream")
