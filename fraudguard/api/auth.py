"""Who calls, and whether this route serves them: the key in X-API-Key, its role, the roles a route declares.

A key is checked by its hash in the store; a good one is remembered for KEY_TTL_S, so that is how long a revoked key may
still work. Neither keys nor parts of them are logged.
"""

import hashlib
from collections import OrderedDict
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from fraudguard.api.problems import ProblemError
from fraudguard.clock import Clock
from fraudguard.decisions.keys import KeyRing, Principal
from fraudguard.domain import Role

HEADER = "X-API-Key"
KEY_TTL_S = 5.0
KEYS_CACHED_MAX = 1_024
KEY_LENGTH_MAX = 256
OWNER_CHARACTERS_SHOWN = 100  # with the key's id that fits wherever a name is stored

_header = APIKeyHeader(name=HEADER, auto_error=False, description="Made by `fraudguard keys create ROLE OWNER`")


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
    """The dependency by which a route says whom it serves. An admin is served everywhere."""

    def __init__(self, *roles: Role) -> None:
        self.roles = frozenset(roles) | {Role.ADMIN}

    async def __call__(self, request: Request, key: Annotated[str | None, Security(_header)]) -> Principal:
        """The caller. 401 without a valid key, 403 for one of another role."""
        principal: Principal | None = await request.app.state.services.keys.verify(key) if key else None
        if principal is None:
            detail = "the API key is not valid" if key else "there is no API key"
            challenge = {"WWW-Authenticate": f'ApiKey header="{HEADER}"'}
            raise ProblemError(401, "no_valid_key", detail, path=HEADER, hint=f"send it as {HEADER}", headers=challenge)
        if principal.role not in self.roles:
            served = ", ".join(role for role in Role if role in self.roles)
            detail = f"this route does not serve {principal.role}"
            raise ProblemError(403, "wrong_role", detail, hint=f"it serves {served}")
        return principal


def actor(principal: Principal) -> str:
    """How the audit trail and a case name the caller: owners are for people, and need not be unique."""
    return f"{principal.owner[:OWNER_CHARACTERS_SHOWN]} ({principal.key_id})"
