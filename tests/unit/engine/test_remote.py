"""The remote engine when its server is slow, away, wrong or broken; the scores themselves are in test_contract.py."""

import base64
import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from releases import PREFIX, TENANTS, TEXTS, request_of
from vllm_twin import Answer, VllmTwin

from fraudguard.assembly import load_engine
from fraudguard.config import Settings
from fraudguard.engine.engine import Engine
from fraudguard.engine.remote import MODELS_BYTES_MAX, VECTOR_BYTES_MAX, RemoteEngine
from fraudguard.errors import BadModel, BadSettings, EngineUnavailable

KEY = "sesame-open"
REQUESTS = [request_of(*TEXTS[:lines]) for lines in (1, 2, 3)]


@pytest.fixture
def release(ready_releases: Callable[[str], Path]) -> Path:
    """Hidden states of 48."""
    return ready_releases("qwen25")


@pytest.fixture
def twin(release: Path) -> Iterator[VllmTwin]:
    """A server that has it."""
    with VllmTwin(release).serving() as twin:
        yield twin


@pytest.fixture
def engine(release: Path, twin: VllmTwin) -> RemoteEngine:
    """Connected to the twin; patient."""
    return RemoteEngine.connect(release, twin.url, timeout_s=30)


def free_port() -> int:
    """Where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_scores_are_those_of_the_local_engine(release: Path, engine: RemoteEngine) -> None:
    """Risk and typology, whichever side runs the base."""
    for remote, local in zip(engine.score(REQUESTS), Engine.load(release, "fp32").score(REQUESTS), strict=True):
        assert remote.risk == pytest.approx(local.risk, abs=1e-5)
        assert remote.typology == local.typology


def test_a_batch_is_one_question_of_token_ids(engine: RemoteEngine, twin: VllmTwin) -> None:
    """Of the adapter by its name, with states as they are; no text leaves."""
    engine.score(REQUESTS)
    (question,) = twin.questions
    assert question["model"] == "qwen25@0.0.1"
    assert question["use_activation"] is False
    assert question["input"] == [list(engine.tokenizer.encode_timeline(one.timeline, 128)) for one in REQUESTS]


def test_tenants_are_asked_for_by_name(release_with_tenants: Path) -> None:
    """One question for each that is in the batch; the scores are the local engine's."""
    requests = [request_of(*TEXTS[: n % 3 + 1], tenant=[None, *TENANTS][n % 3]) for n in range(7)]
    with VllmTwin(release_with_tenants).serving() as twin:
        remote = RemoteEngine.connect(release_with_tenants, twin.url, timeout_s=30).score(requests)
    asked = {question["model"]: len(question["input"]) for question in twin.questions}
    assert len(twin.questions) == len(asked)
    assert asked == {"qwen25@0.0.1": 3, "qwen25@0.0.1/attention": 2, "qwen25@0.0.1/by_layer": 2}
    for one, other in zip(remote, Engine.load(release_with_tenants, "fp32").score(requests), strict=True):
        assert one.risk == pytest.approx(other.risk, abs=1e-4)
        assert one.typology == other.typology


def test_a_server_without_a_tenants_adapter_is_refused(release_with_tenants: Path) -> None:
    """At the start; a given name is all of theirs."""
    twin = VllmTwin(release_with_tenants)
    with twin.serving():
        twin.served_name = "ours"
        assert RemoteEngine.connect(release_with_tenants, twin.url, timeout_s=30, served_name="ours").score(
            [request_of("a", tenant="by_layer")]
        )
        del twin.bodies["/by_layer"]
        with pytest.raises(BadModel, match="no model 'ours/by_layer', only "):
            RemoteEngine.connect(release_with_tenants, twin.url, timeout_s=30, served_name="ours")


def test_a_failed_question_is_no_score(release_with_tenants: Path) -> None:
    """Of one tenant: the whole batch fails, and the next is scored."""
    requests = [request_of("a", tenant=name) for name in TENANTS]
    with VllmTwin(release_with_tenants).serving() as twin:
        engine = RemoteEngine.connect(release_with_tenants, twin.url, timeout_s=30)
        twin.answer = lambda question: (500, [b""]) if "by_layer" in question["model"] else twin.embed(question)
        with pytest.raises(EngineUnavailable, match="answers 500"):
            engine.score(requests)
        twin.answer = twin.embed
        assert len(engine.score(requests)) == 3


def test_answers_go_by_their_index(engine: RemoteEngine, twin: VllmTwin) -> None:
    """In whichever order they stand."""
    expected = engine.score(REQUESTS)

    def backwards(question: Any) -> Answer:
        status, body = twin.embed(question)
        answer = json.loads(b"".join(body))
        return status, [json.dumps({"data": answer["data"][::-1]}).encode()]

    twin.answer = backwards
    assert engine.score(REQUESTS) == expected


def test_a_server_that_is_away_at_the_start_is_used_once_it_answers(
    release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Until then each batch fails at once with its address."""
    port = free_port()
    engine = RemoteEngine.connect(release, f"http://127.0.0.1:{port}", timeout_s=30)
    assert f"127.0.0.1:{port}" in caplog.text
    with pytest.raises(EngineUnavailable, match=rf"127\.0\.0\.1:{port}: /v1/models: ConnectError: .*refused"):
        engine.score(REQUESTS)
    with VllmTwin(release).serving(port):
        assert len(engine.score(REQUESTS)) == 3
    with pytest.raises(EngineUnavailable, match="ConnectError"):
        engine.score(REQUESTS)


def endless(part: bytes, over: threading.Event, pause_s: float) -> Iterable[bytes]:
    """The same again and again until the test is over."""
    for each in repeat(part):
        yield each
        if over.wait(pause_s):
            return


@pytest.mark.parametrize(
    ("part", "pause_s", "message"), [(b"", 30, "ReadTimeout"), (b" ", 0.02, "takes more than 0.3 s")]
)
def test_a_slow_server_costs_the_timeout(
    release: Path, twin: VllmTwin, part: bytes, pause_s: float, message: str
) -> None:
    """Silence, and an answer that never ends, each of whose bytes comes in time."""
    engine, over = RemoteEngine.connect(release, twin.url, timeout_s=0.3), threading.Event()
    twin.answer = lambda _: (200, endless(part, over, pause_s))
    try:
        with pytest.raises(EngineUnavailable, match=message):
            engine.score(REQUESTS)
    finally:
        over.set()


def test_an_answer_has_a_largest_size(engine: RemoteEngine, twin: VllmTwin) -> None:
    """What is longer is not kept."""
    over = threading.Event()
    twin.answer = lambda _: (200, endless(b" " * MODELS_BYTES_MAX, over, 0))
    with pytest.raises(EngineUnavailable, match=f"more than {3 * VECTOR_BYTES_MAX} bytes"):
        engine.score(REQUESTS)
    over.set()


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, EngineUnavailable, "embeddings answers 400$"),
        (401, BadSettings, "^FRAUDGUARD_ENGINE_KEY: .* answers 401 to /v1/embeddings"),
        (404, BadSettings, "^FRAUDGUARD_ENGINE_URL: .* answers 404 to /v1/embeddings"),
        (500, EngineUnavailable, "embeddings answers 500$"),
    ],
)
def test_a_refusal_says_what_to_mend_and_quotes_nothing(
    engine: RemoteEngine, twin: VllmTwin, status: int, kind: type[Exception], message: str
) -> None:
    """A server may repeat what it was asked, which is what people wrote."""
    twin.answer = lambda question: (status, [json.dumps(question).encode()])
    with pytest.raises(kind, match=message) as caught:
        engine.score(REQUESTS)
    assert "input" not in str(caught.value)


def test_a_url_that_is_not_the_servers_root_is_refused_at_the_start(release: Path, twin: VllmTwin) -> None:
    """With /v1, as other clients want it."""
    with pytest.raises(BadSettings, match=r"FRAUDGUARD_ENGINE_URL: .* answers 404 to /v1/models \(.* without /v1\)"):
        RemoteEngine.connect(release, f"{twin.url}/v1", timeout_s=30)


def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(release: Path, twin: VllmTwin) -> None:
    """A line end at its end is a common accident."""
    with pytest.raises(BadSettings, match="line ends") as caught:
        RemoteEngine.connect(release, twin.url, timeout_s=30, key=SecretStr(f"{KEY}\n"))
    assert KEY not in str(caught.value)


def state_of(*numbers: float) -> str:
    """As in an answer."""
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


GOOD = state_of(*[0.5] * 48)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("<html>", "not an answer of vLLM"),
        ({"error": "no"}, "data: Field required"),
        ({"data": [{"index": 0, "embedding": [0.5]}]}, "data.0.embedding: Input should be a valid string"),
        ({"data": []}, "0 answers to 1 timelines"),
        ({"data": [{"index": 1, "embedding": GOOD}]}, "1 answers to 1 timelines"),
        ({"data": [{"index": 0, "embedding": GOOD}] * 2}, "2 answers to 1 timelines"),
        ({"data": [{"index": 0, "embedding": "?"}]}, "not base64 of float32"),
        ({"data": [{"index": 0, "embedding": "AAA="}]}, "not base64 of float32"),
        ({"data": [{"index": 0, "embedding": state_of(*[float("nan")] * 48)}]}, "not finite"),
    ],
)
def test_a_malformed_answer_is_no_score(engine: RemoteEngine, twin: VllmTwin, answer: object, message: str) -> None:
    """Whatever the server says, there is a score or a clear error."""
    twin.answer = lambda _: (200, [(answer if isinstance(answer, str) else json.dumps(answer)).encode()])
    with pytest.raises(EngineUnavailable, match=message):
        engine.score(REQUESTS[:1])


def test_a_server_without_the_model_is_refused(release: Path, twin: VllmTwin) -> None:
    """At the start, with the names it has; another name can be given."""
    twin.served_name = "ours"
    with pytest.raises(BadModel, match=r"no model 'qwen25@0.0.1', only \['base', 'ours'\]"):
        RemoteEngine.connect(release, twin.url, timeout_s=30)
    assert RemoteEngine.connect(release, twin.url, timeout_s=30, served_name="ours").score(REQUESTS)


def test_a_server_that_comes_back_with_another_model_is_refused(engine: RemoteEngine, twin: VllmTwin) -> None:
    """After any failure it is looked at again."""
    twin.served_name, twin.answer = "qwen25@0.0.2", lambda _: (404, [b""])
    with pytest.raises(BadSettings, match="has the model"):
        engine.score(REQUESTS)
    with pytest.raises(BadModel, match=r"no model 'qwen25@0.0.1'"):
        engine.score(REQUESTS)


def test_a_server_that_reads_less_than_the_head_is_refused(release: Path, twin: VllmTwin) -> None:
    """It would refuse the long timelines, and with each its whole batch."""
    twin.max_model_len = 127
    with pytest.raises(BadModel, match=r"reads 127 tokens, the longest .* has 128 \(start it with --max-model-len 128"):
        RemoteEngine.connect(release, twin.url, timeout_s=30)


def test_a_server_must_read_the_prefix_too(ready_releases: Callable[..., Path]) -> None:
    """It comes before the longest timeline."""
    release = ready_releases("qwen25", PREFIX)
    with VllmTwin(release).serving() as twin:
        twin.max_model_len = 128 + 22
        with pytest.raises(BadModel, match="--max-model-len 151"):
            RemoteEngine.connect(release, twin.url, timeout_s=30)


def test_hidden_states_of_another_size_are_refused(engine: RemoteEngine, twin: VllmTwin) -> None:
    """The head was made for another base."""
    twin.answer = lambda question: twin.vectors([bytes(4 * 64)] * len(question["input"]))
    with pytest.raises(BadModel, match="hidden states of 48, the server's have 64"):
        engine.score(REQUESTS)


def test_the_key_is_sent_and_never_shown(
    release: Path, twin: VllmTwin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a log of any level nor in an error."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")  # not used
    caplog.set_level(logging.DEBUG)
    engine = RemoteEngine.connect(release, twin.url, timeout_s=30, key=SecretStr(KEY))
    engine.score(REQUESTS)
    assert [headers["Authorization"] for headers in twin.headers] == [f"Bearer {KEY}"] * 2
    twin.answer = lambda _: (401, [b""])
    with pytest.raises(BadSettings) as caught:
        engine.score(REQUESTS)
    assert KEY not in caplog.text + str(caught.value) + repr(engine)


async def test_settings_name_the_server(release: Path, twin: VllmTwin) -> None:
    """With a URL the configured engine is the remote one, behind the same guard."""
    settings = Settings(model=str(release), engine_url=twin.url, engine_key=SecretStr(KEY), engine_timeout_ms=30_000)
    guarded = load_engine(settings)
    assert guarded
    assert guarded.name == "qwen25@0.0.1+vllm"
    assert len(await guarded.score(REQUESTS)) == 3
    twin.answer = lambda _: (500, [b""])
    with pytest.raises(EngineUnavailable, match="answers 500"):
        await guarded.score(REQUESTS)
    guarded.close()


def test_it_needs_neither_transformers_nor_peft() -> None:
    """A worker beside a server installs [remote] alone."""
    modules = "fraudguard.assembly, fraudguard.engine.remote"
    code = f"import sys, {modules}; print({{'transformers', 'peft'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
