"""Tenants at the door: every route and page is tried with another tenant's ids, and none gives or changes anything."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from api_support import CLOCK, Api
from cryptography.fernet import Fernet
from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx import codes
from people_support import Site, listening
from pydantic import SecretStr
from routes import routes_of
from sqlalchemy import text
from support import settings_for

from fraudguard.api import examples
from fraudguard.api.console.reasons import reasons_of
from fraudguard.config import Settings
from fraudguard.decisions.connection import open_engine, transaction
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port

OWN, OTHER = "bank-a", "bank-b"
FILE = b"the payee's answer"
REFUSED = {codes.FORBIDDEN, codes.NOT_FOUND}
# By path: the house's, whoever of a tenant asks.
HOUSES = re.compile(r"/v1/(rules|lists|models|operations|dead-letters)\b")
OPEN_ROUTES = {"POST /v1/session", "GET /console/sign-in", "POST /console/sign-in", "GET /console/"}
REASON = reasons_of("block")[0].code
NEXT = "GET /console/cases/{case_id}/next"  # leads on into one's own queue, from wherever one comes
STREAMS = {"GET /v1/cases/live"}  # read in a test of its own


@dataclass(frozen=True, slots=True)
class Held:
    """What one tenant holds: keys by role, its case, and the words that nobody else may read."""

    keys: Mapping[Role, str]
    case: str
    decision: str
    event: str
    file: str
    secrets: tuple[str, ...]


async def held(api: Api, tenant: str) -> Held:
    """A tenant with a worked case on the account id that the other one has too."""
    keys = {role: await api.repository.keys.create(role, "desk", "test", CLOCK.now(), tenant) for role in Role}
    decisions = []
    for event in (examples.MESSAGE, examples.TRANSACTION | {"memo": f"memo of {tenant}"}):
        answer = await send(api, keys[Role.SERVICE], "POST", "/v1/screen", json=event)
        assert answer.status_code == codes.OK, answer.text
        decisions.append(answer.json()["decision_id"])
    own = examples.MESSAGE | {"event_id": f"only-{tenant}"}
    decisions.append((await send(api, keys[Role.SERVICE], "POST", "/v1/screen", json=own)).json()["decision_id"])
    lead = keys[Role.LEAD]
    (case,) = (await send(api, lead, "GET", "/v1/cases")).json()["items"]
    path = f"/v1/cases/{case['case_id']}"
    note = await send(api, lead, "POST", f"{path}/notes", json={"body": f"note of {tenant}"}, headers=match(case))
    assert note.status_code == codes.OK, note.text
    headers = match(note.json()) | {"Content-Type": "text/plain"}
    sent = await send(api, lead, "POST", f"{path}/files?name={tenant}.txt", content=FILE, headers=headers)
    assert sent.status_code == codes.CREATED, sent.text
    hook = {"url": f"https://{tenant}.example/told", "kinds": ["case.closed"]}
    made = await send(api, keys[Role.ADMIN], "PUT", "/v1/webhooks/payments", json=hook)
    assert made.status_code == codes.OK, made.text
    told = (f"memo of {tenant}", f"note of {tenant}", f"{tenant}.txt", f"https://{tenant}.example", f"only-{tenant}")
    secrets = (*told, case["case_id"], *decisions)
    return Held(keys, case["case_id"], decisions[1], f"only-{tenant}", sent.json()["sha256"], secrets)


def match(case: Mapping[str, Any]) -> dict[str, str]:
    """The header that says which version one saw."""
    return {"If-Match": f'"{case["version"]}"'}


async def send(api: Api, key: str, method: str, path: str, **options: Any) -> httpx.Response:
    """One request with this key."""
    headers = {"X-API-Key": key} | options.pop("headers", {})
    return await api.http.request(method, path, headers=headers, **options)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to try: its route and method, its path with ids filled in, and what is sent along."""

    name: str
    path: str
    options: dict[str, Any]


async def asked_of(api: Api, whose: Held) -> list[Asked]:
    """Every route of the API and every page of the console, asked about this tenant's ids with fitting bodies."""
    schema = (await api.http.get("/openapi.json")).json()
    app = api.http._transport.app  # type: ignore[attr-defined]  # the one that serves in this process
    ids = {"case_id": whose.case, "decision_id": whose.decision, "event_id": whose.event, "sha256": whose.file}
    others = {"name": "payments", "number": "1", "verb": "claim", "list_name": "mules", "value": "x", "rule": "x"}
    found = []
    for path, method in _served(app):
        name = f"{method} {path}"
        if name in OPEN_ROUTES | STREAMS:
            continue
        filled = re.sub(r"\{(\w+)(:path)?\}", lambda m: (ids | others).get(m[1], "x"), path)
        operation = schema["paths"].get(path.replace(":path", ""), {}).get(method.lower(), {})
        options: dict[str, Any] = {"headers": {"If-Match": '"3"'}, "params": _query(operation)}
        if operation:
            options |= _body(operation)
        elif method == "POST":
            options["data"] = {"seen": "3", "reason": REASON, "body": "because"}
        found.append(Asked(name, filled, options))
    return found


def _served(app: FastAPI) -> Iterator[tuple[str, str]]:
    for path, route in routes_of(app):
        if path.startswith(("/v1", "/console/")) and isinstance(route, APIRoute):
            yield from ((path, method) for method in sorted(route.methods))


def _query(operation: Mapping[str, Any]) -> dict[str, Any]:
    """What must be sent in the query, by its example."""
    needed = [one for one in operation.get("parameters", ()) if one["in"] == "query" and one["required"]]
    return {one["name"]: (one["schema"].get("examples") or one.get("examples") or ["x"])[0] for one in needed}


def _body(operation: Mapping[str, Any]) -> dict[str, Any]:
    """The documented example of a route's body."""
    for media, shape in operation.get("requestBody", {}).get("content", {}).items():
        if media != "application/json":
            return {"content": FILE, "headers": {"If-Match": '"3"', "Content-Type": "text/plain"}}
        examples_of = shape.get("examples") or {"one": {"value": shape["schema"].get("examples", [{}])[0]}}
        return {"json": next(iter(examples_of.values()))["value"]}
    return {}


def _about(asked: Asked, held: Held) -> bool:
    """Whether its path names something of this tenant's."""
    return any(id in asked.path for id in (held.case, held.decision, held.event))


@pytest.fixture
async def two(api: Api) -> tuple[Held, Held]:
    """Both tenants, with the same account and event ids."""
    return await held(api, OWN), await held(api, OTHER)


async def test_no_route_crosses(api: Api, two: tuple[Held, Held]) -> None:
    """With the other's ids: 403 or 404, never an answer; lists never hold the other's. An admin is served at all."""
    own, other = two
    contents = other.secrets[:4]  # ids come back in the words of a refusal
    before = await _state(api, OTHER)
    asked = await asked_of(api, other)
    assert sum(_about(one, other) for one in asked) > 20
    crossed = []
    for one in asked:
        answer = await send(api, own.keys[Role.ADMIN], one.name.split()[0], one.path, **one.options)
        about = _about(one, other)
        told = [word for word in (contents if about else other.secrets) if word in answer.text]
        refused = answer.status_code in REFUSED or not about
        if one.name == NEXT:
            refused = other.case not in answer.headers.get("location", "")
        if HOUSES.match(one.path):
            refused = answer.status_code == codes.FORBIDDEN and answer.json()["code"] == "house_only"
        if told or not refused:
            crossed.append((one.name, answer.status_code, told, answer.text[:200]))
    assert crossed == []
    assert await _state(api, OTHER) == before


async def test_the_same_requests_serve_those_whose_ids_they_are(api: Api, two: tuple[Held, Held]) -> None:
    """So that the walk over the other's ids proves something: what only reads answers an admin of that tenant."""
    _, other = two
    read = 0
    for one in await asked_of(api, other):
        if _about(one, other) and one.name.startswith("GET"):
            answer = await send(api, other.keys[Role.ADMIN], "GET", one.path, **one.options)
            served = answer.status_code in (codes.OK, codes.ACCEPTED, codes.SEE_OTHER)
            assert served or answer.json()["code"] == "text_not_kept" or "text" in one.name, (
                f"{one.name}: {answer.text}"
            )
            read += served
    assert read >= 10


async def test_lists_are_ones_own_whatever_is_asked(api: Api, two: tuple[Held, Held]) -> None:
    """Filters cannot ask for another tenant; the house's people see both, and may ask for one."""
    own, other = two
    for path in ("/v1/cases", "/v1/decisions", "/console/queue", "/console/decisions"):
        account = {"account" if "console" in path else "account_id": examples.ACCOUNT_ID}
        for asked in ({}, {"tenant": OTHER}, {"tenant": ""}, account):
            shown = (await send(api, own.keys[Role.LEAD], "GET", path, params=asked)).text
            assert not any(word in shown for word in other.secrets), (path, asked)
            assert own.case in shown or own.decision in shown, (path, asked, shown[:300])
    for path in ("/v1/cases", "/v1/decisions"):
        both = (await api.send(Role.LEAD, "GET", path)).json()["items"]
        assert {item.get("tenant", "") for item in both} == {OWN, OTHER}
        one = (await api.send(Role.LEAD, "GET", path, params={"tenant": OTHER})).json()["items"]
        assert {item["tenant"] for item in one} == {OTHER}
    queue = (await api.send(Role.LEAD, "GET", "/console/queue")).text
    assert OWN in queue
    assert OTHER in queue
    assert OWN not in (await send(api, own.keys[Role.LEAD], "GET", "/console/queue")).text


async def test_ones_own_case_takes_nothing_of_anothers(api: Api, two: tuple[Held, Held]) -> None:
    """Neither linking nor merging nor a bulk of both reaches the other's case; the bulk's own part is done."""
    own, other = two
    key = own.keys[Role.LEAD]
    case = (await send(api, key, "GET", f"/v1/cases/{own.case}")).json()["case"]
    path = f"/v1/cases/{own.case}"
    for deed, body in (
        ("links", {"case_id": other.case, "reason": "same payee"}),
        ("merge", {"case_id": other.case, "version": case["version"], "reason": "same payee"}),
    ):
        answer = await send(api, key, "POST", f"{path}/{deed}", json=body, headers=match(case))
        assert answer.status_code == codes.NOT_FOUND, answer.text
    cases = [{"case_id": one, "version": case["version"]} for one in (own.case, other.case)]
    done = await send(api, key, "POST", "/v1/cases/bulk", json={"action": "claim", "cases": cases})
    assert [item["code"] for item in done.json()["items"]] == [None, "not_found"]


async def test_events_are_stamped_and_decided_by_tenant(api: Api) -> None:
    """Equal ids of two tenants and the house, sent at once: three decisions, each to whom it belongs."""
    keys = {t: await api.repository.keys.create(Role.SERVICE, "core", "test", CLOCK.now(), t) for t in ("", OWN, OTHER)}
    event = examples.TRANSACTION
    answers = await asyncio.gather(*(send(api, key, "POST", "/v1/screen", json=event) for key in keys.values()))
    assert [answer.json().get("tenant", "") for answer in answers] == list(keys)
    assert [answer.json()["sequence"] for answer in answers] == [1, 1, 1]
    assert len({answer.json()["decision_id"] for answer in answers}) == 3
    place = f"/v1/events/{event['event_id']}/decision"
    for key, answer in zip(keys.values(), answers, strict=True):
        assert (await send(api, key, "GET", place)).json() == answer.json()
        assert (await send(api, key, "POST", "/v1/screen", json=event)).json() == answer.json()
    assert (await send(api, keys[""], "GET", f"{place}?tenant={OWN}")).json() == answers[1].json()
    foreign = event | {"event_id": "t-9", "attributes": {"tenant": OTHER}}
    for path in ("/v1/screen", "/v1/events"):
        refused = await send(api, keys[OWN], "POST", path, json=foreign)
        assert (refused.status_code, refused.json()["code"]) == (codes.FORBIDDEN, "other_tenant")
    house = await send(api, keys[""], "POST", "/v1/screen", json=foreign)
    assert house.json()["tenant"] == OTHER
    accepted = await send(api, keys[""], "POST", "/v1/events", json=foreign)
    assert (await send(api, keys[OTHER], "GET", accepted.headers["Location"])).json() == house.json()
    for name in ("", "两", "a b", "6222021234567890123", 5):
        bad = event | {"event_id": "t-10", "attributes": {"tenant": name}}
        answer = await send(api, keys[""], "POST", "/v1/events", json=bad)
        assert answer.status_code == (codes.ACCEPTED if name == "" else codes.UNPROCESSABLE_ENTITY), name
        assert name == "" or answer.json()["path"] == "attributes.tenant"


async def test_an_idempotency_key_is_its_callers(api: Api, two: tuple[Held, Held]) -> None:
    """Two tenants' machines of one name with one key: two answers."""
    event = examples.MESSAGE | {"event_id": "k-1"}
    answers = [
        await send(api, held.keys[Role.SERVICE], "POST", "/v1/events", json=event, headers={"Idempotency-Key": "one"})
        for held in two
    ]
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, None]


async def _state(api: Api, tenant: str) -> Any:
    """All that a tenant's cases are, to be compared."""
    lead = Role.LEAD
    cases = (await api.send(lead, "GET", "/v1/cases", params={"tenant": tenant})).json()["items"]
    return [(await api.send(lead, "GET", f"/v1/cases/{case['case_id']}")).json() for case in cases]


CASE = """
INSERT INTO cases (case_id, account_id, state, opened_at, updated_at, due_at, expected_loss, outcome, alerts, tenant)
VALUES (:id, 'a-1', 'open', :at, :at, :at, 100, 'review', 1, :tenant)
"""


@pytest.fixture
def quiet(database_url: str) -> Settings:
    """Without Kafka."""
    key = SecretStr(Fernet.generate_key().decode())
    return settings_for(f"127.0.0.1:{free_port()}", database_url, secrets_key=key)


async def test_a_stream_tells_a_tenant_of_its_own_cases(quiet: Settings) -> None:
    """Of two cases that change, the other's first, one is heard; the house's people hear both."""
    async with listening(quiet) as site:
        engine = open_engine(quiet.database_url.get_secret_value())
        async with transaction(engine) as connection:
            for tenant in (OWN, OTHER):
                await connection.execute(text(CASE), {"id": f"c-{tenant}", "at": site.clock.now(), "tenant": tenant})
        await engine.dispose()
        of_tenant = await site.repository.keys.create(Role.VIEWER, "wall", "test", site.clock.now(), OWN)
        of_house = await site.repository.keys.create(Role.VIEWER, "wall", "test", site.clock.now())
        heard = await asyncio.gather(_hear(site, of_tenant, 1), _hear(site, of_house, 2), _change(site))
        assert heard[0] == [f"c-{OWN}"]
        assert set(heard[1]) == {f"c-{OWN}", f"c-{OTHER}"}


async def _hear(site: Site, key: str, count: int) -> list[str]:
    """The first `count` cases that a stream with this key tells of."""
    told: list[str] = []
    async with (
        asyncio.timeout(30),
        site.browser() as browser,
        browser.stream("GET", "/v1/cases/live", headers={"X-API-Key": key}) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith('data: {"case_id"'):
                told.append(json.loads(line.removeprefix("data: "))["case_id"])
                if len(set(told)) == count:
                    return told
    raise AssertionError("the stream ended")


async def _change(site: Site) -> None:
    """The other's case and then the own one, again and again until the listeners have gone."""
    for version in range(1, 20):
        for tenant in (OTHER, OWN):
            until = site.clock.now().replace(microsecond=0)
            site.clock.pass_by(seconds=1)
            await site.repository.cases.escalate(f"c-{tenant}", version, f"since {until}", "root", site.clock.now())
        await asyncio.sleep(0.1)


async def test_a_person_signs_in_to_their_tenant(quiet: Settings) -> None:
    """The session, the console and a new password work as for the house's people; its rows are the tenant's."""
    from fraudguard.accounts import new_password

    async with listening(quiet) as site, site.browser() as browser:
        password, hashed = new_password()
        await site.repository.people.create("ana", Role.ADMIN, hashed, "test", site.clock.now(), OWN)
        who = (await browser.post("/v1/session", json={"name": "ana", "password": password})).json()
        assert (who["name"], who["tenant"]) == ("ana", OWN)
        rules = await browser.get("/v1/rules")
        assert (rules.status_code, rules.json()["code"]) == (codes.FORBIDDEN, "house_only")
        assert (await browser.get("/console/queue")).status_code == codes.OK
        change = {"old": password, "new": "another long password"}
        headers = {"X-CSRF-Token": who["csrf_token"]}
        changed = await browser.put("/v1/session/password", json=change, headers=headers)
        assert changed.status_code == codes.NO_CONTENT
        assert (await browser.get("/v1/session")).status_code == codes.UNAUTHORIZED
