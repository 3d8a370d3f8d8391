"""Every route under /v1 and every page of the console says whom it serves."""

import os
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from routes import routes_of

from fraudguard.api.auth import Serves
from fraudguard.domain import Role

ROLES = Path(__file__).parent / "roles.txt"
STATIC = "/console/static"  # styles and scripts, the same for everybody
# Who signs in has no role yet; a redirect shows nothing.
OPEN = {"POST /v1/session", "GET /console/sign-in", "POST /console/sign-in", "GET /console/"} | {
    "GET /console/sign-in/provider",
    "GET /console/sign-in/return",
}


def declared(dependant: Dependant) -> Iterator[Serves]:
    """What a route and what it depends on say of whom they serve."""
    for inner in dependant.dependencies:
        if isinstance(inner.call, Serves):
            yield inner.call
        yield from declared(inner)


def test_every_route_has_its_roles(app: FastAPI) -> None:
    """Each serves whom the reviewed file says, an admin always; FRAUDGUARD_RECORD=1 writes it anew."""
    lines = []
    for path, route in routes_of(app):
        if path.startswith(("/v1", "/console/")) and path != STATIC:
            assert isinstance(route, APIRoute), path
            said = {one.roles for one in declared(route.dependant)}
            for method in route.methods:
                name = f"{method} {path}"
                assert len(said) == (name not in OPEN), f"{name} does not say whom it serves, or says two things"
                served = [role for role in Role if said and role in next(iter(said))]
                assert not said or Role.ADMIN in served
                lines.append(f"{name}: {' '.join(served) or 'anybody'}\n")
    found = "".join(sorted(lines))
    if os.environ.get("FRAUDGUARD_RECORD"):
        ROLES.write_text(found)
    assert found == ROLES.read_text()


def test_nothing_else_is_open_but_health_and_the_documentation(app: FastAPI) -> None:
    """A route outside /v1 needs no key, so the list is short and fixed."""
    others = {path for path, _ in routes_of(app) if not path.startswith(("/v1/", "/console/"))}
    documentation = {"/openapi.json", "/docs", "/docs/static", "/docs/oauth2-redirect"}
    assert others == {"/", "/health/live", "/health/ready", "/metrics"} | documentation
