"""Every route that an application serves, for tests that ask something of all of them."""

from collections.abc import Iterator

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount


def routes_of(app: FastAPI) -> Iterator[tuple[str, BaseRoute]]:
    """Every route, those of included routers too, with its path."""
    for route in app.routes:
        for inner in route.original_router.routes if hasattr(route, "original_router") else [route]:
            if isinstance(inner, Mount) and isinstance(inner.app, FastAPI):
                yield from ((f"{inner.path}{path}", deeper) for path, deeper in routes_of(inner.app))
            else:
                yield inner.path, inner  # type: ignore[attr-defined]  # one without a path fails the test, as it should
