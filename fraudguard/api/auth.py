"""Who calls, and whether this route serves them: a key or a session's cookie, its role, the roles a route declares.

A key is checked by its hash in the store; a good one is remembered for KEY_TTL_S, so that is how long a revoked key may
still work. A session is looked up every time: who signs out, is disabled or gets another role notices at once. Neither
keys, tokens nor parts of them are logged.
"""

import hashlib
import hmac
from collections import OrderedDict
from datetime import timedelta
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader

from fraudguard.api import repeats
from fraudguard.api.problems import ProblemError
from fraudguard.clock import Clock
from fraudguard.decisions.connection import act_for
from fraudguard.decisions.keys import KeyRing, Principal
from fraudguard.domain import Role

HEADER = "X-API-Key"
COOKIE = "fraudguard_session"
CSRF_HEADER = "X-CSRF-Token"
KEY_TTL_S = 5.0
KEYS_CACHED_MAX = 1_024
KEY_LENGTH_MAX = 256
CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})

_header = APIKeyHeader(name=HEADER, auto_error=False, description="Made by `fraudguard keys create ROLE OWNER`")
_cookie = APIKeyCookie(
    name=COOKIE,
    auto_error=False,
    description=f"Set by `POST /v1/session`; whatever changes something needs {CSRF_HEADER} as well",
)


class KeyCache:
    """Verified keys by the SHA-256 of the whole key, each for KEY_TTL_S; refused ones are asked for every time."""

    def __init__(self, keys: KeyRing, clock: Clock) -> None:
        self._keys, self._clock = keys, clock
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def verify(self, key: str) -> Principal | None:
        """Whom the key speaks for, or None. Raises StoreUnavailable."""
        if len(key) > KEY_LENGTH_MAX:
            return None
        digest = hashlib.sha256(key.encode()).digest()
        now = self._clock.monotonic()
        until, principal = self._known.get(digest, (now, None))
        if principal is not None and now < until:
            return principal
        self._known.pop(digest, None)
        principal = await self._keys.verify(key)
        if principal is not None:
            self._known[digest] = (now + KEY_TTL_S, principal)
            if len(self._known) > KEYS_CACHED_MAX:
                self._known.popitem(last=False)
        return principal


class Serves:
    """The dependency by which a route says whom it serves. An admin is served everywhere.

    From it on the request works on behalf of the caller's tenant: what it reads and writes is that tenant's.
    """

    def __init__(self, *roles: Role, house: bool = False) -> None:
        """house: what the route is about is the house's, and serves no tenant's people."""
        self.roles = frozenset(roles) | {Role.ADMIN}
        self._house = house

    async def __call__(
        self,
        request: Request,
        key: Annotated[str | None, Security(_header)],
        token: Annotated[str | None, Security(_cookie)],
    ) -> Principal:
        """The caller. 401 without a valid key or session, 403 without the session's CSRF token, or in another role.

        429 when they ask too often; and what repeats.claim raises.
        """
        principal = await _by_key(request, key) if key or not token else await by_cookie(request, token)
        if principal.csrf and request.method not in CHANGES_NOTHING:
            check_csrf(principal, request.headers.get(CSRF_HEADER, ""))
        if principal.role not in self.roles:
            served = ", ".join(role for role in Role if role in self.roles)
            detail = f"this route does not serve {principal.role}"
            raise ProblemError(403, "wrong_role", detail, hint=f"it serves {served}")
        if self._house and principal.tenant:
            raise house_only()
        act_for(principal.tenant)
        await request.app.state.services.rates.caller(principal)
        await repeats.claim(request, principal)
        return principal


async def _by_key(request: Request, key: str | None) -> Principal:
    principal: Principal | None = await request.app.state.services.keys.verify(key) if key else None
    if principal is None:
        detail = "the API key is not valid" if key else "there is no API key"
        challenge = {"WWW-Authenticate": f'ApiKey header="{HEADER}"'}
        raise ProblemError(401, "no_valid_key", detail, path=HEADER, hint=f"send it as {HEADER}", headers=challenge)
    return principal


async def by_cookie(request: Request, token: str) -> Principal:
    """Who signed in with this token. 401 when the session has ended."""
    services = request.app.state.services
    settings = services.settings
    idle, longest = timedelta(seconds=settings.session_idle_s), timedelta(seconds=settings.session_max_s)
    principal: Principal | None = None
    if len(token) <= KEY_LENGTH_MAX:
        principal = await services.repository.sessions.find(token, services.clock.now(), idle, longest)
    if principal is None:
        challenge = {"WWW-Authenticate": "Session"}
        raise ProblemError(
            401, "no_session", "the session has ended", path=COOKIE, hint="sign in again", headers=challenge
        )
    return principal


def check_csrf(principal: Principal, sent: str) -> None:
    """403 unless what was sent is the CSRF token of the caller's session."""
    if principal.csrf and not hmac.compare_digest(principal.csrf.encode(), sent.encode()):
        detail = "a change by cookie needs its session's token"
        hint = "GET /v1/session has it, as csrf_token"
        raise ProblemError(403, "no_csrf_token", detail, path=CSRF_HEADER, hint=hint)


def house_only() -> ProblemError:
    """What a tenant's people are told where they ask for rules, lists or models."""
    hint = "ask the people who run this service"
    return ProblemError(403, "house_only", "this is the house's, not a tenant's", hint=hint)


def actor(principal: Principal) -> str:
    """How the audit trail and a case name the caller."""
    return principal.name
