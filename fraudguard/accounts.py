"""Signing in: passwords by argon2id, one-time codes by RFC 6238, and what is sealed for them.

Knows how a person proves who they are; where accounts and sessions are stored is decisions/, what a request looks like
is api/'s. No password, code or secret is logged or repeated in an error.
"""

import asyncio
import hmac
import secrets
from datetime import datetime

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from fraudguard.decisions.people import Credentials
from fraudguard.decisions.repository import Repository
from fraudguard.decisions.sessions import Opened
from fraudguard.errors import BadInput, BadSignIn
from fraudguard.sealing import Seal

PASSWORD_CHARACTERS_MIN, PASSWORD_CHARACTERS_MAX = 12, 256
CODE_STEP_S = 30  # RFC 6238, 5.2; the step before and the one after count as well
HASHES_AT_ONCE = 2  # each takes HASH_KIB and a core for a tenth of a second

# Twice the work of the OWASP cheat sheet's first choice. One lane: lanes wait for each other where cores are busy.
HASH_KIB = 46 * 1024
_HASHER = PasswordHasher(time_cost=2, memory_cost=HASH_KIB, parallelism=1)
# Checked where there is no such account, so that the time to an answer does not tell which names exist.
_NOBODY = _HASHER.hash(secrets.token_urlsafe(16))


def hash_of(password: str) -> str:
    """What is stored of a password: argon2id with its parameters and a salt of its own."""
    return _HASHER.hash(password)


def new_password() -> tuple[str, str]:
    """A password of 120 random bits, and its hash."""
    password = secrets.token_urlsafe(15)
    return password, hash_of(password)


class Accounts:
    """Checks what people type. Every method raises StoreUnavailable when PostgreSQL does not answer."""

    def __init__(self, repository: Repository, seal: Seal) -> None:
        """seal: of the secrets of one-time codes."""
        self._repository, self._seal = repository, seal
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)

    async def sign_in(self, name: str, password: str, code: str | None, at: datetime) -> Opened:
        """A new session. Raises BadSignIn, always the same unless only the code is missing."""
        known = await self._repository.people.attempt(name.lower(), at)
        right = await self._verify(known.password_hash if known else _NOBODY, password)
        if known is None or not right:
            raise _refused()
        step = self._step_of(known, code, at)
        opened = await self._repository.sessions.open(known, step, at)
        if opened is None:
            raise _refused()
        return opened

    async def change_password(self, name: str, old: str, new: str, at: datetime) -> None:
        """Somebody changes their own; ends all their sessions. Raises BadSignIn for the old, BadInput for the new."""
        if not PASSWORD_CHARACTERS_MIN <= len(new) <= PASSWORD_CHARACTERS_MAX:
            reason = f"must have {PASSWORD_CHARACTERS_MIN} to {PASSWORD_CHARACTERS_MAX} characters"
            raise BadInput(reason, path="new", hint="a few unrelated words make a good one")
        known = await self._repository.people.attempt(name, at)
        if not await self._verify(known.password_hash if known else _NOBODY, old) or known is None:
            raise _refused()
        async with self._hashing:
            hashed = await asyncio.to_thread(hash_of, new)
        await self._repository.people.set_password(name, hashed, name, at, seen=known.password_hash)

    async def ask_for_codes(self, name: str, actor: str, at: datetime) -> str:
        """From now on; the otpauth:// address for the person's app, shown once. Raises NotFound, BadSettings."""
        secret = pyotp.random_base32()
        await self._repository.people.set_secret(name, self._seal.close(secret), actor, at)
        return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="fraudguard")

    async def _verify(self, hashed: str, password: str) -> bool:
        async with self._hashing:
            try:
                return await asyncio.to_thread(_HASHER.verify, hashed, password)
            except VerifyMismatchError:
                return False

    def _step_of(self, known: Credentials, code: str | None, at: datetime) -> int | None:
        """The time step that the code is of; None for an account without codes. Raises BadSignIn, BadSettings."""
        if known.secret is None:
            return None
        if not code:
            raise BadSignIn("a one-time code is needed", path="code", hint="it is in your app", code="code_needed")
        totp = pyotp.TOTP(self._seal.open(known.secret))
        now = int(at.timestamp()) // CODE_STEP_S
        for step in (now - 1, now, now + 1):
            if step > known.code_step and hmac.compare_digest(totp.at(step * CODE_STEP_S).encode(), code.encode()):
                return step
        raise _refused()


def _refused() -> BadSignIn:
    hint = "after several failures an account is locked for a while; `fraudguard users reset` gives a new password"
    return BadSignIn("the name, the password or the code is not right", hint=hint, code="bad_sign_in")
