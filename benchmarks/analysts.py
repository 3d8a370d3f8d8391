"""`python -m benchmarks.analysts`: many analysts and live subscribers on one API process, while alerts keep coming.

Starts an embedded PostgreSQL and `fraudguard api`. Half of the analysts use the REST API, half what the console sends:
each lists the queue, opens a case, thinks, claims it, and writes notes, lets it sleep, gives it back, escalates or
disposes of it, and sometimes takes that back, every deed naming the version that was seen. Subscribers keep a picture
of the whole queue from server-sent events alone, reading it anew where they are told to; --screens of them also read
the console's list again at changes, as an open browser does. At the end it must be true that
- no answer was anything but a success or a refusal for what somebody else did first (409, 412);
- each subscriber's picture is what the store has: no lost update;
- every accepted deed is in the audit trail once, every case's version is the batches and deeds that touched it, and
  the trail verifies;
- connections stayed within the pools, and memory did not grow: RSS of the API process, a line through the last two
  thirds of the samples.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg
import httpx
import numpy as np
from pydantic import SecretStr

from benchmarks.alerting import Alarm
from fraudguard import local
from fraudguard.accounts import hash_of
from fraudguard.config import Settings
from fraudguard.decisions import audit
from fraudguard.decisions.connection import open_engine
from fraudguard.decisions.migrate import upgrade
from fraudguard.decisions.repository import connect
from fraudguard.domain import Role
from fraudguard.embedded.postgres import EmbeddedPostgres, temporary_directory
from fraudguard.embedded.supervisor import free_port

PASSWORD: Final = "ten minutes of a shift"
NOBODY: Final = "127.0.0.1:1"  # no Kafka: cases and their events come from PostgreSQL
SCREEN_S: Final = 1.0  # how often an open queue reads its rows again, at most: console.js
CONNECTIONS_MAX: Final = 5 + 2  # the API's pool and the live queue's
SETTLE_S: Final = 30.0
OVERTIME_S: Final = 120.0
GROWTH_KIB_MIN_MAX: Final = 1_024.0
REFUSED: Final = frozenset({409, 412})
_ROW: Final = re.compile(r'<tr data-id="([^"]+)"')
_SEEN: Final = re.compile(r'name="seen" value="(\d+)"')


@dataclass
class Shift:
    """What everybody shares: when it ends, and what is counted."""

    think_s: float  # a person's pause, on average
    deeds_min: int = 0
    ends: float = float("inf")
    deeds: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)  # actor, action, case, version
    refused: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    took_ms: dict[str, list[float]] = field(default_factory=dict)
    reads: int = 0  # whole queues that subscribers read
    events: int = 0

    @property
    def on(self) -> bool:
        """Whether it goes on; beyond its end until enough was done, OVERTIME_S at most."""
        over_s = time.monotonic() - self.ends
        return over_s < 0 or (self.deeds.total() < self.deeds_min and over_s < OVERTIME_S)

    async def ask(self, client: httpx.AsyncClient, kind: str, method: str, path: str, **options: Any) -> httpx.Response:
        """One request; what is neither a success nor a refusal is an error."""
        began = time.perf_counter()
        try:
            answer = await client.request(method, path, **options)
        except httpx.HTTPError as error:
            self.errors[f"{kind}: {error!r}"] += 1
            return httpx.Response(httpx.codes.BAD_GATEWAY)
        self.took_ms.setdefault(kind, []).append((time.perf_counter() - began) * 1000)
        if answer.status_code in REFUSED:
            self.refused[answer.status_code] += 1
        elif not answer.is_success:
            self.errors[f"{kind}: {answer.status_code} {answer.text[:200]}"] += 1
        return answer


async def sign_in(shift: Shift, client: httpx.AsyncClient, name: str) -> None:
    """The session's cookie, and its token with every change from now on."""
    answer = await shift.ask(
        client, "sign in", "POST", "/v1/session", json={"name": name, "password": PASSWORD}, timeout=120
    )
    if answer.is_success:
        client.headers["X-CSRF-Token"] = answer.json()["csrf_token"]


class Analyst:
    """One person at work until the shift ends; `console`: by what the console's pages send."""

    def __init__(self, shift: Shift, name: str, client: httpx.AsyncClient, chance: random.Random) -> None:
        self._shift, self._name, self._client, self._chance = shift, name, client, chance
        self.console = chance.random() < 0.5

    async def work(self) -> None:
        """One case after the other."""
        await self._think()
        while self._shift.on:
            if (seen := await self._open()) is not None:
                await self._treat(*seen)

    async def _think(self, share: float = 1.0) -> None:
        """A person's pause, to the shift's end at most."""
        pause_s = self._chance.uniform(0, 2 * share * self._shift.think_s)
        left_s = self._shift.ends - time.monotonic()
        await asyncio.sleep(min(pause_s, left_s) if left_s > 0 else pause_s)

    async def _open(self) -> tuple[str, int] | None:
        """A case near the queue's top and its version as it is shown, then some reading."""
        if self.console:
            page = await self._shift.ask(
                self._client, "console: queue", "GET", "/console/queue", headers={"HX-Request": "true"}
            )
            ids = _ROW.findall(page.text)
        else:
            page = await self._shift.ask(
                self._client, "list", "GET", "/v1/cases", params={"state": "unclosed", "snoozed": False}
            )
            ids = [item["case_id"] for item in page.json()["items"]] if page.is_success else []
        if not ids:
            await self._think()
            return None
        case_id = self._chance.choice(ids)
        await self._think(0.25)
        seen: int | None = None
        if self.console:
            shown = await self._shift.ask(self._client, "console: case", "GET", f"/console/cases/{case_id}")
            if (found := _SEEN.search(shown.text)) is not None:
                seen = int(found[1])
        else:
            shown = await self._shift.ask(self._client, "case", "GET", f"/v1/cases/{case_id}")
            if shown.is_success and shown.json()["case"]["state"] != "closed":
                seen = int(shown.headers["etag"].strip('"'))
        await self._think()
        return None if seen is None else (case_id, seen)

    async def _treat(self, case_id: str, seen: int) -> None:
        """Claim it and go on as long as nobody was faster."""
        version = await self._do("claim", case_id, seen)
        if version is not None and self._chance.random() < 0.4:
            await self._think()
            version = await self._do("note", case_id, version)
        if version is None:
            return
        await self._think()
        deed = self._chance.choices(("dispose", "snooze", "release", "escalate"), (70, 10, 10, 10))[0]
        version = await self._do(deed, case_id, version)
        if version is not None and deed == "dispose" and self._chance.random() < 0.25:
            await self._think(0.375)
            await self._do("reopen", case_id, version)

    async def _do(self, deed: str, case_id: str, seen: int) -> int | None:
        """The case's version afterwards; None where it was refused."""
        if not self._shift.on:
            return None
        asked = _console_request(deed, seen) if self.console else _rest_request(deed, seen)
        path = f"/console/cases/{case_id}" if self.console else f"/v1/cases/{case_id}"
        verb = "notes" if deed == "note" and not self.console else deed
        answer = await self._shift.ask(self._client, deed, "POST", f"{path}/{verb}", **asked)
        if not answer.is_success:
            return None
        version = seen + 1 if self.console else int(answer.headers["etag"].strip('"'))
        self._shift.deeds[self._name, f"case.{deed}", case_id, version] += 1
        return version


def _rest_request(deed: str, seen: int) -> dict[str, Any]:
    bodies: dict[str, Any] = {
        "note": {"body": "Called the customer."},
        "dispose": {"disposition": "false_positive", "reason": "known payee"},
        "snooze": {"until": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()},
        "escalate": {"reason": "a large sum"},
    }
    return {"headers": {"If-Match": f'"{seen}"'}} | ({"json": bodies[deed]} if deed in bodies else {})


def _console_request(deed: str, seen: int) -> dict[str, Any]:
    fields = {
        "note": {"body": "Called the customer."},
        "dispose": {"reason": "known_payee"},
        "escalate": {"body": "a large sum"},
    }
    return {"data": {"seen": str(seen)} | fields.get(deed, {}), "headers": {"HX-Request": "true"}}


class Subscriber:
    """Keeps the queue by ids: the newest version and state heard or read of each case.

    screen: reads the console's list again after changes, SCREEN_S apart, as a browser does.
    """

    def __init__(self, shift: Shift, client: httpx.AsyncClient, *, screen: bool) -> None:
        self._shift, self._client, self._screen = shift, client, screen
        self._known: dict[str, tuple[int, str]] = {}
        self._changed = asyncio.Event()

    @property
    def picture(self) -> dict[str, int]:
        """The versions of unclosed cases."""
        return {case: version for case, (version, state) in self._known.items() if state != "closed"}

    async def follow(self) -> None:
        """Until cancelled; comes back when its stream ends."""
        async with asyncio.TaskGroup() as group:
            if self._screen:
                group.create_task(self._show())
            while True:
                try:
                    async with self._client.stream("GET", "/v1/cases/live", timeout=60) as answer:
                        if answer.is_success:
                            await self._listen(answer)
                        else:
                            await answer.aread()
                            self._shift.errors[f"live: {answer.status_code} {answer.text[:200]}"] += 1
                except httpx.HTTPError as error:
                    self._shift.errors[f"live: {error!r}"] += 1
                await asyncio.sleep(1.0)  # what the stream's `retry` asks for

    async def _listen(self, answer: httpx.Response) -> None:
        event = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == "refetch":
                await self._read()
            elif line.startswith("data: ") and event == "case":
                change = json.loads(line.removeprefix("data: "))
                self._shift.events += 1
                self._learn(change["case_id"], change["version"], change["state"])
                self._changed.set()

    async def _read(self) -> None:
        """The whole queue. What is not in it any more is closed, unless it was heard of meanwhile."""
        before = set(self._known)
        found: dict[str, tuple[int, str]] = {}
        cursor: str | None = None
        while True:
            asked = {"state": "unclosed", "limit": 500} | ({"cursor": cursor} if cursor else {})
            answer = await self._shift.ask(self._client, "whole queue", "GET", "/v1/cases", params=asked)
            if not answer.is_success:
                return
            page = answer.json()
            found |= {item["case_id"]: (item["version"], item["state"]) for item in page["items"]}
            cursor = page["next"]
            if cursor is None:
                break
        self._shift.reads += 1
        for case_id in before - found.keys():
            del self._known[case_id]
        for case_id, (version, state) in found.items():
            self._learn(case_id, version, state)

    def _learn(self, case_id: str, version: int, state: str) -> None:
        if version >= self._known.get(case_id, (0, ""))[0]:
            self._known[case_id] = version, state

    async def _show(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._shift.on:
                await self._shift.ask(
                    self._client, "console: refresh", "GET", "/console/queue", headers={"HX-Request": "true"}
                )
            await asyncio.sleep(SCREEN_S)


@dataclass
class Watch:
    """Samples of the API process while it works: seconds, resident KiB, and its connections at once."""

    process: int
    url: str
    samples: list[tuple[float, int]] = field(default_factory=list)
    connections: int = 0

    async def watch(self, every_s: float) -> None:
        """Until cancelled."""
        connection = await asyncpg.connect(self.url)
        began = time.monotonic()
        try:
            while True:
                self.samples.append((time.monotonic() - began, resident_kib(self.process)))
                count = await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fraudguard'"
                )
                self.connections = max(self.connections, count)
                await asyncio.sleep(every_s)
        finally:
            await connection.close()

    def growth_kib_min(self) -> float:
        """The slope of a line through the last two thirds."""
        kept = np.array(self.samples[len(self.samples) // 3 :], dtype=np.float64)
        return float(np.polyfit(kept[:, 0] / 60, kept[:, 1], 1)[0])


def resident_kib(process: int) -> int:
    """VmRSS of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]  # the kernel writes it


async def alerts(shift: Shift, alarm: Alarm, batches_s: float) -> None:
    """A batch with a new account and two known ones, so many times a second."""
    while shift.on:
        await alarm.ring(1, 2)
        await asyncio.sleep(1 / batches_s)


async def truth(url: str, alarm: Alarm, shift: Shift) -> tuple[dict[str, int], list[str]]:
    """The unclosed cases' versions as stored, and what does not hold."""
    wrong = []
    connection = await asyncpg.connect(url)
    try:
        cases = await connection.fetch("SELECT case_id, version, state FROM cases")
        alerted = await connection.fetch("SELECT case_id, array_agg(decision_id) AS own FROM alerts GROUP BY 1")
        trail = await connection.fetch(
            "SELECT actor, action, subject, detail ->> 'version' AS version FROM audit WHERE action LIKE 'case.%'"
        )
    finally:
        await connection.close()
    audited = Counter((row["actor"], row["action"], row["subject"], int(row["version"])) for row in trail)
    if audited != shift.deeds:
        missing, more = shift.deeds - audited, audited - shift.deeds
        wrong.append(f"{missing.total()} accepted deeds are not in the trail, {more.total()} there were not accepted")
    deeds_of = Counter(case for _, _, case, _ in shift.deeds.elements())
    by_alerts = alarm.versions({row["case_id"]: row["own"] for row in alerted})
    off = [row["case_id"] for row in cases if row["version"] != by_alerts[row["case_id"]] + deeds_of[row["case_id"]]]
    if off:
        wrong.append(f"{len(off)} cases have another version than batches and deeds give, as {off[0]}")
    engine = open_engine(url, pool_size=1)
    try:
        verified = await audit.verify(engine)
    finally:
        await engine.dispose()
    if verified.broken is not None:
        wrong.append(f"the trail is broken: {verified.broken}")
    return {row["case_id"]: row["version"] for row in cases if row["state"] != "closed"}, wrong


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. batches_s: of alerts a second. deeds_min: the shift goes on until so many are done."""

    analysts: int
    subscribers: int
    screens: int
    minutes: float
    cases: int
    batches_s: float
    think_s: float
    deeds_min: int = 0


async def run(url: str, base_url: str, process: int, plan: Plan) -> dict[str, Any]:
    """The figures; `wrong` is empty where everything held."""
    names = [f"analyst-{number:03}" for number in range(plan.analysts)]
    async with connect(url) as repository:
        hashed = hash_of(PASSWORD)
        for name in names:
            await repository.people.create(name, Role.ANALYST, hashed, "benchmark", datetime.now(UTC))
        alarm = Alarm(repository, random.Random(5))
        for _ in range(0, plan.cases, 100):
            await alarm.ring(100, 0)
        shift = Shift(plan.think_s, plan.deeds_min)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
        clients = [httpx.AsyncClient(base_url=base_url, timeout=60, limits=limits) for _ in names]
        try:
            began = time.monotonic()
            await asyncio.gather(*(sign_in(shift, c, n) for c, n in zip(clients, names, strict=True)))
            signed_in_s = time.monotonic() - began
            shift.ends = time.monotonic() + plan.minutes * 60
            watch = Watch(process, url)
            subscribers = [
                Subscriber(shift, clients[n % len(clients)], screen=n < plan.screens) for n in range(plan.subscribers)
            ]
            analysts = [
                Analyst(shift, name, client, random.Random(number))
                for number, (name, client) in enumerate(zip(names, clients, strict=True))
            ]
            following = [asyncio.create_task(one.follow()) for one in subscribers]
            watching = asyncio.create_task(watch.watch(min(5.0, plan.minutes * 6)))
            await _all([alerts(shift, alarm, plan.batches_s), *(one.work() for one in analysts)])
            stored, wrong = await _settled(url, alarm, shift, subscribers)
            watching.cancel()
            for task in following:
                task.cancel()
            await asyncio.wait([watching, *following])
        finally:
            for client in clients:
                await client.aclose()
    return _figures(plan, shift, watch, signed_in_s, len(stored), wrong, alarm)


async def _all(work: Sequence[Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(_to_task(one))


async def _to_task(one: Awaitable[None]) -> None:
    await one


async def _settled(
    url: str, alarm: Alarm, shift: Shift, subscribers: Sequence[Subscriber]
) -> tuple[dict[str, int], list[str]]:
    """What the store has and what is wrong, once every subscriber had time to hear it."""
    stored, wrong = await truth(url, alarm, shift)
    until = time.monotonic() + SETTLE_S
    while (behind := [s for s in subscribers if s.picture != stored]) and time.monotonic() < until:  # noqa: ASYNC110  they hear by themselves
        await asyncio.sleep(0.2)
    if behind:
        wrong.append(f"{len(behind)} of {len(subscribers)} subscribers have another picture of the queue")
    return stored, wrong


def _figures(
    plan: Plan, shift: Shift, watch: Watch, signed_in_s: float, unclosed: int, wrong: list[str], alarm: Alarm
) -> dict[str, Any]:
    growth = watch.growth_kib_min()
    if shift.errors:
        wrong.append(f"{shift.errors.total()} errors")
    if watch.connections > CONNECTIONS_MAX + 5:  # the benchmark's own repository has a pool as well
        wrong.append(f"{watch.connections} connections")
    if plan.minutes >= 5 and growth > GROWTH_KIB_MIN_MAX:
        wrong.append(f"memory grows by {growth:.0f} KiB a minute")
    asked = sum(len(spent) for spent in shift.took_ms.values())
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "signed_in_s": round(signed_in_s, 1),
        "requests": asked,
        "requests_s": round(asked / (plan.minutes * 60), 1),
        "ms": {
            kind: {
                "n": len(spent), "p50": round(median(spent)), "p95": round(float(np.percentile(spent, 95))),
                "max": round(max(spent)),
            }
            for kind, spent in sorted(shift.took_ms.items())
        },
        "deeds": dict(Counter(action for _, action, _, _ in shift.deeds.elements())),
        "refused": dict(shift.refused),
        "errors": dict(shift.errors),
        "batches_of_alerts": alarm.batches,
        "unclosed_at_the_end": unclosed,
        "events_heard": shift.events,
        "whole_queues_read": shift.reads,
        "connections_max": watch.connections,
        "rss_mib": {
            "first": watch.samples[0][1] // 1024,
            "after_a_third": watch.samples[len(watch.samples) // 3][1] // 1024,
            "last": watch.samples[-1][1] // 1024,
            "max": max(kib for _, kib in watch.samples) // 1024,
        },
        "growth_kib_min": round(growth, 1),
        "wrong": wrong,
    }  # fmt: skip


def play(url: str, directory: Path, plan: Plan) -> dict[str, Any]:
    """`fraudguard api` on a migrated, empty database, and the whole shift; the figures."""
    settings = Settings(
        database_url=SecretStr(url), kafka_bootstrap=NOBODY, api_port=free_port(),
        rate_sign_in_min=0,  # everybody signs in from this address, at once
    )  # fmt: skip
    log = directory / "api.log"
    child = local.start("api", settings, log)
    try:
        base_url = f"http://127.0.0.1:{settings.api_port}"
        local.await_answer(f"{base_url}/health/live", child, log)
        return asyncio.run(run(url, base_url, child.pid, plan))
    finally:
        local.stop(child)


def main() -> None:
    """Play, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--analysts", type=int, default=200)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--screens", type=int, default=20, help="subscribers that show the console's queue")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cases", type=int, default=2_000, help="unclosed ones at the start")
    parser.add_argument("--batches", type=float, default=2, help="of alerts a second")
    parser.add_argument("--think", type=float, default=4, help="seconds of a person's pause, on average")
    o = parser.parse_args()
    plan = Plan(o.analysts, o.subscribers, o.screens, o.minutes, o.cases, o.batches, o.think)
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as postgres:
        upgrade(postgres.url)
        figures = play(postgres.url, directory, plan)
    print(json.dumps(figures, indent=2))
    if figures["wrong"]:
        raise SystemExit(f"void: {'; '.join(figures['wrong'])}")


if __name__ == "__main__":
    main()
