"""The application as built, nothing opened."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from fraudguard.api.app import create_app
from fraudguard.clock import SystemClock
from fraudguard.config import Settings


@pytest.fixture
def app() -> FastAPI:
    """Without its lifespan: no store, no Kafka."""
    return create_app(Settings(), SystemClock())


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client
