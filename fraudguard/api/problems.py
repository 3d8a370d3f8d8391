"""Errors as RFC 9457 problem documents: what went wrong, where, and how to mend it.

Knows which error of the house means which HTTP status. Nothing here repeats what somebody sent, and nothing of an
internal error gets out but that it happened.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fraudguard.errors import (
    BadEvent,
    BadInput,
    BadSettings,
    BadSignIn,
    BrokerUnavailable,
    Conflict,
    HouseOnly,
    NotFound,
    Overtaken,
    StateConflict,
    StoreUnavailable,
)
from fraudguard.events.masking import mask_text

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
PLACES_NAMED_MAX, PLACE_LENGTH_MAX = 5, 64


class Problem(BaseModel):
    """The body of every answer that is not 2xx (RFC 9457), with the house's `code`, `path` and `hint`."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="urn:fraudguard:problem:CODE", examples=["urn:fraudguard:problem:unknown_field"])
    title: str = Field(description="What the HTTP status means")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What is wrong, for people")
    code: str = Field(description="What is wrong, for programs: a stable word", examples=["unknown_field"])
    path: str | None = Field(default=None, description="The field that is wrong, like `amount` or `attributes.x`")
    hint: str | None = Field(default=None, description="How to mend it")


class ProblemError(Exception):
    """Ends a request with this problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        path: str = "",
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        self.problem = Problem(
            type=f"urn:fraudguard:problem:{code}",
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            code=code,
            path=path or None,
            hint=hint or None,
        )

    def response(self) -> Response:
        """The answer on the wire."""
        body = self.problem.model_dump_json(exclude_none=True).encode()
        return Response(body, self.problem.status, self.headers, MEDIA_TYPE)


def unavailable(code: str, detail: str, hint: str = "try again in a moment") -> ProblemError:
    """503 with Retry-After."""
    return ProblemError(503, code, detail, hint=hint, headers={"Retry-After": str(RETRY_AFTER_S)})


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Answer every error of the house and of the framework with a problem document. routers: all of the API."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(BadEvent, _bad_event)
    app.add_exception_handler(BadInput, _bad_input)
    app.add_exception_handler(BadSignIn, _bad_sign_in)
    app.add_exception_handler(HouseOnly, _house_only)
    app.add_exception_handler(Conflict, _conflict)
    app.add_exception_handler(Overtaken, _outrun)
    app.add_exception_handler(NotFound, _not_found)
    app.add_exception_handler(StateConflict, _overtaken)
    app.add_exception_handler(StoreUnavailable, _store)
    app.add_exception_handler(BadSettings, _settings)
    app.add_exception_handler(BrokerUnavailable, _broker)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, partial(_http, routes))
    app.add_exception_handler(Exception, _bug)


def _problem(_: Request, error: Any) -> Response:
    response: Response = error.response()
    return response


def _bad_event(_: Request, error: Any) -> Response:
    """422 with the event error's own code, path and fix."""
    return ProblemError(422, error.code, error.reason, path=error.path, hint=error.hint).response()


def _not_found(_: Request, error: Any) -> Response:
    return ProblemError(404, "not_found", str(error)).response()


def _bad_input(_: Request, error: Any) -> Response:
    return ProblemError(422, "bad_field", error.reason, path=error.path, hint=error.hint).response()


def _bad_sign_in(_: Request, error: Any) -> Response:
    """401 with the error's own code; RFC 9110 wants a challenge with it."""
    challenge = {"WWW-Authenticate": "Session"}
    return ProblemError(401, error.code, error.reason, path=error.path, hint=error.hint, headers=challenge).response()


def _house_only(_: Request, error: Any) -> Response:
    return ProblemError(403, "house_only", f"this {error.reason}", hint=error.hint).response()


def _conflict(_: Request, error: Any) -> Response:
    return ProblemError(409, "conflict", error.reason, path=error.path, hint=error.hint).response()


def _outrun(_: Request, error: Any) -> Response:
    return ProblemError(412, "overtaken", error.reason, path=error.path, hint=error.hint).response()


def _overtaken(_: Request, error: Any) -> Response:
    hint = "read it again, then decide whether to repeat the request"
    return ProblemError(409, "conflict", "somebody else changed this first", hint=hint).response()


def _store(_: Request, error: Any) -> Response:
    log.warning("PostgreSQL is not available: %s", error)
    return unavailable("store_unavailable", "the decision store does not answer").response()


def _settings(_: Request, error: Any) -> Response:
    log.error("this service is not set up: %s", error)
    hint = "the operator finds the reason in the log"
    return unavailable("not_set_up", "this service is not set up", hint).response()


def _broker(_: Request, error: Any) -> Response:
    hint = "send it again with the same event_id: an event counts once, however often it is sent"
    return unavailable("broker_unavailable", str(error), hint).response()


def _validation(_: Request, error: Any) -> Response:
    """The first thing wrong with a parameter or body; pydantic's messages name no values but ours."""
    first, *others = error.errors()
    if first["loc"] == ("body",) or first["type"] == "json_invalid":
        return _not_json()
    code = {"missing": "missing_field", "extra_forbidden": "unknown_field"}.get(first["type"], "bad_field")
    wrong = list(dict.fromkeys(map(_place, others)))[:PLACES_NAMED_MAX]
    hint = f"also wrong: {', '.join(wrong)}" if wrong else "see /openapi.json"
    return ProblemError(422, code, first["msg"].removeprefix("Value error, "), path=_place(first), hint=hint).response()


def _not_json() -> Response:
    hint = "send one JSON object in UTF-8, with Content-Type: application/json"
    return ProblemError(422, "bad_json", "the body is not a JSON object", hint=hint).response()


def _place(error: Mapping[str, Any]) -> str:
    """Where it is wrong. An unknown name is the sender's own word: masked and bounded."""
    return mask_text(".".join(map(str, error["loc"][1:]))[:PLACE_LENGTH_MAX])


def _http(routes: Sequence[APIRoute], request: Request, error: Any) -> Response:
    """What the framework itself refuses: no such route, wrong method, a body that is no UTF-8."""
    if error.status_code == 400:
        return _not_json()
    code = {404: "no_such_route", 405: "method_not_allowed"}.get(error.status_code, "refused")
    detail = {404: "nothing is served here", 405: "this route does not take this method"}.get(error.status_code)
    hint = "see /openapi.json"
    headers = error.headers
    if error.status_code == 405 and (allowed := _allowed(routes, request.url.path)):
        headers = {"Allow": allowed}
    return ProblemError(
        error.status_code, code, detail or HTTPStatus(error.status_code).phrase, hint=hint, headers=headers
    ).response()


def _allowed(routes: Sequence[APIRoute], path: str) -> str:
    """The methods of this path, of which the framework names those of the first route alone; "" for a foreign one."""
    paths = [route.path_format for route in routes if route.path_regex.match(path)]
    mine = path if path in paths else next(iter(paths), None)  # what names it wholly goes before what has a gap for it
    methods = {method for route in routes if route.path_format == mine for method in route.methods or ()}
    return ", ".join(sorted(methods))


def _bug(_: Request, error: Exception) -> Response:
    """The server logs the traceback; the caller learns only that it was not his fault."""
    return ProblemError(500, "internal_error", "an internal error", hint="report it with the time").response()
