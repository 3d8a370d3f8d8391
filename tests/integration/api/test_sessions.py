"""People sign in, work and sign out over HTTP; what ends a session, and what another site's page cannot do."""

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx
import pytest
from people_support import Site, listening, sign_in
from support import settings_for

from fraudguard.accounts import new_password
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port

CASES = "/v1/cases"


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and problem code."""
    return response.status_code, response.json()["code"]


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    """An API on a fresh database; nothing here needs Kafka."""
    async with listening(settings_for(f"127.0.0.1:{free_port()}", database_url)) as site:
        yield site


async def test_a_person_signs_in_works_and_signs_out(site: Site) -> None:
    """The cookie opens what the role may do and nothing else; after signing out it opens nothing, wherever it is."""
    password = await site.person("wang.wei")
    async with site.browser() as browser:
        answer = await sign_in(browser, "Wang.Wei", password)
        assert answer.status_code == 201
        me = {"name": "wang.wei", "role": "analyst", "csrf_token": answer.json()["csrf_token"], "tenant": ""}
        assert answer.json() == me == (await browser.get("/v1/session")).json()
        assert (await browser.get(CASES)).json() == {"items": [], "next": None}
        assert code(await browser.post("/v1/rules/rollback", json={"to": 1, "note": "x"})) == (403, "wrong_role")
        token = browser.cookies["fraudguard_session"]
        assert (await browser.delete("/v1/session")).status_code == 204
        assert "fraudguard_session" not in browser.cookies
        stolen = await browser.get(CASES, headers={"Cookie": f"fraudguard_session={token}"})
        assert code(stolen) == (401, "no_session")
        assert code(await browser.get(CASES)) == (401, "no_valid_key")


async def test_the_cookie_is_kept_from_scripts_and_other_sites(site: Site) -> None:
    """HttpOnly and SameSite=Strict always, Secure but on loopback."""
    password = await site.person("wang.wei")
    body = {"name": "wang.wei", "password": password}
    async with site.browser() as browser:
        for host, secure in (("127.0.0.1:8080", False), ("fraud.bank.example", True), ("127.0.0.1.evil.example", True)):
            answer = await browser.post("/v1/session", json=body, headers={"Host": host})
            (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
            assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
            assert bool(cookie["secure"]) == secure


async def test_another_sites_page_changes_nothing(site: Site) -> None:
    """Without the session's own token a change by cookie is refused, and no form can sign a victim in."""
    mine, other = await site.person("wang.wei"), await site.person("li.na")
    async with site.browser() as browser, site.browser() as second:
        await sign_in(browser, "wang.wei", mine)
        await sign_in(second, "li.na", other)
        foreign = second.headers["X-CSRF-Token"]
        for sent in ({"X-CSRF-Token": foreign}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": b"\xe9"}):
            assert code(await browser.delete("/v1/session", headers=sent)) == (403, "no_csrf_token")
        del browser.headers["X-CSRF-Token"]
        assert code(await browser.delete("/v1/session")) == (403, "no_csrf_token")
        assert (await browser.get("/v1/session")).status_code == 200
        proof = {"name": "li.na", "password": other}
        page = {"Sec-Fetch-Site": "cross-site"}
        assert code(await browser.post("/v1/session", json=proof, headers=page)) == (403, "other_site")
        plain = await browser.post("/v1/session", content=httpx.Request("POST", site.url, json=proof).content)
        assert code(plain) == (422, "bad_json")
        assert (await browser.post("/v1/session", data=proof)).status_code == 422


async def test_a_session_ends_when_idle_and_in_any_case(site: Site) -> None:
    """Half an hour without a request ends it, and so do twelve hours of work."""
    password = await site.person("wang.wei")
    async with site.browser() as browser:
        await sign_in(browser, "wang.wei", password)
        for _ in range(2):
            site.clock.pass_by(minutes=29)
            assert (await browser.get(CASES)).status_code == 200
        site.clock.pass_by(minutes=31)
        assert code(await browser.get(CASES)) == (401, "no_session")
        await sign_in(browser, "wang.wei", password)
        for _ in range(35):
            site.clock.pass_by(minutes=20)
            assert (await browser.get(CASES)).status_code == 200
        site.clock.pass_by(minutes=20)
        assert code(await browser.get(CASES)) == (401, "no_session")


async def test_what_happens_to_an_account_happens_to_its_sessions(site: Site) -> None:
    """Another role counts from the next request; a new password and the account's end also end its sessions."""
    password = await site.person("wang.wei")
    people, now = site.repository.people, site.clock.now()
    async with site.browser() as browser:
        await sign_in(browser, "wang.wei", password)
        await people.set_role("wang.wei", Role.VIEWER, "root", now)
        assert code(await browser.post(f"{CASES}/c-1/dispose", json={})) == (403, "wrong_role")
        password, hashed = new_password()
        await people.set_password("wang.wei", hashed, "root", now)
        assert code(await browser.get(CASES)) == (401, "no_session")
        await sign_in(browser, "wang.wei", password)
        await people.disable("wang.wei", "root", now)
        assert code(await browser.get(CASES)) == (401, "no_session")
        assert code(await sign_in(browser, "wang.wei", password)) == (401, "bad_sign_in")


async def test_a_key_wins_over_a_cookie(site: Site) -> None:
    """Whoever sends a key calls as the key, in its role, and needs no CSRF token."""
    password = await site.person("wang.wei", Role.ADMIN)
    key = await site.key(Role.VIEWER)
    async with site.browser() as browser:
        await sign_in(browser, "wang.wei", password)
        me = (await browser.get("/v1/session", headers=key)).json()
        assert (me["role"], me["csrf_token"]) == ("viewer", None)
        assert me["name"].startswith("test viewer (")
        assert code(await browser.get(CASES, headers={"X-API-Key": "fg_1_x"})) == (401, "no_valid_key")
