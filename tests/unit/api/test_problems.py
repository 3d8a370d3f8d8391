"""Every refusal is a problem document, and says nothing it should not."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from fraudguard.api import middleware
from fraudguard.api.problems import MEDIA_TYPE, Problem
from fraudguard.errors import BadEvent, BrokerUnavailable, Conflict, NotFound, StateConflict, StoreUnavailable


def problem(response: httpx.Response) -> Problem:
    """The answer's problem; fails unless it is one."""
    assert response.headers["content-type"] == MEDIA_TYPE
    found = Problem.model_validate_json(response.content)
    assert found.status == response.status_code
    assert found.type == f"urn:fraudguard:problem:{found.code}"
    return found


async def test_an_unknown_route_and_a_wrong_method_are_problems(http: httpx.AsyncClient) -> None:
    """What the framework refuses looks like everything else."""
    assert problem(await http.get("/v2/decisions")).code == "no_such_route"
    response = await http.delete("/v1/screen")
    assert problem(response).code == "method_not_allowed"
    assert response.headers["allow"] == "POST"


async def test_a_missing_key_is_asked_for_before_anything_else(http: httpx.AsyncClient) -> None:
    """401 even where the parameters are wrong too, with the scheme to use."""
    response = await http.get("/v1/decisions", params={"limit": "many"})
    assert response.status_code == 401
    assert problem(response).code == "no_valid_key"
    assert "X-API-Key" in response.headers["www-authenticate"]
    assert response.headers["cache-control"] == "no-store"


async def test_a_bug_shows_no_trace(http: httpx.AsyncClient) -> None:
    """Nothing is opened here, so this request fails inside: the caller learns only that it did."""
    response = await http.get("/v1/decisions", headers={"X-API-Key": "fg_0_secret-of-mine"})
    assert response.status_code == 500
    assert problem(response).code == "internal_error"
    for word in ("services", "Traceback", "secret-of-mine"):
        assert word not in response.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (
            BadEvent("is not a field", code="unknown_field", path="ammount", hint="did you mean `amount`?"),
            422,
            "unknown_field",
        ),
        (NotFound("no decision 'd-1'"), 404, "not_found"),
        (Conflict("case c-1 was closed", path="case_id"), 409, "conflict"),
        (StateConflict("accounts a-1"), 409, "conflict"),
        (StoreUnavailable("host db-7 refused"), 503, "store_unavailable"),
        (BrokerUnavailable("Kafka does not answer"), 503, "broker_unavailable"),
    ],
)
async def test_each_error_of_the_house_has_its_status(
    app: FastAPI, http: httpx.AsyncClient, error: Exception, status: int, code: str
) -> None:
    """Status and code by the error's kind; what may pass says when to try again; addresses stay inside."""

    @app.get("/raise")
    async def fail() -> None:
        raise error

    response = await http.get("/raise")
    found = problem(response)
    assert (response.status_code, found.code) == (status, code)
    assert ("retry-after" in response.headers) == (status == 503)
    assert "db-7" not in response.text
    if isinstance(error, BadEvent):
        assert (found.path, found.hint) == (error.path, error.hint)


async def test_a_large_body_is_refused_by_its_announced_and_by_its_real_length(http: httpx.AsyncClient) -> None:
    """413 whether or not the length is told beforehand."""
    large = b"x" * (middleware.BODY_BYTES_MAX + 1)

    async def unannounced() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 8192):
            yield large[start : start + 8192]

    for content in (large, unannounced()):
        response = await http.post("/v1/screen", content=content)
        assert response.status_code == 413
        assert problem(response).code == "too_large"
    assert (await http.post("/v1/screen", content=large[:-1])).status_code == 401


@pytest.mark.parametrize("path", ["/v1/rules/check", "/v1/rules/releases", "/v1/lists/mule_accounts/entries"])
async def test_files_and_imports_may_be_large(http: httpx.AsyncClient, path: str) -> None:
    """Up to their own bound, beyond which the hint speaks of files and entries."""
    large = b"x" * (middleware.FILES_BYTES_MAX + 1)
    response = await http.post(path, content=large)
    found = problem(response)
    assert (found.status, found.detail) == (413, "the body has more than 2,097,152 bytes")
    assert "files" in (found.hint or "")
    assert (await http.post(path, content=large[:-1])).status_code != 413


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/rules/check"),
        ("POST", "/v1/rules/check/"),
        ("POST", "/v1/rules/rollback"),
        ("POST", "/v1/rules/releases/2/approve"),
        ("PUT", "/v1/lists/mule_accounts/entries/c-9"),
        ("PUT", "/v1/lists/mule_accounts/entries"),
        ("POST", "/v1/lists/a/b/entries"),
        ("POST", "/v1/lists/a%2Fb/entries"),
        ("POST", "/v1/events"),
    ],
)
async def test_everywhere_else_a_body_stays_small(http: httpx.AsyncClient, method: str, path: str) -> None:
    """One byte too many is refused, whether or not the route exists; one byte less is read."""
    large = b"x" * (middleware.BODY_BYTES_MAX + 1)
    assert (await http.request(method, path, content=large)).status_code == 413
    assert (await http.request(method, path, content=large[:-1])).status_code != 413


async def test_a_body_that_does_not_come_is_not_waited_for(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 after the bound."""
    monkeypatch.setattr(middleware, "BODY_S", 0.05)
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/screen",
        "headers": [(b"host", b"api")],
        "query_string": b"",
    }
    async with asyncio.timeout(5):
        await app(scope, receive, send)
    assert sent[0]["status"] == 408


async def test_requests_are_measured_by_route_and_not_by_path(http: httpx.AsyncClient) -> None:
    """Ids of paths must not become label values."""
    await http.get("/v1/decisions/d-secret")
    await http.get("/nowhere/d-secret")
    text = (await http.get("/metrics")).text
    assert 'fraudguard_api_seconds_count{method="GET",route="/v1/decisions/{decision_id}",status="401"}' in text
    assert 'fraudguard_api_seconds_count{method="GET",route="none",status="404"}' in text
    assert "d-secret" not in text
