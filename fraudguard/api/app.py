"""The application: routes, middleware, problems, and what is open while it serves. Loopback by default.

Holds nothing between requests but connections and a short memory of keys, so any number of replicas serve side by side.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from fraudguard.api import (
    case_actions,
    case_files,
    cases,
    decisions,
    events,
    evidence,
    health,
    lists,
    live,
    models,
    narrative,
    openapi,
    operations,
    problems,
    repeats,
    rules,
    sessions,
    webhooks,
)
from fraudguard.api.console.app import mount_console
from fraudguard.api.middleware import BodyLimit, Meter, Tenancy
from fraudguard.api.services import open_services
from fraudguard.clock import Clock, SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.connection import driver_url
from fraudguard.oidc import Provider

SHUTDOWN_S = 15  # for requests in flight
# Longer than a proxy (60 s, usually) or a browser keeps an idle connection, so that none is closed under a request.
KEEP_ALIVE_S = 75
STARTUP_FAILURE = 3  # the exit code that uvicorn gives


def create_app(settings: Settings, clock: Clock) -> FastAPI:
    """The application; its lifespan opens and closes everything. Raises nothing: what is missing shows in readiness."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, clock) as services:
            app.state.services = services
            yield

    # Its /docs loads nothing from elsewhere: keys are typed into that page, and a bank's network ends at its door.
    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs/static",
        swagger_ui_parameters={"validatorUrl": "none"},
        lifespan=lifespan,
        redirect_slashes=False,
    )
    # live before cases: its path would be read as a case's id.
    resources = (
        health,
        events,
        decisions,
        live,
        cases,
        case_actions,
        case_files,
        rules,
        lists,
        models,
        sessions,
        webhooks,
        evidence,
        narrative,
        operations,
    )
    routers = [resource.router for resource in resources]
    for router in routers:
        app.include_router(router)
    mount_console(app, settings.base_currency)
    problems.install(app, routers)
    repeats.install(app)
    openapi.install(app, routers)
    app.add_middleware(Tenancy)
    app.add_middleware(repeats.KeepAnswers)
    app.add_middleware(BodyLimit)
    app.add_middleware(Meter, clock=clock)  # added last, so it is the outermost and measures refusals too
    return app


class Server(uvicorn.Server):
    """Ends the live queue's streams when it stops, for which it would else wait SHUTDOWN_S.

    Logs as the process does, and no accesses: they would hold account ids.
    """

    def __init__(self, app: FastAPI, **options: Any) -> None:
        """options: uvicorn's."""
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, server_header=False, **options))
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end the streams, let the other requests finish."""
        self._app.state.services.feed.end()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then let requests in flight finish, for SHUTDOWN_S at most; ends with SystemExit.

    Raises BadSettings for a malformed database URL, or an OpenID provider that is half set up.
    """
    driver_url(settings.database_url.get_secret_value())
    Provider.of(settings, SystemClock())
    # uvicorn raises the signal again when it has shut down: a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = create_app(settings, SystemClock())
    server = Server(
        app,
        host=settings.api_host,
        port=settings.api_port,
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
