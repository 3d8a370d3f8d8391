"""The contract of engines, kept by each backend that runs without a server of its own (tests/slow has the others)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_contract import EngineContract, TenantsContract
from vllm_twin import VllmTwin

from fraudguard.engine.engine import Engine
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.remote import RemoteEngine


class TestFull(EngineContract):
    """fp32 here, with a cache."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ready_releases: Callable[[str], Path]) -> Engine:
        """A fresh one."""
        return Engine.load(ready_releases("qwen25"), "fp32", 1, 1 << 24)


class TestQuantized(EngineContract):
    """int8 here, with a cache: an activation near the edge of two levels may fall on either side."""

    tolerance = 2e-3

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ready_releases: Callable[[str], Path]) -> Engine:
        """A fresh one."""
        return Engine.load(ready_releases("qwen25"), "int8", 1, 1 << 24)


class TestOnnx(EngineContract):
    """On onnxruntime."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ready_onnx: Callable[..., Path]) -> OnnxEngine:
        """A fresh one."""
        return OnnxEngine.load(ready_onnx("qwen25"), 1, 1 << 24)


class TestRemote(EngineContract):
    """Through the protocol's twin."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ready_releases: Callable[[str], Path]) -> Iterator[RemoteEngine]:
        """A fresh one and its server."""
        release = ready_releases("qwen25")
        with VllmTwin(release).serving() as twin:
            yield RemoteEngine.connect(release, twin.url, timeout_s=30, threads=1)


class TestTenants(TenantsContract):
    """fp32 here: adapters beside the base."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, release_with_tenants: Path) -> Engine:
        """A fresh one."""
        return Engine.load(release_with_tenants, "fp32", 1, 1 << 24)


class TestTenantsQuantized(TenantsContract):
    """int8 here: the base is quantized, the adapters are not."""

    tolerance = 2e-3

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, release_with_tenants: Path) -> Engine:
        """A fresh one."""
        return Engine.load(release_with_tenants, "int8", 1, 1 << 24)


class TestTenantsRemote(TenantsContract):
    """Through the protocol's twin: an adapter by its name."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, release_with_tenants: Path) -> Iterator[RemoteEngine]:
        """A fresh one and its server."""
        with VllmTwin(release_with_tenants).serving() as twin:
            yield RemoteEngine.connect(release_with_tenants, twin.url, timeout_s=30, threads=1)
