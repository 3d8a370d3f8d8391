"""The OpenAPI document: complete, and every example in it fits its own schema."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from fraudguard.api import examples
from fraudguard.events.schema import encode, parse_event

METHODS = ("get", "post", "put", "patch", "delete")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation with a name for people."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def shown(content: dict[str, Any]) -> list[Any]:
    """The examples of a media type: its own, its named ones, and those of its schema."""
    named = [example["value"] for example in content.get("examples", {}).values()]
    own = [content["example"]] if "example" in content else []
    return own + named + content.get("schema", {}).get("examples", [])


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Fails unless the value fits the schema of this document."""
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_every_operation_says_what_it_is_and_shows_its_answers(app: FastAPI) -> None:
    """A summary, a description, a tag, and an example of each answer."""
    for name, operation in operations(app.openapi()):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        for status, answer in operation["responses"].items():
            assert (status == "204") == ("content" not in answer), name
            for content in answer.get("content", {}).values():
                assert shown(content), f"{name} {status} shows no example"


def test_every_example_fits_its_schema(app: FastAPI) -> None:
    """Bodies asked for, answers and problems alike."""
    document = app.openapi()
    count = 0
    for _, operation in operations(document):
        contents = list(operation.get("requestBody", {}).get("content", {}).values())
        for answer in operation["responses"].values():
            contents += answer.get("content", {}).values()
        for content in contents:
            for example in shown(content):
                check(document, content.get("schema", {}), example)
                count += 1
    assert count > 40


def test_the_routes_under_v1_name_their_problems_and_who_may_call(app: FastAPI) -> None:
    """401, 403 and 503 can happen to every one of them, and each but signing in asks for a key or a session."""
    for name, operation in operations(app.openapi()):
        if "/v1/" in name:
            assert {"401", "403", "503"} <= set(operation["responses"]), name
            if name != "POST /v1/session":
                assert operation["security"] == [{"APIKeyHeader": []}, {"APIKeyCookie": []}], name


async def test_the_documentation_page_loads_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    """Every script and style of /docs comes from this server."""
    page = (await http.get("/docs")).text
    places = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(places) >= 3
    for place in places:
        assert place.startswith("/docs/static/"), place
        assert (await http.get(place)).status_code == 200


@pytest.mark.parametrize("event", [examples.TRANSACTION, examples.MESSAGE, examples.LABEL])
def test_the_example_events_are_events(event: dict[str, Any]) -> None:
    """The strict parser takes them, and writes the same again."""
    assert json.loads(encode(parse_event(json.dumps(event).encode()))) == event
