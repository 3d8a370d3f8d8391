"""What the OpenAPI document says beyond what FastAPI sees: event bodies, problem answers, and an example of each.

The examples are one story, told in examples.py; the tests take them out of the document and send them.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from fraudguard import __version__
from fraudguard.api import repeats
from fraudguard.api.problems import MEDIA_TYPE, Problem
from fraudguard.domain import Label, Message, Transaction

Responses = dict[int | str, dict[str, Any]]

_REFS = "#/components/schemas/{model}"
_DESCRIPTION = """\
Send transactions and messages, read decisions, work cases, publish rules, keep watch lists. Every error is a problem
document (RFC 9457) with a `code` for programs, the `path` of what is wrong and a `hint`. Lists are paged: send a page's
`next` as the `cursor` of the following one.
"""

# code, detail, hint and path of one problem that each status stands for; docs/api.md has the full list.
_PROBLEMS: Mapping[int, Mapping[str, str]] = {
    401: {"code": "no_valid_key", "detail": "there is no API key", "path": "X-API-Key", "hint": "send it as X-API-Key"},
    403: {"code": "wrong_role", "detail": "this route does not serve service", "hint": "it serves analyst, admin"},
    404: {"code": "not_found", "detail": "no decision 'd-404'"},
    409: {"code": "conflict", "detail": "case c-1 was closed as suspicious by Wang (51f0)", "path": "case_id"},
    412: {
        "code": "overtaken",
        "detail": "case c-1 is version 3, not 2: Wang (51f0) changed it at 10:20:00 UTC",
        "path": "If-Match",
        "hint": "read it again, then decide whether to repeat the request",
    },
    413: {"code": "too_large", "detail": "the body has more than 65,536 bytes", "hint": "send one event a request"},
    422: {
        "code": "unknown_field",
        "detail": "is not a field",
        "path": "ammount",
        "hint": "did you mean `amount`? Else put fields of your own under `attributes`",
    },
    428: {
        "code": "version_needed",
        "detail": "says not which version it is about",
        "path": "If-Match",
        "hint": "send the ETag of GET /v1/cases/{case_id}",
    },
    429: {"code": "too_often", "detail": "more than 1,200 requests a minute", "hint": "wait as Retry-After says"},
    503: {
        "code": "broker_unavailable",
        "detail": "Kafka does not answer",
        "hint": "send it again: an event counts once",
    },
    504: {
        "code": "not_decided_in_time",
        "detail": "the event is accepted but was not decided within 2000 ms",
        "hint": "ask /v1/events/t-1/decision",
    },
}


def problem_example(status: int) -> dict[str, Any]:
    """A problem document of this status."""
    fields = dict(_PROBLEMS[status])
    head = {"type": f"urn:fraudguard:problem:{fields['code']}", "title": HTTPStatus(status).phrase, "status": status}
    return head | fields


def shown(example: Any, status: int = 200) -> Responses:
    """An example of the route's own answer; FastAPI adds the schema."""
    return {status: {"content": {"application/json": {"example": example}}}}


def refusals(*statuses: int) -> Responses:
    """The problems that a route may answer with; whoever must say who they are may also do so too often."""
    schema = {"$ref": _REFS.format(model=Problem.__name__)}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "example": problem_example(status)}},
        }
        for status in sorted({*statuses, 429} if 401 in statuses else statuses)
    }


def event_body(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The request body of a route that reads events itself; examples by name, each an event."""
    names = {example["type"]: str(example["type"]).capitalize() for example in examples.values()}
    refs = {kind: _REFS.format(model=name) for kind, name in names.items()}
    schema = {
        "oneOf": [{"$ref": ref} for ref in refs.values()],
        "discriminator": {"propertyName": "type", "mapping": refs},
    }
    named = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": named}}}}


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Serve the document with the schemas that only requests read by hand and problems refer to."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title="fraudguard", version=__version__, description=_DESCRIPTION, routes=app.routes)
            models = [(model, "validation") for model in (Transaction, Message, Label, Problem)]
            _, definitions = models_json_schema(models, ref_template=_REFS)  # type: ignore[arg-type]  # its mode is a Literal
            made["components"]["schemas"] |= definitions["$defs"]
            for router in routers:
                for route in router.routes:
                    if isinstance(route, APIRoute):
                        item = made["paths"][route.path_format]
                        _restore_nulls(item, route)
                        if "POST" in (route.methods or ()) and "security" in item["post"]:
                            _name_the_key(item["post"])
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _restore_nulls(item: dict[str, Any], route: APIRoute) -> None:
    """FastAPI drops every null of the document, those of the examples too: put the examples back as written."""
    for method in route.methods or ():
        operation = item[method.lower()]
        for status, answer in route.responses.items():
            for media, content in answer["content"].items():
                operation["responses"][str(status)]["content"][media]["example"] = content["example"]
        if route.openapi_extra:
            operation |= route.openapi_extra


def _name_the_key(operation: dict[str, Any]) -> None:
    """A POST that knows its caller takes an idempotency key, and is refused while the first with it runs."""
    operation.setdefault("parameters", []).append(
        {
            "name": repeats.HEADER,
            "in": "header",
            "required": False,
            "description": "Carried out once however often it is sent: the same answer for 24 hours",
            "schema": {"type": "string", "minLength": 1, "maxLength": repeats.KEY_LENGTH_MAX},
        }
    )
    for status, answer in refusals(409).items():
        operation["responses"].setdefault(str(status), answer)
