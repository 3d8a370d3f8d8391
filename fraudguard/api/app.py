"""The application: routes, middleware, problems, and what is open while it serves. Loopback by default.

Holds nothing between requests but connections and a short memory of keys, so any number of replicas serve side by side.
"""

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from fraudguard.api import (
    cases,
    decisions,
    events,
    evidence,
    health,
    lists,
    models,
    narrative,
    openapi,
    problems,
    repeats,
    rules,
    sessions,
)
from fraudguard.api.middleware import BodyLimit, Meter
from fraudguard.api.services import open_services
from fraudguard.clock import Clock, SystemClock
from fraudguard.config import Settings
from fraudguard.decisions.connection import driver_url

SHUTDOWN_S = 15  # for requests in flight


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
    resources = (health, events, decisions, cases, rules, lists, models, sessions, evidence, narrative)
    routers = [resource.router for resource in resources]
    for router in routers:
        app.include_router(router)
    problems.install(app)
    repeats.install(app)
    openapi.install(app, routers)
    app.add_middleware(repeats.KeepAnswers)
    app.add_middleware(BodyLimit)
    app.add_middleware(Meter, clock=clock)  # added last, so it is the outermost and measures refusals too
    return app


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then let requests in flight finish, for SHUTDOWN_S at most; ends with SystemExit.

    Raises BadSettings for a malformed database URL.
    """
    driver_url(settings.database_url.get_secret_value())
    # uvicorn raises the signal again when it has shut down: a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(settings, SystemClock()),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,  # the process's own logging; the access log would hold account ids
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
