"""People sign in with a real OpenID provider over HTTP; and what a provider's word does not open."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey
from oidc_support import Change, IdProvider, provider
from people_support import Site, listening, sign_in
from support import settings_for

from fraudguard.accounts import new_password
from fraudguard.api.console.vouching import COOKIE
from fraudguard.api.housekeeping import Housekeeper
from fraudguard.clock import SystemClock
from fraudguard.config import Settings
from fraudguard.decisions import audit
from fraudguard.decisions.connection import open_engine
from fraudguard.doctor import provider as doctor
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port
from fraudguard.errors import BadInput, BadSettings
from fraudguard.oidc import Provider

ROLES = {"fraud-leads": "lead", "bank-a-desk": "analyst@bank-a", "fraud-analysts": "analyst"}


@pytest.fixture
def idp() -> Iterator[IdProvider]:
    """A provider who knows Wang Wei, an analyst."""
    with provider() as running:
        running.knows("sub-1", preferred_username="Wang.Wei", groups=["all", "fraud-analysts"])
        yield running


@pytest.fixture
def settings(database_url: str, idp: IdProvider) -> Settings:
    """With that provider."""
    port = free_port()
    plain = settings_for(f"127.0.0.1:{free_port()}", database_url, api_port=port)
    return idp.settings(plain, f"http://127.0.0.1:{port}", **ROLES)


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    """The console, whose people may come from there."""
    async with listening(settings) as site:
        yield site


async def leave(browser: httpx.AsyncClient, to: str = "/console/queue") -> str:
    """Where the console sends the browser."""
    answer = await browser.get("/console/sign-in/provider", params={"next": to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def allow(address: str, sub: str = "sub-1", action: str = "") -> str:
    """Where the provider sends the browser of this person, who says yes there."""
    async with httpx.AsyncClient() as window:
        answer = await window.post(address, data={"sub": sub} | ({"action": action} if action else {}))
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


async def enter(browser: httpx.AsyncClient, sub: str = "sub-1", to: str = "/console/queue") -> httpx.Response:
    """All of it; the browser keeps the cookie and sends the CSRF token from then on."""
    arrived = await browser.get(await allow(await leave(browser, to), sub))
    if arrived.status_code == httpx.codes.OK:
        browser.headers["X-CSRF-Token"] = (await browser.get("/v1/session")).json()["csrf_token"]
    return arrived


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status, and the words of the problem on the form."""
    assert "fraudguard_session" not in answer.headers.get("set-cookie", "")
    return answer.status_code, answer.text.split('role="alert">')[1].split("</p>")[0]


async def trail(settings: Settings, action: str) -> list[tuple[str, Any]]:
    """Actor and detail of each of these deeds."""
    engine = open_engine(settings.database_url.get_secret_value())
    async with engine.connect() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT actor, detail FROM audit WHERE action = %s ORDER BY id".replace("%s", f"'{action}'")
        )
        found = [(row.actor, row.detail) for row in rows]
    assert (await audit.verify(engine)).broken is None
    await engine.dispose()
    return found


async def test_a_person_of_the_provider_works_like_any_other(site: Site, settings: Settings, idp: IdProvider) -> None:
    """Session, CSRF and audit are those of local people; the account is made at the first sign-in and kept."""
    async with site.browser() as browser:
        arrived = await enter(browser, to="/console/decisions?account=a-1")
        assert 'content="0;url=/console/decisions?account=a-1"' in arrived.text
        assert "samesite=strict" in arrived.headers["set-cookie"].lower()
        assert COOKIE not in browser.cookies
        me = (await browser.get("/v1/session")).json()
        assert (me["name"], me["role"]) == ("wang.wei", "analyst")
        del browser.headers["X-CSRF-Token"]
        assert (await browser.delete("/v1/session")).json()["code"] == "no_csrf_token"
        browser.headers["X-CSRF-Token"] = me["csrf_token"]
        assert (await browser.delete("/v1/session")).status_code == 204
        await enter(browser)
    made = {"role": "analyst", "issuer": idp.url}
    assert await trail(settings, "user.create") == [("wang.wei", made)]
    assert await trail(settings, "session.open") == [("wang.wei", {"issuer": idp.url})] * 2
    (person,) = await site.repository.people.list()
    assert (person.name, person.issuer) == ("wang.wei", idp.url)


async def test_discovery_and_keys_are_asked_for_once(site: Site, idp: IdProvider) -> None:
    """Until they are ten minutes old."""
    idp.asked.clear()
    async with site.browser() as browser:
        for _ in range(3):
            assert (await enter(browser)).status_code == 200
        assert [idp.asked.count(path) for path in ("/.well-known/openid-configuration", "/jwks")] == [1, 1]
        site.clock.pass_by(seconds=601)
        assert (await enter(browser)).status_code == 200
    assert [idp.asked.count(path) for path in ("/.well-known/openid-configuration", "/jwks")] == [2, 2]


async def test_a_new_key_of_the_provider_is_found(site: Site, idp: IdProvider) -> None:
    """The token that the known keys do not fit makes them be fetched again; a key that is not the provider's never."""
    async with site.browser() as browser:
        assert (await enter(browser)).status_code == 200
        idp.rotate()
        assert (await enter(browser)).status_code == 200
        idp.signer = RSAKey.generate_key()
        status, words = told(await enter(browser))
        assert (status, "could not be proved" in words) == (403, True)


def _set(**claims: object) -> Change:
    return lambda token: token.update(claims)


WRONG: dict[str, Change] = {
    "another nonce": _set(nonce="0" * 64),
    "no nonce": lambda token: token.pop("nonce"),
    "another audience": _set(aud="another-client"),
    "other audiences": _set(aud=["another-client", "a-third"]),
    "another party": _set(azp="another-client"),
    "another issuer": _set(iss="http://localhost:1"),
    "expired": _set(exp=int(time.time()) - 3_600),
    "endless": lambda token: token.pop("exp"),
    "of nobody": lambda token: token.pop("sub"),
    "too early": _set(nbf=int(time.time()) + 3_600),
}


async def test_a_token_that_is_not_right_opens_nothing(site: Site, idp: IdProvider) -> None:
    """Though the provider signed it: it is not for this sign-in, this client, or now."""
    async with site.browser() as browser:
        for what, change in WRONG.items():
            idp.change = change
            status, words = told(await enter(browser))
            assert (status, "could not be proved" in words) == (403, True), what
            assert (await browser.get("/v1/session")).status_code == 401
        assert await site.repository.people.list() == []
        idp.change = _set(aud=["another-client", parse_qs(urlsplit(await leave(browser)).query)["client_id"][0]])
        assert told(await enter(browser))[0] == 403


async def test_a_return_counts_once_and_in_its_own_browser(site: Site) -> None:
    """Not again, not in another window with the link, not with a changed state, not after ten minutes."""
    async with site.browser() as browser, site.browser() as other:
        back = await allow(await leave(browser))
        await leave(other)
        status, words = told(await other.get(back))
        assert (status, "Begin again" in words) == (400, True)
        cookie = browser.cookies[COOKIE]
        assert (await browser.get(back)).status_code == 200
        again = {"Cookie": f"{COOKIE}={cookie}"}
        assert told(await other.get(back, headers=again))[0] == 400
        state = parse_qs(urlsplit(back).query)["state"][0]
        for wrong in ("", "x", "é", state[::-1]):
            await leave(browser)
            assert told(await browser.get("/console/sign-in/return", params={"code": "c", "state": wrong}))[0] == 400
        back = await allow(await leave(browser))
        site.clock.pass_by(minutes=10)
        assert told(await browser.get(back))[0] == 400


async def test_a_code_without_its_verifier_is_worth_nothing(site: Site) -> None:
    """One that was stolen on its way back cannot be redeemed in a sign-in of the thief's own."""
    async with site.browser() as victim, site.browser() as thief:
        code = parse_qs(urlsplit(await allow(await leave(victim))).query)["code"][0]
        state = parse_qs(urlsplit(await leave(thief)).query)["state"][0]
        status, words = told(await thief.get("/console/sign-in/return", params={"code": code, "state": state}))
        assert (status, "did not let you in" in words) == (403, True)


async def test_without_a_role_nobody_gets_in(site: Site, idp: IdProvider) -> None:
    """No claim, an unknown group, something that is no list: the person is told, and no account is made."""
    async with site.browser() as browser:
        for number, groups in enumerate((None, [], ["all"], "fraud", {"fraud-analysts": 1}, ["admin"])):
            idp.knows(f"s-{number}", preferred_username="li.na", **({} if groups is None else {"groups": groups}))
            status, words = told(await enter(browser, f"s-{number}"))
            assert (status, "no role here" in words) == (403, True)
        idp.knows("s-8", groups="fraud-analysts")
        assert "did not say your name" in told(await enter(browser, "s-8"))[1]
        idp.knows("s-9", preferred_username="no/name", groups="fraud-analysts")
        assert "no name for an account" in told(await enter(browser, "s-9"))[1]
        assert await site.repository.people.list() == []


async def test_the_role_is_read_at_every_sign_in(site: Site, settings: Settings, idp: IdProvider) -> None:
    """Another group is another role, of two the first of the settings; without any the next sign-in is refused."""
    async with site.browser() as browser:
        await enter(browser)
        idp.knows("sub-1", preferred_username="renamed", groups=["fraud-analysts", "fraud-leads"])
        await enter(browser)
        me = (await browser.get("/v1/session")).json()
        assert (me["name"], me["role"]) == ("wang.wei", "lead")
        assert await trail(settings, "user.role") == [("wang.wei", {"role": "lead"})]
        idp.knows("sub-1", preferred_username="wang.wei", groups=["all"])
        assert told(await enter(browser))[0] == 403


async def test_a_tenants_group_gives_that_tenants_rows_alone(site: Site, settings: Settings, idp: IdProvider) -> None:
    """Who moves into a tenant's group is its person from that sign-in on, in the session that they had before too."""
    async with site.browser() as before, site.browser() as browser:
        await enter(before)
        assert (await before.get("/v1/rules/releases")).status_code == 200
        idp.knows("sub-1", preferred_username="wang.wei", groups=["bank-a-desk", "fraud-analysts"])
        await enter(browser)
        for one in (before, browser):
            assert (await one.get("/v1/rules/releases")).json()["code"] == "house_only"
        assert [(person.role, person.tenant) for person in await site.repository.people.list()] == [
            (Role.ANALYST, "bank-a")
        ]
        assert await trail(settings, "user.role") == [("wang.wei", {"tenant": "bank-a"})]


async def test_the_provider_takes_nobodys_account(site: Site, idp: IdProvider) -> None:
    """A local account of the same name stays its owner's, and so does another subject's; a disabled one stays shut."""
    password = await site.person("li.na", Role.ADMIN)
    idp.knows("sub-2", preferred_username="li.na", groups="fraud-analysts")
    idp.knows("sub-3", preferred_username="wang.wei", groups="fraud-leads")
    async with site.browser() as browser, site.browser() as other:
        status, words = told(await enter(browser, "sub-2"))
        assert (status, "Somebody else has an account" in words) == (403, True)
        assert (await sign_in(other, "li.na", password)).json()["role"] == "admin"
        await enter(browser)
        assert told(await enter(other, "sub-3"))[0] == 403
        await site.repository.people.disable("wang.wei", "root", site.clock.now())
        assert (await browser.get("/v1/session")).status_code == 401
        assert "is disabled" in told(await enter(browser))[1]


async def test_a_person_of_the_provider_has_no_password_here(site: Site, idp: IdProvider) -> None:
    """None can be guessed, set or changed, no guessing locks them out, and role and codes are the provider's matter."""
    people, now = site.repository.people, site.clock.now()
    async with site.browser() as browser, site.browser() as guesser:
        await enter(browser)
        for guess in ("x", "None"):
            for _ in range(3):
                assert (await sign_in(guesser, "wang.wei", guess)).json()["code"] == "bad_sign_in"
        change = {"old": "x", "new": "a few unrelated words"}
        assert (await browser.put("/v1/session/password", json=change)).status_code == 401
        for deed in (
            people.set_password("wang.wei", new_password()[1], "root", now),
            people.set_secret("wang.wei", b"sealed", "root", now),
            people.set_role("wang.wei", Role.ADMIN, "root", now),
        ):
            with pytest.raises(BadInput, match=idp.url):
                await deed
        (person,) = await people.list()
        assert person.locked_until is None
        assert (await enter(browser)).status_code == 200


async def test_without_the_provider_local_people_still_get_in(site: Site, settings: Settings, idp: IdProvider) -> None:
    """The page says that it does not answer, at both ends of the way, and passwords work meanwhile."""
    password = await site.person("li.na")
    form = {"name": "li.na", "password": password, "next": "/console/queue"}
    async with site.browser() as browser:
        assert "Sign in with Bank ID" in (await browser.get("/console/sign-in")).text
        back = await allow(await leave(browser))
        idp.down = True
        status, words = told(await browser.get(back))
        assert (status, words.startswith("Bank ID does not answer")) == (503, True)
        site.clock.pass_by(seconds=601)
        assert told(await browser.get("/console/sign-in/provider"))[0] == 503
        assert (await browser.post("/console/sign-in", data=form)).status_code == 303
    assert not (await asyncio.to_thread(doctor, settings)).ok
    idp.down = False
    assert (await asyncio.to_thread(doctor, settings)).found == f"{idp.url} answers"


async def test_who_says_no_there_is_told_so(site: Site) -> None:
    """The provider's refusal is not a code."""
    async with site.browser() as browser:
        back = await allow(await leave(browser), action="deny")
        status, words = told(await browser.get(back))
        assert (status, "did not let you in" in words) == (403, True)


async def test_no_link_leads_elsewhere(site: Site) -> None:
    """Wherever a link wants to go after the sign-in, it goes to the queue, and the provider knows one way back."""
    async with site.browser() as browser:
        for to in ("https://evil.example/", "//evil.example", "/console//evil.example", "/\\evil", "/docs"):
            there = parse_qs(urlsplit(await leave(browser, to)).query)
            assert there["redirect_uri"] == [f"{site.url}/console/sign-in/return"]
            assert 'content="0;url=/console/queue"' in (await enter(browser, to=to)).text


async def test_sign_ins_that_went_nowhere_are_forgotten(site: Site, settings: Settings) -> None:
    """With the housekeeping, once they have run out."""
    async with site.browser() as browser:
        await leave(browser)
        await Housekeeper(site.repository, settings, site.clock).tidy()
        assert await site.repository.vouched.prune(site.clock.now()) == 0
        site.clock.pass_by(minutes=10)
        assert await site.repository.vouched.prune(site.clock.now()) == 1


async def test_nothing_of_it_is_there_without_a_provider(database_url: str) -> None:
    """No button, no route."""
    async with listening(settings_for(f"127.0.0.1:{free_port()}", database_url)) as site, site.browser() as browser:
        assert "sign-in/provider" not in (await browser.get("/console/sign-in")).text
        for path in ("/console/sign-in/provider", "/console/sign-in/return"):
            assert (await browser.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"oidc_issuer": "http://idp.bank.example"}, "oidc_issuer"),
        ({"public_url": None}, "public_url"),
        ({"public_url": "fraud.bank.example"}, "public_url"),
        ({"oidc_client_id": None}, "oidc_client_id"),
        ({"oidc_roles": {}}, "oidc_roles"),
    ],
)
def test_a_provider_that_is_half_set_up_is_refused(settings: Settings, given: dict[str, Any], path: str) -> None:
    """At the start, by the setting's name."""
    with pytest.raises(BadSettings, match=path):
        Provider.of(settings.model_copy(update=given), SystemClock())


def test_a_child_process_gets_the_same_roles(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping survives the environment, in its order."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert list(Settings().oidc_roles.items()) == list(ROLES.items())
