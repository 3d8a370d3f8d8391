"""Schemathesis asks every route of the OpenAPI document what it allows and what it does not, on a filled store."""

import asyncio
import sys
from pathlib import Path

import httpx
from api_support import deciding
from people_support import Site, listening

from fraudguard.accounts import hash_of
from fraudguard.api import examples
from fraudguard.assembly import Parts
from fraudguard.config import Settings
from fraudguard.domain import Role

ENDLESS = "/v1/cases/live"  # a stream without an end: test_live.py reads one


async def fill(site: Site, http: httpx.AsyncClient) -> None:
    """What the document's examples are about."""
    for event in (examples.MESSAGE, examples.TRANSACTION):
        (await http.post("/v1/screen", json=event)).raise_for_status()
    (await http.put("/v1/lists/mule_accounts/entries/c-9", json=examples.NEW_ENTRY)).raise_for_status()
    (await http.put("/v1/webhooks/payments", json=examples.NEW_WEBHOOK)).raise_for_status()
    name, password = examples.SIGN_IN["name"], examples.SIGN_IN["password"]
    await site.repository.people.create(name, Role.ANALYST, hash_of(password), "test", site.clock.now())


async def test_every_route_does_as_the_document_says(settings: Settings, parts: Parts, tmp_path: Path) -> None:
    """Whatever is sent, no route fails, answers outside the document, or takes what it must not."""
    unbounded = {"rate_service_s": 0, "rate_caller_min": 0, "rate_sign_in_min": 0}
    async with deciding(settings, parts), listening(settings.model_copy(update=unbounded)) as site:
        key = (await site.key(Role.ADMIN))["X-API-Key"]
        async with httpx.AsyncClient(base_url=site.url, headers={"X-API-Key": key}, timeout=30) as http:
            await fill(site, http)
        config = str(Path(__file__).with_name("schemathesis.toml"))
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", f"{site.url}/openapi.json"),
            *("--header", f"X-API-Key: {key}", "--exclude-path", ENDLESS),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await running.communicate()
    assert running.returncode == 0, said.decode()
