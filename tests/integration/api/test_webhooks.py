"""Webhooks at real receivers: what is told, signed how, and that nothing is lost while one side is away."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from api_support import Api, until
from cryptography.fernet import Fernet
from people_support import Site, listening
from pydantic import SecretStr
from sqlalchemy import text
from standardwebhooks import Webhook
from starlette.types import Receive, Scope, Send
from support import settings_for

from fraudguard.api import examples
from fraudguard.api.webhook_sender import WAITS
from fraudguard.config import Settings
from fraudguard.decisions.connection import open_engine
from fraudguard.domain import Role
from fraudguard.embedded.supervisor import free_port

CASE_KINDS = ["case.changed", "case.closed", "case.opened"]
OPEN = """
INSERT INTO cases (case_id, account_id, state, opened_at, updated_at, due_at, expected_loss, outcome, alerts)
VALUES (:id, :id, 'open', :at, :at, :at, 100, 'review', 1)
"""


@dataclass
class Receiver:
    """A server that answers as told. status: of the next answers; held: answers wait until it is set."""

    url: str
    status: int = 200
    held: asyncio.Event = field(default_factory=asyncio.Event)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One message."""
        body = (await receive())["body"]
        self.got.append(({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        await self.held.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def bodies(self) -> list[Any]:
        """What was told, in the order of arrival."""
        return [json.loads(body) for _, body in self.got]

    def kinds(self) -> list[str]:
        """The types of it."""
        return [body["type"] for body in self.bodies()]


@asynccontextmanager
async def receiving(port: int | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a port of its own, or on this one."""
    receiver = Receiver(f"http://127.0.0.1:{port or free_port()}/told")
    receiver.held.set()
    number = int(receiver.url.split(":")[2].split("/")[0])
    server = uvicorn.Server(uvicorn.Config(receiver, port=number, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: _is(lambda: server.started), "the receiver listens")
    try:
        yield receiver
    finally:
        receiver.held.set()
        server.should_exit = True
        await serving


async def _is(condition: Callable[[], bool]) -> bool:
    return condition()


async def told(receiver: Receiver, count: int) -> None:
    """Until this many messages came."""
    await until(lambda: _is(lambda: len(receiver.got) >= count), f"{count} messages came")


@pytest.fixture
def quiet(database_url: str) -> Settings:
    """Without Kafka."""
    key = SecretStr(Fernet.generate_key().decode())
    return settings_for(f"127.0.0.1:{free_port()}", database_url, secrets_key=key)


async def hook(site: Site, name: str, url: str, kinds: list[str] = CASE_KINDS) -> Webhook:
    """A new webhook; checks what it is told."""
    headers = await site.key(Role.ADMIN)
    async with site.browser() as browser:
        made = await browser.put(f"/v1/webhooks/{name}", json={"url": url, "kinds": kinds}, headers=headers)
    return Webhook(made.json()["secret"])


async def open_case(settings: Settings, site: Site, name: str, *, undone: bool = False) -> None:
    """Straight into the table: the message is the database's own doing."""
    engine = open_engine(settings.database_url.get_secret_value())
    async with engine.connect() as connection:
        await connection.execute(text(OPEN), {"id": name, "at": site.clock.now()})
        await (connection.rollback() if undone else connection.commit())
    await engine.dispose()


async def states(site: Site) -> list[tuple[str, int, int]]:
    """Name, waiting and given up of each webhook."""
    return [(one.name, one.waiting, one.given_up) for one in await site.repository.webhooks.list()]


async def settled(site: Site, expected: list[tuple[str, int, int]]) -> None:
    """Until it stands like this with the webhooks."""

    async def condition() -> bool:
        return await states(site) == expected

    await until(condition, f"{expected}")


async def test_decisions_and_cases_are_told_signed(api: Api) -> None:
    """What was asked for and nothing else; the reference implementation accepts every signature and no altered body."""
    async with receiving() as receiver:
        wanted = {"url": receiver.url, "kinds": ["decision.block", "decision.review", "case.opened", "case.closed"]}
        made = (await api.send(Role.ADMIN, "PUT", "/v1/webhooks/payments", json=wanted)).json()
        again = (await api.send(Role.ADMIN, "PUT", "/v1/webhooks/payments", json=wanted)).json()
        assert again == {"name": "payments", "secret": None}
        decision = (await api.send(Role.SERVICE, "POST", "/v1/screen", json=examples.TRANSACTION)).json()
        await told(receiver, 2)
        (case,) = (await api.send(Role.ANALYST, "GET", "/v1/cases")).json()["items"]
        path, verdict = f"/v1/cases/{case['case_id']}/dispose", {"disposition": "suspicious", "reason": "x"}
        await api.send(Role.ANALYST, "POST", path, json=verdict, headers=await api.seen(case["case_id"]))
        await told(receiver, 3)
    assert sorted(receiver.kinds()[:2]) == ["case.opened", f"decision.{decision['outcome']}"]
    assert receiver.kinds()[2:] == ["case.closed"]
    data = {body["type"].split(".")[0]: body["data"] for body in receiver.bodies()}
    assert {name: decision.get(name, "") for name in data["decision"]} == data["decision"]
    assert (data["case"]["case_id"], data["case"]["disposition"]) == (case["case_id"], "suspicious")
    signer = Webhook(made["secret"])
    for headers, body in receiver.got:
        signer.verify(body, headers)
        with pytest.raises(Exception, match="signature"):
            signer.verify(body + b" ", headers)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 3


async def test_a_message_is_sent_again_until_it_is_received(quiet: Settings) -> None:
    """After growing waits, under the same id; a deed that was undone is never told."""
    async with listening(quiet) as site, receiving() as receiver:
        signer = await hook(site, "payments", receiver.url)
        receiver.status = 500
        await open_case(quiet, site, "c-0", undone=True)
        await open_case(quiet, site, "c-1")
        await told(receiver, 1)
        await settled(site, [("payments", 1, 0)])
        for count, wait in enumerate(WAITS[:2], start=1):
            await failed(quiet, count)
            site.clock.pass_by(seconds=wait.total_seconds() - 1)
            assert await site.repository.webhooks.due(site.clock.now()) == []
            receiver.status = 200 if count == 2 else 302
            site.clock.pass_by(seconds=1)
            await told(receiver, count + 1)
        await settled(site, [("payments", 0, 0)])
        assert {body["data"]["case_id"] for body in receiver.bodies()} == {"c-1"}
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
        assert len({headers["webhook-timestamp"] for headers, _ in receiver.got}) == 3
        headers, body = receiver.got[0]
        signer.verify(body, headers)


async def failed(settings: Settings, attempts: int) -> None:
    """Until this many attempts are on record as failed: the message is due later, and nobody has it."""
    engine = open_engine(settings.database_url.get_secret_value())
    chosen = "attempts = :attempts AND problem <> '' AND due_at >= created_at + :waits"
    waits = {"attempts": attempts, "waits": sum(WAITS[:attempts], start=timedelta(0))}

    async def condition() -> bool:
        async with engine.connect() as connection:
            return bool(await connection.scalar(text(f"SELECT true FROM webhook_messages WHERE {chosen}"), waits))

    await until(condition, f"{attempts} attempts failed")
    await engine.dispose()


async def test_what_was_told_while_all_were_away_is_not_lost(quiet: Settings) -> None:
    """The API and the receiver come back later, and so does the message."""
    port = free_port()
    async with listening(quiet) as site:
        await hook(site, "payments", f"http://127.0.0.1:{port}/told")
    await open_case(quiet, site, "c-1")
    async with listening(quiet) as site, receiving(port) as receiver:
        site.clock.pass_by(hours=1)
        await told(receiver, 1)
        await settled(site, [("payments", 0, 0)])


async def test_what_nobody_takes_is_given_up_and_can_be_sent_again(quiet: Settings) -> None:
    """After ten attempts in three days; an admin sends it again, and takes the webhook away."""
    async with listening(quiet) as site, receiving() as receiver, site.browser() as browser:
        await hook(site, "payments", receiver.url)
        receiver.status = 503
        await open_case(quiet, site, "c-1")
        for attempt, wait in enumerate(WAITS, start=1):
            await told(receiver, attempt)
            await failed(quiet, attempt)
            site.clock.pass_by(seconds=wait.total_seconds())
        await settled(site, [("payments", 0, 1)])
        assert len(receiver.got) == len(WAITS) + 1
        receiver.status = 204
        browser.headers.update(await site.key(Role.ADMIN))
        assert (await browser.post("/v1/webhooks/payments/retry")).json() == {"messages": 1}
        await settled(site, [("payments", 0, 0)])
        assert (await browser.delete("/v1/webhooks/payments")).status_code == 204
        assert (await browser.get("/v1/webhooks")).json() == []
        for missing in (browser.delete("/v1/webhooks/payments"), browser.post("/v1/webhooks/payments/retry")):
            assert (await missing).status_code == 404


async def test_an_address_that_is_gone_is_told_no_more(quiet: Settings) -> None:
    """410 switches it off: in the list and in the trail; what waited is kept and can be sent once it is put anew."""
    async with listening(quiet) as site, receiving() as receiver, receiving() as moved, site.browser() as browser:
        browser.headers.update(await site.key(Role.ADMIN))
        await hook(site, "payments", receiver.url)
        receiver.status = 410
        await open_case(quiet, site, "c-1")
        await told(receiver, 1)

        async def is_off() -> bool:
            return bool((await browser.get("/v1/webhooks")).json()[0]["off_at"])

        await until(is_off, "it is off")
        await open_case(quiet, site, "c-2")
        assert await states(site) == [("payments", 0, 1)]
        assert (await browser.get("/v1/webhooks")).json()[0]["kinds"] == []
        wanted = {"url": moved.url, "kinds": CASE_KINDS}
        assert (await browser.put("/v1/webhooks/payments", json=wanted)).json()["secret"] is None
        assert (await browser.get("/v1/webhooks")).json()[0]["off_at"] is None
        assert (await browser.post("/v1/webhooks/payments/retry")).json() == {"messages": 1}
        await open_case(quiet, site, "c-3")
        await told(moved, 2)
        assert sorted(body["data"]["case_id"] for body in moved.bodies()) == ["c-1", "c-3"]
        assert len(receiver.got) == 1
    engine = open_engine(quiet.database_url.get_secret_value())
    async with engine.connect() as connection:
        (row,) = await connection.execute(text("SELECT actor, subject, detail FROM audit WHERE action = 'webhook.off'"))
    await engine.dispose()
    assert tuple(row) == ("system:webhooks", "payments", {"url": receiver.url, "problem": "answered 410"})


async def test_an_old_addresss_410_leaves_the_new_one_alone(quiet: Settings) -> None:
    """Its answer comes after the webhook was given another address."""
    async with listening(quiet) as site, receiving() as old, receiving() as new, site.browser() as browser:
        browser.headers.update(await site.key(Role.ADMIN))
        await hook(site, "payments", old.url)
        old.status = 410
        old.held.clear()
        await open_case(quiet, site, "c-1")
        await told(old, 1)
        await browser.put("/v1/webhooks/payments", json={"url": new.url, "kinds": CASE_KINDS})
        old.held.set()
        await failed(quiet, 1)
        site.clock.pass_by(seconds=WAITS[0].total_seconds())
        await told(new, 1)
        assert (await browser.get("/v1/webhooks")).json()[0]["off_at"] is None


async def test_a_receiver_that_hangs_delays_no_other(quiet: Settings) -> None:
    """Thirty messages wait for one that does not answer; the other has them all meanwhile."""
    async with listening(quiet) as site, receiving() as stuck, receiving() as quick:
        stuck.held.clear()
        await hook(site, "stuck", stuck.url)
        await hook(site, "quick", quick.url)
        for number in range(30):
            await open_case(quiet, site, f"c-{number}")
        await told(quick, 30)
        await told(stuck, 20)
        assert sorted(body["data"]["case_id"] for body in quick.bodies()) == sorted(f"c-{n}" for n in range(30))


async def test_taking_a_webhook_away_fails_no_deed(quiet: Settings) -> None:
    """A case that is opened while its webhook is being taken away waits for that, and is opened."""
    engine = open_engine(quiet.database_url.get_secret_value())
    async with listening(quiet) as site:
        await hook(site, "payments", "https://payments.bank.example/")
        async with engine.connect() as taking:
            await taking.execute(text("DELETE FROM webhooks"))
            opening = asyncio.create_task(open_case(quiet, site, "c-1"))

            async def waits() -> bool:
                blocked = (
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%cases%'"
                )
                async with engine.connect() as watching:  # a transaction sees the same activity all along
                    return bool(await watching.scalar(text(blocked)))

            await until(waits, "the case waits")
            await taking.commit()
            await opening
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM cases")) == 1
    await engine.dispose()


@pytest.mark.parametrize(
    ("url", "kinds", "place"),
    [
        ("http://payments.bank.example/", CASE_KINDS, "url"),
        ("ftp://127.0.0.1/", CASE_KINDS, "url"),
        ("https://me:secret@payments.bank.example/", CASE_KINDS, "url"),
        ("https://", CASE_KINDS, "url"),
        ("https://a\x00b/", CASE_KINDS, "url"),
        ("https://payments.bank.example/", [], "kinds"),
        ("https://payments.bank.example/", ["case.eaten"], "kinds"),
    ],
)
async def test_bad_webhooks_are_refused(quiet: Settings, url: str, kinds: list[str], place: str) -> None:
    """Plain HTTP leaves the machine nowhere; the answer says what is wrong, and repeats no password."""
    async with listening(quiet) as site, site.browser() as browser:
        headers = await site.key(Role.ADMIN)
        answer = await browser.put("/v1/webhooks/payments", json={"url": url, "kinds": kinds}, headers=headers)
        assert (answer.status_code, answer.json()["path"].split(".")[0]) == (422, place)
        assert "secret" not in answer.text


async def test_without_a_key_that_seals_there_are_no_webhooks(database_url: str) -> None:
    """The answer is a service that is not set up."""
    settings = settings_for(f"127.0.0.1:{free_port()}", database_url)
    async with listening(settings) as site, site.browser() as browser:
        body = {"url": "https://payments.bank.example/", "kinds": CASE_KINDS}
        answer = await browser.put("/v1/webhooks/payments", json=body, headers=await site.key(Role.ADMIN))
        assert (answer.status_code, answer.json()["code"]) == (503, "not_set_up")
