"""Every route under /v1 says whom it serves."""

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from fraudguard.api.auth import Serves
from fraudguard.domain import Role

ALL = set(Role)
# What docs/api.md promises, route by route; an admin is served everywhere.
SERVED = {
    ("POST", "/v1/screen"): {Role.SERVICE},
    ("POST", "/v1/events"): {Role.SERVICE, Role.ANALYST},
    ("GET", "/v1/events/{event_id:path}/decision"): ALL,
    ("GET", "/v1/decisions"): ALL,
    ("GET", "/v1/decisions/{decision_id}"): ALL,
    ("GET", "/v1/decisions/{decision_id}/text"): set(),
    ("GET", "/v1/cases"): {Role.ANALYST, Role.RISK_MANAGER},
    ("GET", "/v1/cases/{case_id}"): {Role.ANALYST, Role.RISK_MANAGER},
    ("POST", "/v1/cases/{case_id}/dispose"): {Role.ANALYST},
    ("GET", "/v1/rules"): ALL,
    ("GET", "/v1/rules/files"): ALL,
    ("POST", "/v1/rules/check"): {Role.RISK_MANAGER},
    ("GET", "/v1/rules/releases"): ALL,
    ("POST", "/v1/rules/releases"): {Role.RISK_MANAGER},
    ("GET", "/v1/rules/releases/{number}"): ALL,
    ("POST", "/v1/rules/releases/{number}/approve"): {Role.RISK_MANAGER},
    ("POST", "/v1/rules/releases/{number}/reject"): {Role.RISK_MANAGER},
    ("POST", "/v1/rules/rollback"): {Role.RISK_MANAGER},
    ("GET", "/v1/lists"): ALL,
    ("GET", "/v1/lists/{name}/entries"): ALL,
    ("POST", "/v1/lists/{name}/entries"): {Role.ANALYST, Role.RISK_MANAGER},
    ("PUT", "/v1/lists/{name}/entries/{value:path}"): {Role.ANALYST, Role.RISK_MANAGER},
    ("DELETE", "/v1/lists/{name}/entries/{value:path}"): {Role.ANALYST, Role.RISK_MANAGER},
    ("GET", "/v1/list-entries/{value:path}"): ALL,
    ("GET", "/v1/models"): {Role.RISK_MANAGER},
}


def routes_of(app: FastAPI) -> Iterator[tuple[str, BaseRoute]]:
    """Every route, those of included routers too, with its path."""
    for route in app.routes:
        for inner in route.original_router.routes if hasattr(route, "original_router") else [route]:
            yield inner.path, inner  # type: ignore[attr-defined]  # a route without a path fails the test, as it should


def test_every_route_declares_its_roles(app: FastAPI) -> None:
    """No route under /v1 is open, and each serves exactly whom the table says."""
    found: dict[tuple[str, str], set[Role]] = {}
    for path, route in routes_of(app):
        if path.startswith("/v1"):
            assert isinstance(route, APIRoute), path
            declared = [d.call for d in route.dependant.dependencies if isinstance(d.call, Serves)]
            for method in route.methods:
                found[method, path] = set().union(*(serves.roles for serves in declared))
    assert found == {route: roles | {Role.ADMIN} for route, roles in SERVED.items()}


def test_nothing_else_is_open_but_health_and_the_documentation(app: FastAPI) -> None:
    """A route outside /v1 needs no key, so the list is short and fixed."""
    others = {path for path, _ in routes_of(app) if not path.startswith("/v1/")}
    documentation = {"/openapi.json", "/docs", "/docs/static", "/docs/oauth2-redirect"}
    assert others == {"/health/live", "/health/ready", "/metrics"} | documentation
