"""Keys and roles on every route; revocation."""

from datetime import datetime

import httpx
import pytest
from api_support import CLOCK, serving
from fastapi.routing import APIRoute

from fraudguard.api import (
    auth,
    case_actions,
    case_files,
    cases,
    decisions,
    events,
    evidence,
    lists,
    models,
    rules,
    webhooks,
)
from fraudguard.api.app import create_app
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.domain import Role

ROUTES = [
    (
        method,
        route.path_format,
        next(d.call.roles for d in route.dependant.dependencies if isinstance(d.call, auth.Serves)),
    )
    for module in (events, decisions, cases, case_actions, case_files, evidence, rules, lists, models, webhooks)
    for route in module.router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
]


class Stopwatch:
    """The machine's wall clock, and a stopwatch that moves when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """The time."""
        return CLOCK.now()

    def monotonic(self) -> float:
        """Seconds that the test let pass."""
        return self.seconds


async def test_every_route_refuses_strangers_and_other_roles(settings: Settings) -> None:
    """401 without a key and with a wrong one; 403 for each role that the route does not serve, and for no other."""
    assert len(ROUTES) > 40
    async with serving(settings) as api:
        altered = api.keys[Role.ADMIN][:-1] + ("a" if api.keys[Role.ADMIN][-1] != "a" else "b")
        for method, path, served in ROUTES:
            for headers in ({}, {"X-API-Key": altered}, {"X-API-Key": "x" * 5_000}, {"X-API-Key": b"fg_1_\xe9"}):
                response = await api.http.request(method, path, headers=headers)
                assert response.status_code == 401, path
                assert altered not in response.text
            for role in Role:
                response = await api.send(role, method, path)
                assert (response.status_code == 403) == (role not in served), (role, method, path)
                assert response.status_code != 401


async def test_a_revoked_key_stops_working_within_seconds(settings: Settings) -> None:
    """A good key is remembered for KEY_TTL_S and no longer."""
    clock = Stopwatch()
    app = create_app(settings, clock)
    async with (
        connect(settings.database_url.get_secret_value()) as repository,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as http,
    ):
        key = await repository.keys.create(Role.SERVICE, "till", "test", clock.now())

        async def status() -> int:
            return (await http.get("/v1/decisions", headers={"X-API-Key": key})).status_code

        assert await status() == 200
        await repository.keys.revoke(key.split("_")[1], "test", clock.now())
        clock.seconds += auth.KEY_TTL_S - 0.1
        assert await status() == 200
        clock.seconds += 0.2
        assert await status() == 401


async def test_keys_are_not_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Neither good nor bad ones, at any level."""
    caplog.set_level("DEBUG")
    async with serving(settings) as api:
        await api.send(Role.SERVICE, "GET", "/v1/decisions")
        await api.http.get("/v1/decisions", headers={"X-API-Key": "fg_0123_not-a-real-secret"})
    ours = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpcore", "httpx"))
    )
    assert api.keys[Role.SERVICE].split("_", 2)[2] not in ours
    assert "not-a-real-secret" not in ours
