"""A twin of vLLM's protocol for tests without vLLM: its two endpoints on loopback, transformers' own hidden states.

What is asked and answered has vLLM's form; no line of vLLM runs. tests/slow/test_vllm.py asks the real one.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from transformers import Qwen2Model

from fraudguard.engine.loader import attach, load_base
from fraudguard.engine.release import open_release

Answer = tuple[int, Iterable[bytes]]


class VllmTwin:
    """Serves one release under name@version, its tenants' adapters under name@version/tenant.

    A test may set `answer` to say something else to a question.
    """

    def __init__(self, folder: Path) -> None:
        release = open_release(folder)
        adapters = {"": release.adapter} | {f"/{name}": tenant.adapter for name, tenant in release.tenants.items()}
        self.bodies = {}  # by what follows the served name
        for suffix, adapter in adapters.items():
            model = load_base(release.base)
            self.bodies[suffix] = (attach(model, adapter).merge_and_unload() if adapter else model).model
        self.served_name, self.url = f"{release.name}@{release.version}", ""
        self.max_model_len = 128
        self.questions: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[Any], Answer] = self.embed

    def models(self) -> Answer:
        """The base, and the adapters as its children, as `--lora-modules` shows them."""
        base = {"id": "base", "object": "model", "max_model_len": self.max_model_len, "parent": None}
        names = [self.served_name + suffix for suffix in self.bodies]
        adapters = [{"id": name, "object": "model", "max_model_len": None, "parent": "base"} for name in names]
        return 200, [json.dumps({"object": "list", "data": [base, *adapters]}).encode()]

    def embed(self, question: Any) -> Answer:
        """The last hidden state of each prompt; the whole batch is refused for one that is too long."""
        if max(map(len, question["input"])) > self.max_model_len:
            return 400, [b'{"error": {"message": "too long", "code": 400}}']
        body = self.bodies[question["model"].removeprefix(self.served_name)]
        return self.vectors([self.state(body, ids) for ids in question["input"]])

    @staticmethod
    @torch.inference_mode()
    def state(body: Qwen2Model, ids: list[int]) -> bytes:
        """transformers' own, without any cache."""
        hidden: torch.Tensor = body(torch.tensor([ids])).last_hidden_state[0, -1]
        return hidden.numpy().astype("<f4").tobytes()

    @staticmethod
    def vectors(states: Iterable[bytes]) -> Answer:
        """An answer with these, in order."""
        data = [
            {"index": index, "object": "embedding", "embedding": base64.b64encode(state).decode()}
            for index, state in enumerate(states)
        ]
        return 200, [json.dumps({"object": "list", "data": data, "usage": {}}).encode()]

    @contextmanager
    def serving(self, port: int = 0) -> Iterator["VllmTwin"]:
        """Answer on a port of loopback."""
        twin = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                """/v1/models."""
                twin.headers.append(dict(self.headers))
                self.reply(*(twin.models() if self.path == "/v1/models" else (404, [b"{}"])))

            def do_POST(self) -> None:
                """/v1/embeddings."""
                twin.headers.append(dict(self.headers))
                twin.questions.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.reply(*(twin.answer(twin.questions[-1]) if self.path == "/v1/embeddings" else (404, [b"{}"])))

            def reply(self, status: int, body: Iterable[bytes]) -> None:
                """HTTP/1.0: the end of the connection is the end of the body."""
                self.send_response(status)
                self.end_headers()
                for part in body:
                    self.wfile.write(part)
                    self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            self.url = f"http://127.0.0.1:{server.server_port}"
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(10)
