"""The application: routes, middleware, problems, and what is open while it serves. Loopback by default.

Holds nothing between requests but connections and a short memory of keys, so any number of replicas serve side by side.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from fraudguard.api import cases, decisions, events, health, openapi, problems, rules
from fraudguard.api.middleware import BodyLimit, Meter
from fraudguard.api.services import open_services
from fraudguard.clock import Clock, SystemClock
from fraudguard.config import Settings

log = logging.getLogger(__name__)

SHUTDOWN_S = 15  # for requests in flight


def create_app(settings: Settings, clock: Clock) -> FastAPI:
    """The application; its lifespan opens and closes everything. Raises nothing: what is missing shows in readiness."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, clock) as services:
            app.state.services = services
            yield

    app = FastAPI(lifespan=lifespan, redirect_slashes=False)
    for resource in (health, events, decisions, cases, rules):
        app.include_router(resource.router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(Meter, clock=clock)  # added last, so it is the outermost and measures refusals too
    return app


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then let requests in flight finish. Raises SystemExit when it cannot start."""
    app = create_app(settings, SystemClock())
    log.info("serving on http://%s:%d", settings.api_host, settings.api_port)
    uvicorn.run(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,  # the process's own logging; the access log would hold account ids
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
