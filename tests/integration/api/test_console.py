"""The console without a browser: its headers, its sign-in, its refusals in the reader's language, its own facts."""

import re

import pytest
from api_support import CLOCK, Api
from httpx import codes

from fraudguard.accounts import new_password
from fraudguard.api import examples
from fraudguard.api.auth import COOKIE
from fraudguard.api.console.security import POLICY
from fraudguard.domain import Role


async def enter(api: Api, name: str = "lin", role: Role = Role.ANALYST) -> None:
    """An account, signed in with this client from now on."""
    password, hashed = new_password()
    await api.repository.people.create(name, role, hashed, "test", CLOCK.now())
    answer = await api.http.post("/console/sign-in", data={"name": name, "password": password})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/queue")
    assert "Secure" in answer.headers["set-cookie"]  # so this client, over plain HTTP, would keep it to itself
    api.http.headers["Cookie"] = f"{COOKIE}={answer.cookies[COOKIE]}"


async def opened(api: Api) -> str:
    """The id of a case that a suspicious chat and payment opened."""
    for event in (examples.MESSAGE, examples.TRANSACTION):
        assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)).status_code == codes.OK
    cases = (await api.send(Role.ANALYST, "GET", "/v1/cases")).json()["items"]
    return str(cases[0]["case_id"])


async def test_every_answer_carries_the_policy_and_pages_are_not_kept(api: Api) -> None:
    """Pages, assets, refusals; nothing inline, nothing from elsewhere, no frame around it."""
    await enter(api)
    for path, status in (
        ("/console/queue", 200),
        ("/console/decisions", 200),
        ("/console/sign-in", 200),
        ("/console/cases/none", 404),
        ("/console/nothing", 404),
        ("/console/static/console.css", 200),
        ("/console/static/none.js", 404),
    ):
        answer = await api.http.get(path)
        assert answer.status_code == status, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        kept = path.endswith("console.css")
        assert ("max-age" in answer.headers["cache-control"]) is kept
    assert "unsafe" not in POLICY
    assert re.search(r"script-src 'self'(;|$)", POLICY)
    page = (await api.http.get("/console/queue")).text
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=\"/console/static/)", page)
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


async def test_who_is_not_signed_in_comes_back_to_where_they_went(api: Api) -> None:
    """A page redirects, a fragment tells htmx to; a wrong password says no more than that."""
    asked = await api.http.get("/console/cases/c-1?closed=c-0")
    assert asked.status_code == 303
    assert asked.headers["location"] == "/console/sign-in?next=%2Fconsole%2Fcases%2Fc-1%3Fclosed%3Dc-0"
    part = await api.http.get("/console/queue", headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/console/sign-in?next=%2Fconsole%2Fqueue")
    wrong = await api.http.post("/console/sign-in", data={"name": "lin", "password": "x", "next": "//elsewhere"})
    assert wrong.status_code == 401
    assert "is not right" in wrong.text
    assert "elsewhere" not in wrong.text
    assert "x-api-key" not in wrong.text.lower()


@pytest.mark.parametrize(("language", "said"), [("en-GB", "not for your role"), ("zh-CN", "你的角色不能打开此页")])
async def test_a_role_that_is_not_served_reads_so_in_its_language(api: Api, language: str, said: str) -> None:
    """A machine's key, which has no business here."""
    headers = {"X-API-Key": api.keys[Role.SERVICE], "Accept-Language": language}
    answer = await api.http.get("/console/queue", headers=headers)
    assert answer.status_code == codes.FORBIDDEN
    assert said in answer.text


async def test_a_case_shows_its_hits_with_the_values_that_fired(api: Api) -> None:
    """Chat beside money, the rule and what it read, the phrase that was said, the links and the usual."""
    case_id = await opened(api)
    await enter(api)
    page = (await api.http.get(f"/console/cases/{case_id}")).text
    for shown in ("安全账户", "CNY 50,000", "new payee", "safe-account", "amount_base", "c-9"):
        assert shown in page, shown
    assert 'data-digit="1"' in page
    decisions = (await api.http.get("/console/decisions?outcome=block")).text
    found = re.search(r"/console/decisions/([^\"?]+)\" data-open", decisions)
    assert found
    one = (await api.http.get(f"/console/decisions/{found[1]}")).text
    assert "transfers_1d" in one


async def test_text_from_outside_stays_text(api: Api) -> None:
    """A message that looks like markup is shown, not run."""
    text = '急用钱，先转到安全账户 <img src=x onerror="alert(1)"> {{ 7 * 7 }}'
    for event in (examples.MESSAGE | {"text": text}, examples.TRANSACTION):
        assert (await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)).status_code == codes.OK
    case_id = (await api.send(Role.ANALYST, "GET", "/v1/cases")).json()["items"][0]["case_id"]
    await enter(api)
    for path in (f"/console/cases/{case_id}", "/console/decisions"):
        page = (await api.http.get(path)).text
        assert "&lt;img src=x" in page
        assert "<img" not in page
        assert "{{ 7 * 7 }}" in page


async def test_a_verdict_needs_the_version_that_was_seen(api: Api) -> None:
    """A version that is none is refused, an old one is told who came between; neither changes the case."""
    case_id = await opened(api)
    await enter(api)
    token = (await api.http.get("/v1/session")).json()["csrf_token"]
    headers = {"X-CSRF-Token": token, "HX-Request": "true"}
    path = f"/console/cases/{case_id}/dispose"
    for fields, status in (
        ({"reason": "customer_denies"}, 422),
        ({"reason": "customer_denies", "seen": "x"}, 422),
        ({"reason": "because", "seen": "1"}, 422),
        ({"reason": "customer_denies", "seen": "99"}, 412),
    ):
        assert (await api.http.post(path, data=fields, headers=headers)).status_code == status, fields
    case, _ = await api.repository.cases.get_case(case_id)
    assert case.state == "open"
