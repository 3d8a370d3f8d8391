"""Scores through a vLLM server: token ids out, last hidden states back; the head and its calibration stay here.

Knows HTTP, two of the server's endpoints, and a release's tokenizer and heads. Reads no weights of base or adapter, so
it needs neither transformers nor peft: GPUs, parallelism, paged attention and the cache of timelines are the server's.
"""

import base64
import json
import logging
import re
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

import httpx
import numpy as np
import torch
from pydantic import BaseModel, SecretStr, ValidationError

from fraudguard.domain import Score, ScoreRequest
from fraudguard.engine.head import Heads, load_head, load_tenants
from fraudguard.engine.release import Release, open_release
from fraudguard.engine.tokenizer import LineTokenizer, open_tokenizer
from fraudguard.errors import BadModel, BadSettings, EngineUnavailable, FraudguardError

# Below the 5 s after which the server closes an idle connection: one that it is closing must not be taken for a batch.
KEEPALIVE_S: Final = 2.0
MODELS_BYTES_MAX: Final = 1 << 20
VECTOR_BYTES_MAX: Final = 1 << 17  # of one state in an answer: 16,384 numbers and to spare

_MENDED_BY: Final = {
    401: ("FRAUDGUARD_ENGINE_KEY", "give the server's --api-key"),
    403: ("FRAUDGUARD_ENGINE_KEY", "give a key that may use this model"),
    404: ("FRAUDGUARD_ENGINE_URL", "give the root of a vLLM server that has the model, without /v1"),
}

log = logging.getLogger(__name__)


class _Model(BaseModel):
    """One of /v1/models. An adapter names its base as parent and leaves the length to it."""

    id: str
    parent: str | None = None
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Vector(BaseModel):
    index: int
    embedding: str


class _Vectors(BaseModel):
    data: list[_Vector]


Answer = TypeVar("Answer", _Models, _Vectors)


class RemoteEngine:
    """Scores timelines with one release whose base and adapter a server holds. `score` is for one thread at a time."""

    def __init__(self, release: Release, client: httpx.Client, timeout_s: float, served_name: str | None) -> None:
        """client: its base URL is the server's. timeout_s: of one exchange. served_name: None for name@version.

        A tenant's adapter is served as served_name/tenant. Raises BadModel.
        """
        self.name = f"{release.name}@{release.version}+vllm"
        served_name = served_name or f"{release.name}@{release.version}"
        self._served: dict[str | None, str] = {None: served_name}
        self._served |= {tenant: f"{served_name}/{tenant}" for tenant in release.tenants}
        self._tokenizer, self._head = open_tokenizer(release.base), load_head(release.head)
        self._prefix = self._tokenizer.encode_prefix(release.prefix)
        tenants = load_tenants(release.tenants, self._head)
        self._heads = Heads(self.name, self._head, tenants, self._tokenizer)
        self._client, self._timeout_s = client, timeout_s
        self._checked = False

    @classmethod
    def connect(
        cls,
        source: Path | str,
        url: str,
        *,
        timeout_s: float,
        served_name: str | None = None,
        key: SecretStr | None = None,
        threads: int = 0,
    ) -> Self:
        """The release in a folder, or "starter", and the server at `url`. threads: of torch, as in Engine.load.

        A server that is away is only logged: until it answers, decisions are degraded. Raises BadModel when a part here
        is missing or damaged or the server holds another model, BadSettings when URL or key are not the server's.
        """
        if threads:
            torch.set_num_threads(threads)
        client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {_sendable(key)}"} if key else None,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_S),
            trust_env=False,  # what customers write goes to this server, and to no proxy that the environment names
            verify=ssl.create_default_context(),  # the system's authorities, a company's own among them
        )
        engine = cls(open_release(source), client, timeout_s, served_name)
        try:
            engine.check()
        except EngineUnavailable as error:
            log.warning("decisions are degraded until the model's server answers: %s", error)
        return engine

    @property
    def tokenizer(self) -> LineTokenizer:
        """How this release tokenizes lines."""
        return self._tokenizer

    @property
    def tokens_max(self) -> int:
        """The longest timeline it was trained on; of a longer one the last tokens are read."""
        return self._head.spec.tokens_max

    def check(self) -> None:
        """Look whether the server has the model and every tenant's and reads timelines of tokens_max after the prefix.

        Raises BadModel when not, BadSettings when it does not let us ask, EngineUnavailable when it does not answer.
        """
        models = {one.id: one for one in self._parse(_Models, self._exchange("GET", "/v1/models")).data}
        needed = len(self._prefix) + self.tokens_max
        for name in self._served.values():
            served = models.get(name)
            if served is None:
                raise BadModel(
                    f"the server has no model {name!r}, only {sorted(models)}",
                    path=self._server,
                    hint="serve this release under that name, or set FRAUDGUARD_ENGINE_SERVED_NAME",
                )
            parent = models.get(served.parent or served.id, served)
            length = served.max_model_len or parent.max_model_len
            if length is None or length < needed:
                raise BadModel(
                    f"the server reads {length} tokens, the longest timeline with its prefix has {needed}",
                    path=self._server,
                    hint=f"start it with --max-model-len {needed}",
                )
        self._checked = True

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order, for one question to the server about each tenant's.

        Raises EngineUnavailable when it does not answer as it should, BadSettings when it does not let us ask, BadModel
        when it has another model or when the features are not those the head was made for.
        """
        if not requests:
            return []
        if not self._checked:
            self.check()
        hidden = torch.empty(len(requests), self._head.spec.hidden_size)
        try:
            for tenant, rows in self._heads.rows(requests).items():
                hidden[rows] = self._last_hidden(self._served[tenant], [self._prompt(requests[row]) for row in rows])
        except FraudguardError:
            self._checked = False  # it may come back with another model
            raise
        return self._heads.scores(hidden, requests)

    def new_tokens(self, request: ScoreRequest) -> int:
        """Of its last line alone: the server is expected to keep what it has read."""
        return self._tokenizer.count(request.timeline.lines[-1].text)

    def _prompt(self, request: ScoreRequest) -> tuple[int, ...]:
        """What all prompts begin with, the server's prefix cache keeps once."""
        return self._prefix + self._tokenizer.encode_timeline(request.timeline, self.tokens_max)

    def _last_hidden(self, served_name: str, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """The final hidden state at the last token of each prompt: [n, hidden_size]."""
        size = self._head.spec.hidden_size
        question = {
            "model": served_name,
            "input": prompts,
            "encoding_format": "base64",
            "embed_dtype": "float32",
            "endianness": "little",
            "use_activation": False,  # else the server may scale each state to length 1
        }
        bytes_max = len(prompts) * VECTOR_BYTES_MAX
        answer = self._parse(_Vectors, self._exchange("POST", "/v1/embeddings", question, bytes_max=bytes_max))
        by_index = {vector.index: vector.embedding for vector in answer.data}
        if len(answer.data) != len(prompts) or set(by_index) != set(range(len(prompts))):
            raise EngineUnavailable(f"{self._server}: {len(answer.data)} answers to {len(prompts)} timelines")
        hidden = np.empty((len(prompts), size), dtype=np.float32)
        for index, embedding in by_index.items():
            try:
                state = np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
            except ValueError as error:
                raise EngineUnavailable(f"{self._server}: an answer is not base64 of float32") from error
            if len(state) != size:
                raise BadModel(
                    f"the head reads hidden states of {size}, the server's have {len(state)}",
                    path=self._server,
                    hint=f"{served_name} is served from another base",
                )
            hidden[index] = state
        if not np.isfinite(hidden).all():
            raise EngineUnavailable(f"{self._server}: a hidden state is not finite")
        return torch.from_numpy(hidden)

    def _exchange(self, method: str, path: str, question: object = None, *, bytes_max: int = MODELS_BYTES_MAX) -> bytes:
        """The body of a good answer. No error quotes one: a server may repeat what it was asked.

        Raises EngineUnavailable, and BadSettings for a key or an address that is not the server's.
        """
        deadline = time.monotonic() + self._timeout_s
        content = None if question is None else json.dumps(question)
        headers = {"Content-Type": "application/json"}
        body = bytearray()
        try:
            with self._client.stream(method, path, content=content, headers=headers) as response:
                if response.status_code in _MENDED_BY:
                    setting, hint = _MENDED_BY[response.status_code]
                    reason = f"{self._server} answers {response.status_code} to {path}"
                    raise BadSettings(reason, path=setting, hint=hint)
                if response.status_code != httpx.codes.OK:
                    raise EngineUnavailable(f"{self._server}: {path} answers {response.status_code}")
                # The client's timeout is of each read; many short ones must end too.
                for part in response.iter_bytes():
                    body += part
                    if len(body) > bytes_max:
                        raise EngineUnavailable(f"{self._server}: {path} answers more than {bytes_max} bytes")
                    if time.monotonic() > deadline:
                        raise EngineUnavailable(f"{self._server}: {path} takes more than {self._timeout_s} s")
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"{self._server}: {path}: {type(error).__name__}: {error}") from error
        return bytes(body)

    def _parse(self, kind: type[Answer], body: bytes) -> Answer:
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise EngineUnavailable(f"{self._server}: not an answer of vLLM: {where}: {first['msg']}") from None

    @property
    def _server(self) -> str:
        """Where it is, without a password that its URL may hold."""
        return self._client.base_url.netloc.decode()


def _sendable(key: SecretStr) -> str:
    """The key, once it is known to be a header's value: HTTP libraries quote one that is not in their errors."""
    value = key.get_secret_value()
    if not re.fullmatch("[!-~]+", value):
        raise BadSettings(
            "the key holds spaces, line ends or characters beyond ASCII",
            path="FRAUDGUARD_ENGINE_KEY",
            hint="a file's last line end is often taken along",
        )
    return value
