"""The console's own application, mounted at /console beside the REST API: its routes, headers and error pages."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from fraudguard.api.console import (
    case,
    decisions,
    deeds,
    lists,
    model,
    operations,
    queue,
    rules,
    rules_editing,
    signing,
    unmasking,
    vouching,
)
from fraudguard.api.console.rendering import refused
from fraudguard.api.console.rules_history import TextShelf
from fraudguard.api.console.security import Guarded
from fraudguard.api.console.why import RuleShelf
from fraudguard.api.problems import ProblemError, unavailable
from fraudguard.errors import BadInput, Conflict, HouseOnly, NotFound, Overtaken, StateConflict, StoreUnavailable

PATH: Final = "/console"


class _Static(StaticFiles):
    """Assets may be kept for an hour; a new build has a new page that names them by version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=3600"
        return response


def mount_console(app: FastAPI, currency: str) -> None:
    """Serve the console from this application, with what it has open. currency: the base currency."""
    console = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    console.state = app.state
    app.state.rule_shelf = RuleShelf(currency)
    app.state.rule_texts = TextShelf()
    resources = (signing, vouching, queue, case, deeds, decisions, unmasking)
    for resource in (*resources, rules, rules_editing, lists, model, operations):
        console.include_router(resource.router)
    console.mount("/static", _Static(packages=[("fraudguard.api.console", "static")]), name="static")
    console.add_middleware(Guarded)
    console.add_exception_handler(ProblemError, _problem)
    console.add_exception_handler(NotFound, _not_found)
    console.add_exception_handler(BadInput, _bad_input)
    console.add_exception_handler(HouseOnly, _house_only)
    console.add_exception_handler(Conflict, _conflict)
    console.add_exception_handler(Overtaken, _overtaken)
    console.add_exception_handler(StateConflict, _conflict)
    console.add_exception_handler(StoreUnavailable, _store)
    console.add_exception_handler(RequestValidationError, _validation)
    console.add_exception_handler(HTTPException, _http)
    console.add_exception_handler(Exception, _bug)
    app.mount(PATH, console)
    app.add_api_route("/", _home, include_in_schema=False)


async def _home() -> Response:
    return RedirectResponse(f"{PATH}/queue", 303)


async def _problem(request: Request, error: Any) -> Response:
    return refused(request, error)


async def _not_found(request: Request, error: Any) -> Response:
    return refused(request, ProblemError(404, "not_found", str(error)))


async def _bad_input(request: Request, error: Any) -> Response:
    return refused(request, ProblemError(422, "bad_field", error.reason, path=error.path, hint=error.hint))


async def _house_only(request: Request, error: Any) -> Response:
    return refused(request, ProblemError(403, "house_only", f"this {error.reason}", hint=error.hint))


async def _conflict(request: Request, error: Any) -> Response:
    return refused(request, ProblemError(409, "conflict", str(error)))


async def _overtaken(request: Request, error: Any) -> Response:
    return refused(request, ProblemError(412, "overtaken", error.reason))


async def _store(request: Request, _: Any) -> Response:
    return refused(request, unavailable("store_unavailable", "the decision store does not answer"))


async def _validation(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    return refused(request, ProblemError(422, "bad_field", first["msg"], path=".".join(map(str, first["loc"][1:]))))


async def _http(request: Request, error: Any) -> Response:
    return refused(request, ProblemError(error.status_code, "no_such_route", str(error.detail)))


async def _bug(request: Request, _: Any) -> Response:
    """The server logs the traceback; the reader learns that it was not their fault."""
    return refused(request, ProblemError(500, "internal_error", "an internal error"))
