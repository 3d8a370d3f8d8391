"""The contract of engines, kept by each backend that runs without a server of its own (tests/slow has the others)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_contract import EngineContract
from releases import make_release
from vllm_twin import VllmTwin

from finetune.calibrate_activations import calibrate
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import load
from fraudguard.engine.onnx_engine import OnnxEngine
from fraudguard.engine.precision import Precision
from fraudguard.engine.release import open_release
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
