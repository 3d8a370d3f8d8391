"""What the API's tests of the rule book share: a small pack, people with keys of their own, and their trail."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from api_support import CLOCK, Api, deciding, serving
from sqlalchemy import select
from support import ROOT

from fraudguard.api import examples
from fraudguard.assembly import Parts
from fraudguard.config import Settings
from fraudguard.decisions.connection import open_engine, transaction
from fraudguard.decisions.tables import AUDIT
from fraudguard.domain import Role

LISTS = """\
- {name: mule_accounts, kind: block, entity: counterparty, owner: aml, description: Receivers of fraud.}
- {name: trusted_payees, kind: allow, entity: counterparty, owner: ops, description: Checked by a person.}
"""


def rule(id: str = "large-payment", when: str = "amount_base >= 40_000", hit: str = "", **others: object) -> str:
    """A rule's file; hit: what its first case gives. A case that gives nothing else is expected not to hit."""
    fields = {"version": 1, "owner": "ops", "description": id, "state": "live", "outcome": "review", "severity": "low"}
    lines = [f"id: {id}", f"when: {when}", f"reason: {id.upper().replace('-', '_')}"]
    lines += [f"{name}: {value}" for name, value in (fields | others).items()]
    cases = ["cases:", f"  - given: {{{hit or 'amount_base: 50000'}}}", "    expect: hit"]
    return "\n".join([*lines, *cases, "  - given: {amount_base: 5000}", "    expect: no_hit", ""])


LISTED = rule(
    "listed-payee", "counterparty_id in @mule_accounts", "counterparty_id in @mule_accounts: true", outcome="block"
)
FILES = {"own.yaml": rule(), "listed.yaml": LISTED, "lists.yaml": LISTS}


def write_pack(directory: Path) -> None:
    """FILES and the policy as it ships."""
    for name, text in FILES.items():
        (directory / name).write_text(text, encoding="utf-8", newline="\n")
    policy = (ROOT / "rules/policy.yaml").read_text(encoding="utf-8")
    (directory / "policy.yaml").write_text(policy, encoding="utf-8", newline="\n")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a key; name: as releases and the audit trail tell it."""

    api: Api
    key: str
    name: str

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request."""
        return await self.api.http.request(method, path, headers={"X-API-Key": self.key}, **options)

    async def publish(self, base: int, **files: str | None) -> httpx.Response:
        """Propose files, named without their ending."""
        named = {f"{name}.yaml": text for name, text in files.items()}
        return await self.send("POST", "/v1/rules/releases", json={"base": base, "files": named, "note": "try"})

    async def review(self, number: int, verdict: str = "approve", note: str = "seen") -> httpx.Response:
        """Approve or reject."""
        return await self.send("POST", f"/v1/rules/releases/{number}/{verdict}", json={"note": note})


async def person(api: Api, owner: str, role: Role = Role.RULE_EDITOR) -> Person:
    """A new key's holder."""
    key = await api.repository.keys.create(role, owner, "test", CLOCK.now())
    return Person(api, key, f"{owner[:100]} ({key.split('_')[1]})")


@asynccontextmanager
async def office(settings: Settings, parts: Parts) -> AsyncIterator[Api]:
    """The API with a decider at work."""
    async with deciding(settings, parts), serving(settings) as api:
        yield api


async def pay(api: Api, event_id: str, **changes: Any) -> dict[str, Any]:
    """The decision of a payment of CNY 50,000 to c-9, or one that is changed."""
    event = examples.TRANSACTION | {"event_id": event_id} | changes
    response = await api.send(Role.SERVICE, "POST", "/v1/screen", json=event)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def rules_hit(decision: dict[str, Any]) -> set[str]:
    """The rules that a decision names."""
    return {hit["rule"] for hit in decision["hits"]}


async def trail(api: Api, prefix: str) -> list[tuple[str, str, str, Any]]:
    """Audit rows of actions that begin so: actor, action, subject, detail."""
    engine = open_engine(api.settings.database_url.get_secret_value())
    try:
        async with transaction(engine) as connection:
            c = AUDIT.c
            query = select(c.actor, c.action, c.subject, c.detail).where(c.action.startswith(prefix)).order_by(c.id)
            return [tuple(row) for row in await connection.execute(query)]
    finally:
        await engine.dispose()


def backtests() -> list[Path]:
    """Processes of this one that run a backtest."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            ours = directory.joinpath("stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
            if ours and b"fraudguard.backtest_process" in directory.joinpath("cmdline").read_bytes():
                found.append(directory)
    return found
