"""Screening through Kafka and back, its deadline and its refusals; the asynchronous twin."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from api_support import Api, serving, until
from support import Worker, fresh_topics

from fraudguard.api import examples
from fraudguard.api.problems import Problem
from fraudguard.config import Settings
from fraudguard.domain import Decision, Role


def transaction(**others: Any) -> dict[str, Any]:
    """A payment of an event and account of its own."""
    return examples.TRANSACTION | {"event_id": f"e-{uuid4()}", "account_id": f"a-{uuid4()}"} | others


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and problem code."""
    return response.status_code, Problem.model_validate_json(response.content).code


async def decided(api: Api, event_id: str) -> Decision:
    """The event's decision as soon as there is one."""
    path = f"/v1/events/{quote(event_id, safe='')}/decision"

    async def there() -> bool:
        return (await api.send(Role.SERVICE, "GET", path)).status_code == 200

    await until(there, f"{event_id} is decided")
    return Decision.model_validate_json((await api.send(Role.SERVICE, "GET", path)).content)


async def test_an_event_is_screened_through_kafka_and_its_decision_is_the_stored_one(api: Api) -> None:
    """Message and payment of one story: sequence, outcome and reasons are the workers'."""
    for event, sequence, outcome in ((examples.MESSAGE, 1, "review"), (examples.TRANSACTION, 2, "block")):
        response = await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)
        assert response.status_code == 200
        decision = Decision.model_validate_json(response.content)
        assert (decision.event_id, decision.sequence, decision.outcome) == (event["event_id"], sequence, outcome)
        assert (await api.repository.record(decision.decision_id)).decision == decision


async def test_a_repeated_event_gets_its_earlier_decision(api: Api) -> None:
    """Also when it now says something else, and even when nobody decides any more."""
    event = transaction()
    first = await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)
    again = await api.send(
        Role.SERVICE, "POST", "/v1/screen", params={"deadline_ms": 1}, json=event | {"amount": "1.00"}
    )
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()


async def test_many_requests_at_once_each_get_their_own_decision(api: Api) -> None:
    """Also two for the same event."""
    events = [transaction() for _ in range(100)]
    sent = [*events, *events[:20]]
    responses = await asyncio.gather(*(api.send(Role.SERVICE, "POST", "/v1/screen", json=event) for event in sent))
    assert [r.status_code for r in responses] == [200] * len(sent)
    assert [r.json()["event_id"] for r in responses] == [event["event_id"] for event in sent]
    assert [r.json() for r in responses[:20]] == [r.json() for r in responses[100:]]


async def test_at_the_deadline_the_event_is_accepted_and_a_worker_decides_it_later(
    settings: Settings, tmp_path: Path
) -> None:
    """504 says where to look; the real worker, started afterwards, finds the event and decides it."""
    await asyncio.to_thread(fresh_topics, settings)
    event = transaction(event_id=f"e/{uuid4()} 100%")
    async with serving(settings) as api:
        response = await api.send(Role.SERVICE, "POST", "/v1/screen", params={"deadline_ms": 300}, json=event)
        assert code(response) == (504, "not_decided_in_time")
        place = response.headers["location"]
        assert code(await api.send(Role.SERVICE, "GET", place)) == (404, "not_decided")
        with Worker(settings, tmp_path / "worker.log") as worker:
            decision = await decided(api, event["event_id"])
            second = transaction()
            response = await api.send(Role.SERVICE, "POST", "/v1/screen", json=second)
            assert (response.status_code, response.json()["event_id"]) == (200, second["event_id"])
            assert await asyncio.to_thread(worker.stop) == 0
        assert (await api.send(Role.SERVICE, "GET", place)).json()["decision_id"] == decision.decision_id


@pytest.mark.parametrize(
    ("change", "code_expected", "path"),
    [
        ({"ammount": "1.00"}, "unknown_field", "ammount"),
        ({"amount": 5}, "bad_field", "amount"),
        ({"version": 2}, "unknown_version", "version"),
        ({"type": "payment"}, "unknown_type", "type"),
        ({"event_time": "2099-01-01T00:00:00Z"}, "future_event_time", "event_time"),
    ],
)
async def test_a_bad_event_is_refused_with_its_place_and_a_fix(
    api: Api, change: dict[str, Any], code_expected: str, path: str
) -> None:
    """The parser's own code, path and hint, on both routes, and nothing reaches Kafka."""
    for route in ("/v1/screen", "/v1/events"):
        response = await api.send(Role.SERVICE, "POST", route, json=transaction() | change)
        assert code(response) == (422, code_expected)
        found = Problem.model_validate_json(response.content)
        assert found.path == path
        assert found.hint


async def test_what_is_no_json_and_what_is_a_label_is_not_screened(api: Api) -> None:
    """Both are told what to send instead."""
    assert code(await api.send(Role.SERVICE, "POST", "/v1/screen", content=b"{")) == (422, "bad_json")
    assert code(await api.send(Role.SERVICE, "POST", "/v1/screen", content=b"")) == (422, "bad_json")
    response = await api.send(Role.SERVICE, "POST", "/v1/screen", json=examples.LABEL)
    assert code(response) == (422, "unknown_type")
    assert "/v1/events" in response.json()["hint"]
    for deadline in ("0", "60001", "soon"):
        response = await api.send(
            Role.SERVICE, "POST", "/v1/screen", params={"deadline_ms": deadline}, json=transaction()
        )
        assert response.status_code == 422
        assert response.json()["path"] == "deadline_ms"


async def test_another_accounts_event_id_is_a_conflict(api: Api) -> None:
    """Event ids are unique over all accounts: another account learns nothing of the decision."""
    event = transaction()
    assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)).status_code == 200
    response = await api.send(Role.SERVICE, "POST", "/v1/screen", json=event | {"account_id": "a-thief"})
    assert code(response) == (409, "duplicate_event_id")


async def test_accepted_events_are_decided_and_labels_are_stored(api: Api) -> None:
    """202 with the place of the decision; a label has none, and arrives in the store."""
    event = transaction()
    response = await api.send(Role.SERVICE, "POST", "/v1/events", json=event)
    assert response.status_code == 202
    assert response.headers["location"] == response.json()["decision"] == f"/v1/events/{event['event_id']}/decision"
    assert (await decided(api, event["event_id"])).account_id == event["account_id"]
    label = (
        examples.LABEL
        | {k: event[k] for k in ("account_id",)}
        | {
            "event_id": f"l-{uuid4()}",
            "target_event_id": event["event_id"],
        }
    )
    response = await api.send(Role.SERVICE, "POST", "/v1/events", json=label)
    assert (response.status_code, response.json()["decision"]) == (202, None)
    assert "location" not in response.headers

    async def stored() -> bool:
        return label["event_id"] in await api.repository.labels_by_id([label["event_id"]])

    await until(stored, "the label is stored")


@pytest.mark.parametrize(
    ("role", "event", "served"),
    [
        (Role.SERVICE, examples.MESSAGE, True),
        (Role.SERVICE, examples.LABEL, True),
        (Role.SERVICE, examples.LABEL | {"source": "analyst"}, False),
        (Role.ANALYST, examples.LABEL, True),
        (Role.ANALYST, examples.LABEL | {"source": "analyst"}, True),
        (Role.ANALYST, examples.TRANSACTION, False),
        (Role.RULE_EDITOR, examples.LABEL, False),
        (Role.ADMIN, examples.LABEL | {"source": "analyst"}, True),
    ],
)
async def test_who_may_send_what(api: Api, role: Role, event: dict[str, Any], served: bool) -> None:
    """Services speak for systems, analysts for themselves."""
    response = await api.send(role, "POST", "/v1/events", json=event | {"event_id": f"x-{uuid4()}"})
    assert response.status_code == (202 if served else 403)
