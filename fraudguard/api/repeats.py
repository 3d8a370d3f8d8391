"""Idempotency keys: a POST of /v1 with an `Idempotency-Key` is carried out once and answered alike for 24 hours.

Only what succeeded is kept: a refused request changed nothing, and may be sent again with the same key. An audited deed
and its answer are one transaction. Where a process dies before that, the key is free again two minutes later.
"""

import hashlib
import logging

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fraudguard.api.problems import RETRY_AFTER_S, ProblemError, unavailable
from fraudguard.decisions import units
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.repeats import Answer, Claim, Refusal, Repeats
from fraudguard.decisions.units import Unit
from fraudguard.errors import FraudguardError

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 128
BODY_BYTES_MAX = 1024 * 1024  # of an answer that is kept
_KEPT_HEADERS = frozenset({"content-type", "etag", "location"})


class Replayed(Exception):
    """Ends a request with the answer that its first sending got."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.response = Response(answer.body, answer.status, {**answer.headers, "Idempotency-Replayed": "true"})


def install(app: FastAPI) -> None:
    """Answer what was answered before."""
    app.add_exception_handler(Replayed, _replayed)


def _replayed(_: Request, error: Exception) -> Response:
    assert isinstance(error, Replayed)  # noqa: S101  registered for nothing else
    return error.response


async def claim(request: Request, caller: Principal) -> None:
    """Take the request's key, if it has one; the middleware below keeps the answer.

    Raises Replayed; 409 while the first request runs, 422 for a key that was used for another one.
    """
    key = request.headers.get(HEADER)
    if key is None or request.method != "POST":
        return
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isascii() or not key.isprintable():
        detail = f"must be 1 to {KEY_LENGTH_MAX} printable ASCII characters"
        raise ProblemError(422, "bad_field", detail, path=HEADER, hint="a UUID is a good one")
    parts = (str(request.url.path), str(request.url.query), request.headers.get("if-match", ""))
    fingerprint = hashlib.sha256("\0".join(parts).encode() + b"\0" + await request.body())
    services = request.app.state.services
    found = await services.repository.repeats.claim(
        caller.name, key, fingerprint.digest(), services.clock.now(), caller.tenant
    )
    if isinstance(found, Answer):
        raise Replayed(found)
    if found is Refusal.ANOTHER_REQUEST:
        detail = "this key was used for another request"
        raise ProblemError(422, "key_used", detail, path=HEADER, hint="make a new key for every request")
    if found is Refusal.IN_PROGRESS:
        raise _in_progress()
    request.state.claim = found
    units.join()


class KeepAnswers:
    """Keeps the answer of a request that took a key in the transaction of its deed, and only then sends it.

    Where it did not succeed, what it did is undone and the key freed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers without a claim pass untouched."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        held: list[Message] = []
        with units.unit() as unit:

            async def hold(message: Message) -> None:
                if "claim" not in state:
                    await send(message)
                    return
                held.append(message)
                if message["type"] == "http.response.body" and not message.get("more_body", False):
                    problem = await _keep(scope["app"].state.services.repository.repeats, state["claim"], unit, held)
                    if problem is not None:
                        await problem.response()(scope, receive, send)
                        return
                    for part in held:
                        await send(part)

            try:
                await self._app(scope, receive, hold)
            except Exception:
                if "claim" in state:
                    await _keep(scope["app"].state.services.repository.repeats, state["claim"], unit, [])
                raise
            finally:
                await unit.finish(commit=False)


async def _keep(repeats: Repeats, claimed: Claim, unit: Unit, messages: list[Message]) -> ProblemError | None:
    """Keep the answer and let the deed take effect, both or neither; what to answer instead where that failed."""
    done = bool(messages) and 200 <= messages[0]["status"] < 300
    body = b"".join(message.get("body", b"") for message in messages[1:])
    waits = unit.holds
    try:
        if not done:
            await unit.finish(commit=False)
            await repeats.release(claimed)
        elif len(body) > BODY_BYTES_MAX:
            await repeats.release(claimed)
        else:
            headers = {name.decode(): value.decode("latin-1") for name, value in messages[0]["headers"]}
            kept = {name: value for name, value in headers.items() if name in _KEPT_HEADERS}
            mine = await repeats.answer(claimed, Answer(messages[0]["status"], kept, body))
            if waits and not mine:  # it took so long that the request was given to somebody else
                return _in_progress()
        await unit.finish(commit=done)
    except FraudguardError as error:
        if waits:
            log.warning("a deed was undone, for its answer could not be kept: %s", error)
            return unavailable("store_unavailable", "the decision store does not answer", "send it again, with its key")
        log.warning("an answer was not kept for its idempotency key: %s", error)
    return None


def _in_progress() -> ProblemError:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    detail = "the same request is being carried out"
    return ProblemError(409, "in_progress", detail, path=HEADER, hint="wait", headers=headers)
