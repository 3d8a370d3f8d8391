"""The same POST sent again: carried out once, answered alike; and how often one may ask at all."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_support import Api, until
from people_support import listening, sign_in
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from support import settings_for

from fraudguard import local
from fraudguard.api import examples
from fraudguard.api.housekeeping import Housekeeper
from fraudguard.clock import SystemClock
from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.repository import connect
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


async def opened_by_hand(connection: AsyncConnection, case_id: str) -> None:
    """Straight into the table."""
    row = "VALUES (:id, :id, 'open', now(), now(), now(), 100, 'review', 1)"
    columns = "case_id, account_id, state, opened_at, updated_at, due_at, expected_loss, outcome, alerts"
    await connection.execute(text(f"INSERT INTO cases ({columns}) {row}"), {"id": case_id})
    await connection.commit()


async def waiting(connection: AsyncConnection, table: str) -> None:
    """Until another connection waits for a lock of this table."""
    blocked = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~* 'UPDATE {table}'"

    async def waits() -> bool:
        found = bool(await connection.scalar(text(blocked)))
        await connection.rollback()  # a transaction sees the same activity all along
        return found

    await until(waits, f"{table} is waited for")


async def notes_of(connection: AsyncConnection) -> tuple[int, int]:
    """Notes, and their deeds in the trail."""
    counted = "SELECT (SELECT count(*) FROM case_notes), (SELECT count(*) FROM audit WHERE action = 'case.note')"
    row = (await connection.execute(text(counted))).one()
    return row[0], row[1]


async def test_a_process_that_dies_before_its_answer_is_kept_did_nothing(database_url: str, tmp_path: Path) -> None:
    """kill -9 between a deed and the keeping of its answer: sent again, it is carried out, once."""
    settings = settings_for(f"127.0.0.1:{free_port()}", database_url, api_port=free_port())
    engine = open_engine(database_url)
    async with connect(database_url) as repository:
        key = await repository.keys.create(Role.ANALYST, "bank", "test", SystemClock().now())
    headers = {"X-API-Key": key, "Idempotency-Key": "k-1", "If-Match": '"1"'}
    note = {"url": "/v1/cases/c-1/notes", "json": {"body": "called: no answer"}, "headers": headers}
    async with engine.connect() as watching, engine.connect() as case, engine.connect() as answer:
        await opened_by_hand(watching, "c-1")
        process = local.start("api", settings, tmp_path / "api.log")
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.api_port}", timeout=60) as http:
                await until(lambda: _lives(http), "the API serves", timeout_s=120)
                await case.execute(text("SELECT 1 FROM audit_chain FOR UPDATE"))
                sent = asyncio.create_task(http.post(**note))
                await waiting(watching, "audit_chain")  # its note is written, its deed not yet
                await answer.execute(text("SELECT 1 FROM repeats FOR UPDATE"))
                await case.rollback()
                await waiting(watching, "repeats")  # all of its deed is written, its answer not yet
                process.kill()
                process.wait(10)
                await answer.rollback()
                with pytest.raises(httpx.TransportError):
                    await sent
        finally:
            process.kill()
            process.wait(10)
        assert await notes_of(watching) == (0, 0)
        await watching.rollback()
        async with listening(settings.model_copy(update={"api_port": free_port()})) as site, site.browser() as browser:
            assert code(await browser.post(**note)) == (409, "in_progress")
            site.clock.pass_by(minutes=2)
            first, second = await browser.post(**note), await browser.post(**note)
        assert (first.status_code, second.status_code, second.content) == (200, 200, first.content)
        assert second.headers["idempotency-replayed"] == "true"
        assert await notes_of(watching) == (1, 1)
    await engine.dispose()


async def _lives(http: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        return (await http.get("/health/live")).status_code == httpx.codes.OK
    return False


async def test_a_request_that_was_given_to_another_undoes_its_deed(database_url: str) -> None:
    """One that waited for two minutes finds that its claim is gone: what it did is undone, the other one did it."""
    engine = open_engine(database_url)
    settings = settings_for(f"127.0.0.1:{free_port()}", database_url)
    async with listening(settings) as site, site.browser() as browser, engine.connect() as watching:
        await opened_by_hand(watching, "c-1")
        headers = {**await site.key(Role.ANALYST), "Idempotency-Key": "k-1", "If-Match": '"1"'}
        note = {"url": "/v1/cases/c-1/notes", "json": {"body": "called: no answer"}, "headers": headers}
        await watching.execute(text("SELECT 1 FROM cases FOR UPDATE"))
        async with engine.connect() as second:
            slow = asyncio.create_task(browser.post(**note))
            await until(lambda: _blocked(second), "the first waits")
            site.clock.pass_by(minutes=2)
            quick = asyncio.create_task(browser.post(**note))
            await until(lambda: _blocked(second, 2), "the second waits")
            await watching.rollback()
            answers = sorted([(await slow).status_code, (await quick).status_code])
            assert answers[0] == 200
            assert answers[1] in (409, 412)
            assert await notes_of(watching) == (1, 1)
    await engine.dispose()


async def _blocked(connection: AsyncConnection, count: int = 1) -> bool:
    found = await connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    await connection.rollback()
    return bool(found == count)


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
