"""The same POST sent again: carried out once, answered alike; and how often one may ask at all."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
from api_support import Api
from people_support import listening, sign_in
from support import settings_for

from fraudguard.api import examples
from fraudguard.api.housekeeping import Housekeeper
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port

WHY = {"reason": "seen on 2 forums", "source": "analyst"}
ENTRIES = "/v1/lists/mule_accounts/entries"


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and problem code."""
    return response.status_code, response.json()["code"]


async def post(api: Api, path: str, key: str, role: Role = Role.ANALYST, **options: Any) -> httpx.Response:
    """With an idempotency key, about a case as it was opened."""
    headers = {"X-API-Key": api.keys[role], "Idempotency-Key": key, "If-Match": '"1"'}
    return await api.http.post(path, headers=headers, **options)


async def opened_case(api: Api) -> str:
    """The path that disposes of a new case."""
    assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=examples.TRANSACTION)).status_code == 200
    (case,) = (await api.send(Role.ANALYST, "GET", "/v1/cases")).json()["items"]
    return f"/v1/cases/{case['case_id']}/dispose"


async def test_a_repeated_request_is_carried_out_once(api: Api) -> None:
    """Twenty at once and one later: one deed, and never another answer than the deed's own."""
    path, verdict = await opened_case(api), {"disposition": "suspicious", "reason": "asked twice"}
    answers = await asyncio.gather(*(post(api, path, "k-1", json=verdict) for _ in range(20)))
    done = [answer for answer in answers if answer.status_code == 200]
    assert done
    assert {code(answer) for answer in answers if answer not in done} <= {(409, "in_progress")}
    again = await post(api, path, "k-1", json=verdict)
    assert {answer.content for answer in done} == {again.content}
    assert (again.headers["idempotency-replayed"], again.headers["content-type"]) == ("true", "application/json")
    assert [answer.headers.get("idempotency-replayed") for answer in done].count(None) == 1
    assert code(await post(api, path, "k-2", json=verdict)) == (412, "overtaken")


async def test_a_key_is_for_one_request_of_one_caller(api: Api) -> None:
    """Another body, place or question with the same key is refused; another caller has keys of their own."""
    path = await opened_case(api)
    verdict = {"disposition": "suspicious", "reason": "asked twice"}
    assert (await post(api, path, "k-1", json=verdict)).status_code == 200
    for place, body in ((path, verdict | {"reason": "y"}), (f"{path}?a=1", verdict), (ENTRIES, verdict)):
        assert code(await post(api, place, "k-1", json=body)) == (422, "key_used")
    assert code(await post(api, path, "k-1", Role.LEAD, json=verdict)) == (412, "overtaken")
    for bad in ("", "x" * 129, "a\tb"):
        assert code(await post(api, path, bad, json=verdict)) == (422, "bad_field")


async def test_a_refused_request_leaves_its_key_free(api: Api) -> None:
    """What was wrong, forbidden or not there changed nothing: mended, it may go with the same key."""
    path, wrong = await opened_case(api), {"disposition": "suspicious", "reason": ""}
    assert (await post(api, path, "k-1", json=wrong)).status_code == 422
    assert code(await post(api, "/v1/cases/none/dispose", "k-1", json=wrong | {"reason": "x"})) == (404, "not_found")
    assert code(await post(api, path, "k-1", Role.VIEWER, json=wrong)) == (403, "wrong_role")
    assert (await post(api, path, "k-1", json=wrong | {"reason": "x"})).status_code == 200


async def test_an_event_is_accepted_again_with_its_place(api: Api) -> None:
    """The Location of the first answer comes with the second; the time since then changes nothing."""
    first = await post(api, "/v1/events", "e-1", Role.SERVICE, json=examples.TRANSACTION)
    second = await post(api, "/v1/events", "e-1", Role.SERVICE, json=examples.TRANSACTION)
    assert (first.status_code, second.status_code) == (202, 202)
    assert (first.headers["location"], first.content) == (second.headers["location"], second.content)
    assert "idempotency-replayed" not in first.headers


async def test_who_asks_too_often_waits(database_url: str) -> None:
    """By caller: another one is served meanwhile; by address for signing in; the wait is told."""
    settings = settings_for(f"127.0.0.1:{free_port()}", database_url, rate_caller_min=3, rate_sign_in_min=2)
    async with listening(settings) as site, site.browser() as browser, site.browser() as second:
        key, other, machine = [await site.key(role) for role in (Role.VIEWER, Role.VIEWER, Role.SERVICE)]
        for _ in range(3):
            assert (await browser.get("/v1/session", headers=key)).status_code == 200
        refused = await browser.get("/v1/session", headers=key)
        assert code(refused) == (429, "too_often")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await browser.get("/v1/session", headers=other)).status_code == 200
        for _ in range(10):
            assert (await browser.get("/v1/session", headers=machine)).status_code == 200
        for expected in (401, 401, 429):
            assert (await sign_in(second, "nobody", "x")).status_code == expected


async def test_what_ran_out_is_forgotten(database_url: str) -> None:
    """Sessions and kept answers go with the housekeeping; what is still good stays."""
    settings = settings_for(f"127.0.0.1:{free_port()}", database_url)
    async with listening(settings) as site, site.browser() as browser:
        password, repeats = await site.person("wang.wei"), site.repository.repeats
        await sign_in(browser, "wang.wei", password)
        await repeats.claim("bank", "k-1", b"x", site.clock.now())
        await Housekeeper(site.repository, settings, site.clock).tidy()
        assert (await browser.get("/v1/session")).status_code == 200
        site.clock.pass_by(hours=25)
        await Housekeeper(site.repository, settings, site.clock).tidy()
        assert await site.repository.sessions.prune(site.clock.now(), timedelta(0), timedelta(0)) == 0
        assert await repeats.prune(site.clock.now()) == 0
