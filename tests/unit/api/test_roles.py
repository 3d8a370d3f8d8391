"""Every route under /v1 says whom it serves."""

import os
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from fraudguard.api.auth import Serves
from fraudguard.domain import Role

ROLES = Path(__file__).parent / "roles.txt"
OPEN = {"POST /v1/session"}  # who signs in has no role yet


def routes_of(app: FastAPI) -> Iterator[tuple[str, BaseRoute]]:
    """Every route, those of included routers too, with its path."""
    for route in app.routes:
        for inner in route.original_router.routes if hasattr(route, "original_router") else [route]:
            yield inner.path, inner  # type: ignore[attr-defined]  # a route without a path fails the test, as it should


def test_every_route_has_its_roles(app: FastAPI) -> None:
    """Each route under /v1 serves whom the reviewed file says, an admin always; FRAUDGUARD_RECORD=1 writes it anew."""
    lines = []
    for path, route in routes_of(app):
        if path.startswith("/v1"):
            assert isinstance(route, APIRoute), path
            declared = [d.call.roles for d in route.dependant.dependencies if isinstance(d.call, Serves)]
            for method in route.methods:
                name = f"{method} {path}"
                assert len(declared) == (name not in OPEN), f"{name} does not say whom it serves"
                served = [role for role in Role if declared and role in declared[0]]
                assert not declared or Role.ADMIN in served
                lines.append(f"{name}: {' '.join(served) or 'anybody'}\n")
    found = "".join(sorted(lines))
    if os.environ.get("FRAUDGUARD_RECORD"):
        ROLES.write_text(found)
    assert found == ROLES.read_text()


def test_nothing_else_is_open_but_health_and_the_documentation(app: FastAPI) -> None:
    """A route outside /v1 needs no key, so the list is short and fixed."""
    others = {path for path, _ in routes_of(app) if not path.startswith("/v1/")}
    documentation = {"/openapi.json", "/docs", "/docs/static", "/docs/oauth2-redirect"}
    assert others == {"/health/live", "/health/ready", "/metrics"} | documentation
