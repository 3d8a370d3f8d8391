"""Proofs of identity over HTTP: passwords, one-time codes, lock-out; that nothing of them is kept or said."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pyotp
import pytest
from cryptography.fernet import Fernet
from people_support import Site, listening, sign_in
from pydantic import SecretStr
from sqlalchemy import text
from support import settings_for

from fraudguard.accounts import Accounts
from fraudguard.config import Settings
from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.people import FAILURES_MAX
from fraudguard.embedded.supervisor import free_port
from fraudguard.sealing import Seal


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and problem code."""
    return response.status_code, response.json()["code"]


REFUSED, NEEDED = (401, "bad_sign_in"), (401, "code_needed")


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Without Kafka, which nothing here needs."""
    key = SecretStr(Fernet.generate_key().decode())
    return settings_for(f"127.0.0.1:{free_port()}", database_url, secrets_key=key)


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    """An API on a fresh database."""
    async with listening(settings) as site:
        yield site


async def test_wrong_proofs_are_all_answered_alike(site: Site) -> None:
    """No such name, a wrong password, a disabled and a locked account: one answer, which names none of them."""
    password = await site.person("wang.wei")
    gone, shut = await site.person("li.na"), await site.person("chen.jie")
    await site.repository.people.disable("li.na", "root", site.clock.now())
    async with site.browser() as browser:
        for _ in range(FAILURES_MAX):
            await sign_in(browser, "chen.jie", "wrong")
        tries = [("nobody", password), ("wang.wei", password + "x"), ("li.na", gone), ("chen.jie", shut)]
        answers = [await sign_in(browser, *proof) for proof in tries]
        assert {answer.text for answer in answers} == {answers[0].text}
        assert code(answers[0]) == REFUSED
        assert password not in answers[1].text
        assert (await sign_in(browser, "wang.wei", password)).status_code == 201


async def test_guessing_locks_the_account_for_longer_and_longer(site: Site) -> None:
    """After five failures in a row for a minute, then two; the right password opens it after that and forgets them."""
    password = await site.person("wang.wei")
    async with site.browser() as browser:
        for _ in range(FAILURES_MAX):
            assert code(await sign_in(browser, "wang.wei", "wrong")) == REFUSED
        site.clock.pass_by(seconds=59)
        assert code(await sign_in(browser, "wang.wei", password)) == REFUSED
        site.clock.pass_by(seconds=2)
        assert code(await sign_in(browser, "wang.wei", "wrong")) == REFUSED
        site.clock.pass_by(seconds=119)
        assert code(await sign_in(browser, "wang.wei", password)) == REFUSED
        site.clock.pass_by(seconds=2)
        assert (await sign_in(browser, "wang.wei", password)).status_code == 201
        for _ in range(FAILURES_MAX - 1):
            await sign_in(browser, "wang.wei", "wrong")
        assert (await sign_in(browser, "wang.wei", password)).status_code == 201


async def test_guesses_at_once_are_no_more_than_guesses_in_turn(site: Site) -> None:
    """Of twenty wrong passwords at the same moment five are looked at: the next right one is refused."""
    password = await site.person("wang.wei")
    async with site.browser() as browser:
        answers = await asyncio.gather(*(sign_in(browser, "wang.wei", f"guess {n}") for n in range(20)))
        assert {code(answer) for answer in answers} == {REFUSED}
        assert code(await sign_in(browser, "wang.wei", password)) == REFUSED
    (person,) = await site.repository.people.list()
    assert person.locked_until is not None
    assert (person.locked_until - site.clock.now()).total_seconds() == 60


async def test_a_one_time_code_counts_once(site: Site, settings: Settings) -> None:
    """A password alone asks for the code; the code of the moment opens one session, and never a second one."""
    password = await site.person("wang.wei")
    accounts = Accounts(site.repository, Seal(settings.secrets_key))
    address = await accounts.ask_for_codes("wang.wei", "root", site.clock.now())
    codes = pyotp.TOTP(parse_qs(urlsplit(address).query)["secret"][0])
    async with site.browser() as browser:
        assert code(await sign_in(browser, "wang.wei", password)) == NEEDED
        assert code(await sign_in(browser, "wang.wei", "wrong")) == REFUSED
        right = codes.at(site.clock.now())
        assert code(await sign_in(browser, "wang.wei", "wrong", right)) == REFUSED
        wrong = f"{(int(right) + 1) % 1_000_000:06}"
        assert code(await sign_in(browser, "wang.wei", password, wrong)) == REFUSED
        both = await asyncio.gather(*(sign_in(browser, "wang.wei", password, right) for _ in range(2)))
        assert sorted(answer.status_code for answer in both) == [201, 401]
        site.clock.pass_by(minutes=5)
        assert code(await sign_in(browser, "wang.wei", password, right)) == REFUSED
        assert (await sign_in(browser, "wang.wei", password, codes.at(site.clock.now()))).status_code == 201


async def test_codes_need_the_key_that_sealed_them(site: Site, settings: Settings) -> None:
    """Without it nobody with codes gets in, and the answer is a service that is not set up."""
    password = await site.person("wang.wei")
    await Accounts(site.repository, Seal(settings.secrets_key)).ask_for_codes("wang.wei", "root", site.clock.now())
    other = SecretStr(Fernet.generate_key().decode())
    for key in (None, other, SecretStr("no key")):
        changed = settings.model_copy(update={"secrets_key": key})
        async with listening(changed) as second, second.browser() as browser:
            assert code(await sign_in(browser, "wang.wei", password, "123456")) == (503, "not_set_up")


async def test_a_person_changes_their_own_password(site: Site) -> None:
    """With the old one; every session ends; a short one and a key's are refused."""
    password = await site.person("wang.wei")
    async with site.browser() as browser:
        await sign_in(browser, "wang.wei", password)
        place = "/v1/session/password"
        short = await browser.put(place, json={"old": password, "new": "short"})
        assert (code(short), short.json()["path"]) == ((422, "bad_field"), "new")
        guess = {"old": "wrong", "new": "seven harbour crane lamp"}
        assert code(await browser.put(place, json=guess)) == REFUSED
        assert (await browser.put(place, json=guess | {"old": password})).status_code == 204
        assert code(await browser.get("/v1/session")) == (401, "no_session")
        assert code(await sign_in(browser, "wang.wei", password)) == REFUSED
        assert (await sign_in(browser, "wang.wei", "seven harbour crane lamp")).status_code == 201


async def test_no_proof_is_stored_or_logged(site: Site, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Neither tables nor logs hold a password, a token, a code's secret or a CSRF token; the deeds are audited."""
    caplog.set_level("DEBUG")
    password = await site.person("wang.wei")
    address = await Accounts(site.repository, Seal(settings.secrets_key)).ask_for_codes(
        "wang.wei", "root", site.clock.now()
    )
    secret = parse_qs(urlsplit(address).query)["secret"][0]
    async with site.browser() as browser:
        await sign_in(browser, "wang.wei", password, pyotp.TOTP(secret).at(site.clock.now()))
        token, csrf = browser.cookies["fraudguard_session"], browser.headers["X-CSRF-Token"]
        await browser.get("/v1/session", headers={"X-CSRF-Token": "x"})
        await browser.delete("/v1/session")
        for _ in range(FAILURES_MAX):
            await sign_in(browser, "wang.wei", f"{password}x")
    engine = open_engine(settings.database_url.get_secret_value())
    async with engine.connect() as connection:
        tables = (
            "SELECT u::text FROM users u UNION ALL SELECT s::text FROM sessions s UNION ALL SELECT a::text FROM audit a"
        )
        stored = "\n".join(await connection.scalars(text(tables)))
        deeds = list(await connection.scalars(text("SELECT action FROM audit ORDER BY id")))
    await engine.dispose()
    assert deeds == ["user.create", "user.codes", "session.open", "session.close", "user.lock"]
    logged = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith(("httpcore", "httpx")))
    for proof in (password, token, secret, csrf):
        assert proof not in stored
        assert proof.encode().hex() not in stored
        assert proof not in logged
