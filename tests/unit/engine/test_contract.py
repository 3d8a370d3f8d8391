"""The contract of engines, kept by each backend that runs without a server of its own (tests/slow has the others)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_contract import EngineContract, TenantsContract, growing
from releases import PREFIX, make_release
from vllm_twin import VllmTwin

from finetune.calibrate_activations import calibrate
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import load
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import open_release
from fraudguard.engine.remote import RemoteEngine

PREFIX_TOKENS = 23


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


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose layers every kernel takes, with ranges of activations."""
    folder = make_release(tmp_path_factory.mktemp("wide"), "qwen25", hidden=96)
    calibrate(folder)
    return folder


def quantized(folder: Path, precision: Precision) -> Engine:
    """Whether or not this machine has the products: fp8 is emulated on a CPU."""
    release = open_release(folder)
    return Engine(f"{release.name}@{release.version}+{precision}", load(release, precision), 1 << 24)


class TestAsymmetric(EngineContract):
    """int8 from a token's lowest to its highest value."""

    tolerance = 2e-3

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, wide: Path) -> Engine:
        """A fresh one."""
        return quantized(wide, "int8-asymmetric")


class TestCalibrated(EngineContract):
    """int8 by ranges that the release brings."""

    tolerance = 2e-3

    @pytest.fixture(scope="class", params=["int8-tensor", "int8-tensor-asymmetric"])
    @classmethod
    def engine(cls, wide: Path, request: pytest.FixtureRequest) -> Engine:
        """A fresh one."""
        return quantized(wide, request.param)


class TestInt4(EngineContract):
    """int4 weights, bf16 activations."""

    tolerance = 2e-2

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, wide: Path) -> Engine:
        """A fresh one."""
        return quantized(wide, "int4")


class TestFp8(EngineContract):
    """e4m3 weights and activations, whose levels are a sixteenth apart."""

    tolerance = 5e-2

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, wide: Path) -> Engine:
        """A fresh one."""
        return quantized(wide, "fp8")


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


class TestPrefixed(EngineContract):
    """After a prefix, fp32 here, with a cache."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ready_releases: Callable[..., Path]) -> Engine:
        """A fresh one."""
        return Engine.load(ready_releases("qwen25", PREFIX), "fp32", 1, 1 << 24)


class TestPrefixedOnnx(EngineContract):
    """After a prefix, on onnxruntime."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ready_onnx: Callable[..., Path]) -> OnnxEngine:
        """A fresh one."""
        return OnnxEngine.load(ready_onnx("qwen25", prefix=PREFIX), 1, 1 << 24)


class TestPrefixedRemote(EngineContract):
    """After a prefix, through the protocol's twin, to which it is a part of every prompt."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ready_releases: Callable[..., Path]) -> Iterator[RemoteEngine]:
        """A fresh one and its server, which reads no token more than it must."""
        release = ready_releases("qwen25", PREFIX)
        with VllmTwin(release).serving() as twin:
            twin.max_model_len = PREFIX_TOKENS + 128
            yield RemoteEngine.connect(release, twin.url, timeout_s=30, threads=1)


def test_a_prefix_is_read_alike_by_all(ready_releases: Callable[..., Path], ready_onnx: Callable[..., Path]) -> None:
    """Here, on onnxruntime and by transformers, which has no cache; and every risk is another than without it."""
    release, requests = ready_releases("qwen25", PREFIX), growing("a-prefixed", 12)
    with VllmTwin(release).serving() as twin:
        twin.max_model_len = PREFIX_TOKENS + 128
        engines = [
            Engine.load(release, "fp32", 1),
            OnnxEngine.load(ready_onnx("qwen25", prefix=PREFIX), 1),
            RemoteEngine.connect(release, twin.url, timeout_s=30, threads=1),
            Engine.load(ready_releases("qwen25"), "fp32", 1),
        ]
        here, onnx, remote, without = ([score.risk for score in engine.score(requests)] for engine in engines)
        assert {len(prompt) for prompt in twin.questions[0]["input"]} >= {PREFIX_TOKENS + 128}
    assert sum(engines[0].tokenizer.count(line.text) for line in requests[-1].timeline.lines) > 128
    assert here == pytest.approx(remote, abs=1e-5)
    assert onnx == pytest.approx(remote, abs=1e-4)
    assert all(abs(a - b) > 1e-4 for a, b in zip(here, without, strict=True))
