"""Every example of the OpenAPI document is sent to the API, and what comes back fits the document."""

from typing import Any
from urllib.parse import quote

import httpx
import jsonschema
import pytest
from api_support import CLOCK, Api, until
from kafka import KafkaProducer
from sealed import metrics_of

from fraudguard.accounts import hash_of
from fraudguard.api import case_examples, examples, models_examples
from fraudguard.api.auth import COOKIE, CSRF_HEADER
from fraudguard.config import Settings
from fraudguard.decisions.casebook import UNDO
from fraudguard.decisions.models import Model
from fraudguard.domain import Role
from fraudguard.events.topics import MESSAGES

# The story's order: what a step reads, an earlier one has written. Steps not named here fail the test.
ORDER = [
    "POST /v1/screen",
    "POST /v1/events",
    "GET /v1/events/{event_id}/decision",
    "GET /v1/decisions",
    "GET /v1/decisions/{decision_id}",
    "GET /v1/decisions/{decision_id}/text",
    "GET /v1/decisions/{decision_id}/evidence",
    "GET /v1/cases",
    "GET /v1/inboxes",
    "POST /v1/cases/{case_id}/claim",
    "POST /v1/cases/{case_id}/release",
    "POST /v1/cases/{case_id}/assign",
    "POST /v1/cases/{case_id}/escalate",
    "POST /v1/cases/{case_id}/snooze",
    "POST /v1/cases/{case_id}/notes",
    "POST /v1/cases/{case_id}/files",
    "GET /v1/cases/{case_id}/files/{sha256}",
    "POST /v1/cases/{case_id}/links",
    "POST /v1/cases/{case_id}/merge",
    "POST /v1/cases/{case_id}/unmerge",
    "POST /v1/cases/{case_id}/alerts",
    "POST /v1/cases/bulk",
    "GET /v1/cases/{case_id}",
    "GET /v1/cases/{case_id}/narrative",
    "POST /v1/cases/{case_id}/dispose",
    "POST /v1/cases/{case_id}/reopen",
    "POST /v1/cases/{case_id}/review",
    "GET /v1/cases/{case_id}/history",
    "GET /v1/rules",
    "GET /v1/rules/files",
    "POST /v1/rules/check",
    "POST /v1/rules/releases",
    "POST /v1/rules/releases/{number}/approve",
    "POST /v1/rules/releases/{number}/reject",
    "GET /v1/rules/releases",
    "GET /v1/rules/releases/{number}",
    "POST /v1/rules/rollback",
    "PUT /v1/lists/{name}/entries/{value}",
    "POST /v1/lists/{name}/entries",
    "GET /v1/lists",
    "GET /v1/lists/{name}/entries",
    "GET /v1/list-entries/{value}",
    "DELETE /v1/lists/{name}/entries/{value}",
    "GET /v1/models",
    "GET /v1/models/quality",
    "POST /v1/models/promote",
    "POST /v1/models/rollback",
    "GET /v1/operations",
    "GET /v1/dead-letters",
    "POST /v1/dead-letters/replay",
    "PUT /v1/webhooks/{name}",
    "GET /v1/webhooks",
    "POST /v1/webhooks/{name}/retry",
    "DELETE /v1/webhooks/{name}",
    "POST /v1/session",
    "GET /v1/session",
    "PUT /v1/session/password",
    "DELETE /v1/session",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
]
SECOND_PERSON = {
    "POST /v1/rules/releases/{number}/approve": Role.RULE_EDITOR,
    "POST /v1/rules/releases/{number}/reject": Role.RULE_EDITOR,
    "POST /v1/cases/{case_id}/review": Role.LEAD,
}
PERSON = "PUT /v1/session/password"  # a key has none
EMPTY_LISTS = ({"items": [], "next": None}, [])
STREAMS = {"GET /v1/cases/live"}  # never end; test_live.py reads one


def parameters(operation: dict[str, Any], place: str) -> dict[str, Any]:
    """The first example of each parameter that has one; every required parameter must."""
    found = {}
    for parameter in operation.get("parameters", []):
        if parameter["in"] == place:
            shown = parameter["schema"].get("examples") or parameter.get("examples")
            assert shown or not parameter["required"], f"{parameter['name']} has no example"
            if shown:
                found[parameter["name"]] = shown[0]
    return found


def bodies(operation: dict[str, Any], document: dict[str, Any]) -> list[dict[str, Any]]:
    """How the examples of the request's body are sent; [{}] for none."""
    if "requestBody" not in operation:
        return [{}]
    contents = operation["requestBody"]["content"]
    if "application/json" not in contents:
        return [
            {"content": content["example"], "headers": {"Content-Type": kind}}
            for kind, content in contents.items()
            if "example" in content
        ]
    content = contents["application/json"]
    schema = content["schema"]
    if "$ref" in schema:
        schema = schema | document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    shown = [example["value"] for example in content.get("examples", {}).values()] or schema["examples"]
    return [{"json": body} for body in shown]


async def second_story(api: Api) -> None:
    """The case that the story's own is linked and merged with."""
    event = examples.MESSAGE | {"event_id": "m-2", "account_id": "a-2"}
    assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)).status_code == 200


async def closed_for_good(api: Api) -> None:
    """The case that was reopened is closed again, and for too long to be reopened."""
    path, seen = f"/v1/cases/{examples.CASE_ID}/dispose", await api.seen(examples.CASE_ID)
    done = await api.send(Role.ANALYST, "POST", path, json=case_examples.VERDICT, headers=seen)
    assert done.json()["review"] == "waiting"
    api.clock.by = UNDO


async def two_models(api: Api) -> None:
    """The champion of the examples, and the challenger that is promoted."""
    book, now = api.repository.models, CLOCK.now()
    old, new = models_examples.ROLLED_BACK["champion"], models_examples.PROMOTION["model"]
    for step, (name, action) in enumerate(((old, "promote"), (new, "shadow"))):
        version = name.partition("@")[2]
        model = Model(str(step) * 64, "starter", version, "", "words-1", "/nowhere")
        await book.add(model, metrics_of(version, {}), "cli:ana", now)
        await book.take(action, model, "cli:ana", "", now, expected=step)


async def a_dead_letter(api: Api) -> None:
    """A record that nobody can read, and its letter."""
    producer = KafkaProducer(bootstrap_servers=api.settings.kafka_bootstrap)
    producer.send(MESSAGES, key=b"a-1", value=b"no JSON", partition=0)
    producer.close()
    await until(lambda: _letters(api), "a dead letter")


async def _letters(api: Api) -> bool:
    return bool((await api.send(Role.ADMIN, "GET", "/v1/dead-letters")).json()["letters"])


BEFORE = {
    "POST /v1/cases/{case_id}/links": second_story,
    "POST /v1/cases/{case_id}/review": closed_for_good,
    "POST /v1/models/promote": two_models,
    "GET /v1/dead-letters": a_dead_letter,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Every disposed case is reviewed."""
    return settings.model_copy(update={"review_percent": 100.0})


async def as_person(api: Api, method: str, path: str, **options: Any) -> httpx.Response:
    """One request in a session of its own."""
    begun = await api.http.post("/v1/session", json=examples.SIGN_IN)
    headers = {"Cookie": f"{COOKIE}={begun.cookies[COOKIE]}", CSRF_HEADER: begun.json()["csrf_token"]}
    options["headers"] = options["headers"] | headers
    return await api.http.request(method, path, **options)


async def test_every_example_works(api: Api) -> None:
    """In the story's order: each request succeeds, each answer fits its schema, and the lists find the story."""
    document = (await api.http.get("/openapi.json")).json()
    named = {f"{m.upper()} {path}": op for path, item in document["paths"].items() for m, op in item.items()}
    assert sorted(named) == sorted([*ORDER, *STREAMS])
    now, name, password = CLOCK.now(), examples.SIGN_IN["name"], examples.SIGN_IN["password"]
    await api.repository.people.create(name, Role.ANALYST, hash_of(password), "test", now)
    for name in ORDER:
        operation = named[name]
        method, path = name.split(" ")
        for key, value in parameters(operation, "path").items():
            path = path.replace(f"{{{key}}}", quote(str(value), safe=""))
        if name in BEFORE:
            await BEFORE[name](api)
        for body in bodies(operation, document):
            headers = body.get("headers", {})
            if "If-Match" in parameters(operation, "header"):
                headers |= await api.seen(examples.CASE_ID)
            options = body | {"params": parameters(operation, "query"), "headers": headers}
            if name == PERSON:
                response = await as_person(api, method, path, **options)
            else:
                role = SECOND_PERSON.get(name, Role.ADMIN)
                response = await api.send(role, method, path, **options)
            status = str(response.status_code)
            documented = [code for code in operation["responses"] if code.startswith("2")]
            assert status in documented, f"{name}: {response.text}"
            if status == "204":
                assert response.content == b""
                continue
            (media,) = operation["responses"][status]["content"]
            assert response.headers["content-type"].startswith(media), name
            if media == "application/json":
                schema = operation["responses"][status]["content"][media]["schema"]
                validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
                validator.validate(response.json())
                assert response.json() not in EMPTY_LISTS, f"{name} found nothing"


async def test_the_rule_examples_say_what_comes_back(api: Api) -> None:
    """Notices and difference of the example's file, on the rules as they ship, are word for word those shown."""
    first = await api.send(Role.ADMIN, "POST", "/v1/screen", json=examples.TRANSACTION)
    assert first.status_code == 200
    checked = await api.send(Role.ADMIN, "POST", "/v1/rules/check", json=examples.CHANGE)
    assert checked.json() == examples.CHECKED
    published = await api.send(Role.ADMIN, "POST", "/v1/rules/releases", json=examples.PROPOSALS[0])
    assert published.json() == examples.PUBLISHED
    approved = await api.send(Role.RULE_EDITOR, "POST", "/v1/rules/releases/2/approve", json=examples.AGREEMENT)
    assert approved.json() == {"number": 2, "active": True}
    release = (await api.send(Role.ADMIN, "GET", "/v1/rules/releases/2")).json()
    assert (release["diff"], release["note"]) == (examples.RELEASE["diff"], examples.RELEASE["note"])


@pytest.mark.parametrize("status", ["401", "404", "422"])
async def test_refusals_look_as_documented(api: Api, status: str) -> None:
    """A real refusal has the fields of its example's schema."""
    document = (await api.http.get("/openapi.json")).json()
    refused = {
        "401": await api.http.get("/v1/decisions/none"),
        "404": await api.send(Role.ADMIN, "GET", "/v1/decisions/none"),
        "422": await api.send(Role.ADMIN, "GET", "/v1/decisions", params={"limit": 0}),
    }[status]
    assert str(refused.status_code) == status
    schema = document["components"]["schemas"]["Problem"]
    jsonschema.Draft202012Validator(schema).validate(refused.json())
