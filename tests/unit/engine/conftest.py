"""Small releases made on the fly, and requests for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from releases import TEXTS, make_release, request_of

from fraudguard.domain import ScoreRequest


@pytest.fixture(scope="session")
def ready_releases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One release a shape, made when first asked for."""
    made: dict[str, Path] = {}

    def ready(shape: str) -> Path:
        if shape not in made:
            made[shape] = make_release(tmp_path_factory.mktemp(shape), shape)
        return made[shape]

    return ready


@pytest.fixture(name="make_release")
def _make_release(tmp_path: Path) -> Callable[..., Path]:
    """Makes a release that the test may damage."""
    return lambda **options: make_release(tmp_path / "release", **options)


@pytest.fixture
def ask() -> Callable[..., ScoreRequest]:
    """Makes requests from lines."""
    return request_of


@pytest.fixture
def texts() -> list[str]:
    """Lines of the kinds that timelines hold."""
    return TEXTS
