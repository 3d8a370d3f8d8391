"""Small releases made on the fly, and requests for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from releases import TENANTS, TEXTS, make_release, request_of

from fraudguard.domain import ScoreRequest
from fraudguard.engine.onnx_export import export
from fraudguard.engine.precision import Precision


@pytest.fixture(scope="session")
def ready_releases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """One release a shape and prefix, made when first asked for."""
    made: dict[tuple[str, str], Path] = {}

    def ready(shape: str, prefix: str = "") -> Path:
        if (shape, prefix) not in made:
            made[shape, prefix] = make_release(tmp_path_factory.mktemp(shape), shape, prefix=prefix)
        return made[shape, prefix]

    return ready


@pytest.fixture(scope="session")
def release_with_tenants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of shape qwen25, with TENANTS."""
    return make_release(tmp_path_factory.mktemp("tenants"), "qwen25", tenants=TENANTS)


@pytest.fixture(scope="session")
def ready_onnx(ready_releases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """One ONNX release a shape (or "shipped": the starter), precision and prefix, exported when first asked for."""
    made: dict[tuple[str, str, str], Path] = {}

    def ready(shape: str, precision: Precision = "fp32", prefix: str = "") -> Path:
        if (shape, precision, prefix) not in made:
            folder = made[shape, precision, prefix] = tmp_path_factory.mktemp("onnx") / shape
            export("starter" if shape == "shipped" else ready_releases(shape, prefix), folder, precision)
        return made[shape, precision, prefix]

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
