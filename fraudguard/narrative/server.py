"""A narrative's words from any server that speaks OpenAI's chat completions, streamed, in bounded time and size.

Knows HTTP and that protocol. It offers no tools, takes only text, and believes nothing that it is sent: whatever is
wrong with an answer ends in NoNarrativeError, and what was said before that is the caller's to keep or drop.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

log = logging.getLogger(__name__)

CONNECT_S: Final = 5.0
SILENCE_S: Final = 20.0  # between two pieces, the first one included: a long prompt is read before it
WHOLE_S: Final = 90.0  # after which the next piece is the last
TOKENS_MAX: Final = 2_000  # of an answer; a reasoning model thinks in them too
LINE_BYTES_MAX: Final = 64 << 10
ANSWER_BYTES_MAX: Final = 4 << 20


class NoNarrativeError(Exception):
    """The server gives no narrative, or broke it off. reason: a word for programs."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[_Choice]


class NarrativeServer:
    """url: where `/chat/completions` is, usually ending in /v1. silence_s, whole_s: see SILENCE_S and WHOLE_S."""

    def __init__(
        self,
        url: str,
        model: str,
        key: SecretStr | None = None,
        *,
        silence_s: float = SILENCE_S,
        whole_s: float = WHOLE_S,
    ) -> None:
        self.model, self._url, self._whole_s = model, f"{url.rstrip('/')}/chat/completions", whole_s
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._timeout = httpx.Timeout(silence_s, connect=CONNECT_S)

    async def words(self, messages: Sequence[Mapping[str, str]]) -> AsyncGenerator[str, None]:
        """The text as it comes. Raises NoNarrativeError, also where the answer ended before it was complete."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "stream": True,
            "max_tokens": TOKENS_MAX,
            "temperature": 0,
        }
        try:
            # trust_env: what people wrote goes to this server, and to no proxy that the environment names
            async with (
                httpx.AsyncClient(timeout=self._timeout, headers=self._headers, trust_env=False) as client,
                client.stream("POST", self._url, json=body) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise NoNarrativeError("refused", f"the server answers {response.status_code}")
                async with aclosing(self._read(response)) as pieces:
                    async for piece in pieces:
                        yield piece
        except httpx.HTTPError as error:
            raise NoNarrativeError("broken_off", f"{type(error).__name__}: {error}") from error
        except httpx.InvalidURL as error:
            raise NoNarrativeError("refused", f"FRAUDGUARD_NARRATIVE_URL: {error}") from error

    async def _read(self, response: httpx.Response) -> AsyncGenerator[str, None]:
        ends = asyncio.get_running_loop().time() + self._whole_s
        async with aclosing(_lines(response)) as lines:
            async for line in lines:
                if asyncio.get_running_loop().time() > ends:
                    raise NoNarrativeError("too_slow", f"not complete within {self._whole_s} s")
                if not line.startswith(b"data:"):
                    continue
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                for choice in _chunk(data).choices[:1]:
                    if choice.delta.content:
                        yield choice.delta.content
                    if choice.finish_reason in ("tool_calls", "function_call"):
                        raise NoNarrativeError("asked_for_a_tool", "there are none")
                    if choice.finish_reason == "length":
                        raise NoNarrativeError("too_long", f"more than {TOKENS_MAX} tokens")
                    if choice.finish_reason is not None:
                        return
        raise NoNarrativeError("broken_off", "the answer ended before it was complete")


def _chunk(data: bytes) -> _Chunk:
    try:
        parsed: Any = json.loads(data)
        return _Chunk.model_validate(parsed)
    except (ValueError, RecursionError, ValidationError) as error:
        raise NoNarrativeError(
            "not_understood", f"not a chunk of a chat completion ({type(error).__name__})"
        ) from error


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The answer's lines, none of them longer than LINE_BYTES_MAX."""
    held, total = b"", 0
    async for part in response.aiter_bytes():
        total += len(part)
        *whole, held = (held + part).split(b"\n")
        if total > ANSWER_BYTES_MAX or any(len(line) > LINE_BYTES_MAX for line in (*whole, held)):
            raise NoNarrativeError("too_long", "more bytes than any narrative has")
        for line in whole:
            yield line
    if held:
        yield held
